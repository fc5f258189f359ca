//! The path of one request, a line a stage. Each stage hands on proof of what it checked.

use std::sync::Arc;
use std::time::Instant;

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use refrain_cache::Refusal;
use refrain_core::{Api, Bypass, Code, Dialect, ListenerId, Prompt, Role};

use crate::access::AccessLine;
use crate::ask::Asked;
use crate::auth::Caller;
use crate::body::Body;
use crate::cache_status::CacheStatus;
use crate::failure::Failure;
use crate::generate::{Generated, Part};
use crate::lookup::{Hit, Keyed, Lookup};
use crate::metrics::{self, Outcome};
use crate::paths::PathClass;
use crate::route::{ROOT, RouteState, Routed};
use crate::snapshot::{AnswerCache, Snapshot};
use crate::worker::Worker;
use crate::{ask, cors, error_response, generate, head, ingest, lookup, models, pass, plan, respond, route};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const DEBUG_ASKED: HeaderName = HeaderName::from_static("x-refrain-debug");
const DEBUG: HeaderName = HeaderName::from_static("refrain-debug");

/// Proof that a request has a route and a known caller who may use its path.
pub(crate) struct Admitted {
    /// The route and the head.
    pub(crate) routed: Routed,
    /// Who asks.
    pub(crate) caller: Caller,
}

impl Admitted {
    /// The route.
    pub(crate) fn state(&self) -> &Arc<RouteState> {
        &self.routed.state
    }

    /// The API whose body must be understood; none: the request is passed through unread.
    fn reads(&self) -> Option<Api> {
        let PathClass::Api(api) = self.routed.head.class else { return None };
        let state = self.state();
        let needed = state.route.cache.enabled
            || !state.pool.config().models.is_empty()
            || !self.caller.models.is_empty();
        needed.then_some(api)
    }
}

/// What is told of a request beside its response: for headers, metrics and the access line.
#[derive(Default)]
pub(crate) struct Note {
    /// Who took it.
    pub(crate) state: Option<Arc<RouteState>>,
    /// What the cache did.
    pub(crate) status: Option<CacheStatus>,
    /// A reason's token.
    pub(crate) detail: &'static str,
    /// The path's class or API.
    pub(crate) api: &'static str,
    /// Cosine similarity of the nearest stored question.
    pub(crate) similarity: Option<f32>,
    /// Why no similar question's answer was served.
    pub(crate) refusal: Option<Refusal>,
    /// Whether the caller may see similarity and refusal, and asked to.
    pub(crate) debug: bool,
}

/// Answers one request. Never fails: what goes wrong is an error in the client's dialect.
pub(crate) async fn serve(
    worker: &Arc<Worker>,
    listener: &ListenerId,
    request: Request<Incoming>,
) -> Response<Body> {
    let begun = Instant::now();
    let snapshot = worker.live.load_full();
    let dialect = Dialect::of_path(request.uri().path());
    let origin = request.headers().get(http::header::ORIGIN).cloned();
    let mut note = Note::default();
    let (response, error) = match path(worker, &snapshot, listener, request, &mut note).await {
        Ok(response) => (response, None),
        Err(failure) => (error_response::render(&failure, dialect), Some(failure.code)),
    };
    finish(&snapshot, note, (response, error), origin, begun)
}

/// The path: head -> route -> auth -> body -> prompt -> plan -> lookup -> generate -> respond.
async fn path(
    worker: &Arc<Worker>,
    snapshot: &Snapshot,
    listener: &ListenerId,
    request: Request<Incoming>,
    note: &mut Note,
) -> Result<Response<Body>, Failure> {
    let (parts, body) = request.into_parts();
    let limits = &snapshot.settings.limits;
    let head = head::check(listener, limits, parts)?;
    if head.class == PathClass::Root {
        return root(&head.parts.method);
    }
    let routed = route::select(&snapshot.routes, head)?;
    note.routed(&routed);
    if let Some(preflight) = cors::preflight(&routed) {
        return Ok(preflight);
    }
    let caller = identify(snapshot, &routed)?;
    route::authorize(&routed, &caller)?;
    let admitted = Admitted { routed, caller };
    note.admitted(&admitted);
    if admitted.routed.head.class == PathClass::Models {
        return models::list(worker, &admitted).await;
    }
    let Some(api) = admitted.reads() else {
        note.bypass(Bypass::CacheOff);
        return pass::streamed(worker, &admitted, body, limits.body_bytes_max).await;
    };
    let headers = &admitted.routed.head.parts.headers;
    let body = ingest::read(headers, body, limits).await?;
    let asked = ask::understand(api, &body, &admitted, limits)?;
    let keyed = plan_and_key(snapshot, &admitted, &asked);
    let (cache, keyed) = match keyed {
        Ok(found) => found,
        Err(reason) => {
            note.bypass(reason);
            return pass::whole(worker, &admitted, &asked).await;
        }
    };
    let asked = Arc::new(asked);
    let prompt = &asked.request.prompt;
    let miss = match lookup::find(cache, admitted.state(), prompt, keyed, note).await {
        Lookup::Hit(hit) => return serve_hit(cache, &admitted, &hit, prompt, note),
        Lookup::NotCached => {
            note.status = Some(CacheStatus::NotCached);
            return Err(Failure::new(Code::NotCached, "nothing fresh is stored for this request"));
        }
        Lookup::Miss(miss) => miss,
    };
    let bytes_max = miss.plan.entry_bytes_max;
    note.status = Some(miss.status);
    match generate::answer(worker, cache, &admitted, (&asked, *miss), note).await? {
        Generated::Stored(hit) => serve_hit(cache, &admitted, &hit, prompt, note),
        Generated::Flight(flight) => {
            if flight.part == Part::Joined {
                note.status = Some(CacheStatus::Collapsed);
            }
            respond::generated(flight, prompt, bytes_max).await
        }
    }
}

fn serve_hit(
    cache: &AnswerCache,
    admitted: &Admitted,
    hit: &Hit,
    prompt: &Prompt,
    note: &mut Note,
) -> Result<Response<Body>, Failure> {
    note.status = Some(CacheStatus::Hit { tier: hit.tier, ttl_s: respond::ttl_s(hit) });
    admitted.state().metrics.saved(hit.entry.usage);
    respond::hit(cache, hit, prompt)
}

fn identify(snapshot: &Snapshot, routed: &Routed) -> Result<Caller, Failure> {
    let listener = snapshot
        .listener(&routed.head.listener)
        .ok_or_else(|| Failure::new(Code::Draining, "this listener is closing"))?;
    snapshot.keys.identify(listener, &routed.head.parts.headers)
}

fn plan_and_key<'a>(
    snapshot: &'a Snapshot,
    admitted: &Admitted,
    asked: &Asked,
) -> Result<(&'a Arc<AnswerCache>, Keyed), Bypass> {
    let cache = snapshot.cache.as_ref().ok_or(Bypass::CacheOff)?;
    let head = &admitted.routed.head;
    let prompt = &asked.request.prompt;
    let plan = plan::decide(&admitted.state().route, &snapshot.settings.store, &head.parts.headers, prompt)?;
    let mut keyed =
        lookup::key(cache, admitted.state(), &admitted.caller, head, prompt, (&asked.model, plan))?;
    let identity = &admitted.caller.identity;
    if admitted.state().repeats.is_repeat(&keyed.key, identity, Instant::now()) {
        admitted.state().metrics.bypass(Bypass::Regenerate);
        keyed.plan.directives.no_cache = true;
    }
    Ok((cache, keyed))
}

fn root(method: &Method) -> Result<Response<Body>, Failure> {
    if *method != Method::GET && *method != Method::HEAD {
        return Err(Failure::new(Code::MethodNotAllowed, "this path takes GET"));
    }
    let (status, text) = ROOT;
    let mut response = Response::new(Body::full(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

impl Note {
    fn routed(&mut self, routed: &Routed) {
        self.state = Some(routed.state.clone());
        self.api = match routed.head.class {
            PathClass::Api(api) => api.as_str(),
            PathClass::Plain | PathClass::Root => "plain",
            PathClass::Models => "models",
            PathClass::Admin => "admin",
            PathClass::Unknown => "extra",
        };
    }

    fn admitted(&mut self, admitted: &Admitted) {
        self.debug = admitted.caller.identity.role == Role::Admin
            && admitted.routed.head.parts.headers.contains_key(DEBUG_ASKED);
    }

    fn bypass(&mut self, reason: Bypass) {
        self.status = Some(CacheStatus::Bypass(reason));
        self.detail = reason.as_str();
        if let Some(state) = &self.state {
            state.metrics.bypass(reason);
        }
    }
}

/// Headers, counters and the access line of a response that is ready to go.
fn finish(
    snapshot: &Snapshot,
    note: Note,
    (mut response, error): (Response<Body>, Option<Code>),
    origin: Option<HeaderValue>,
    begun: Instant,
) -> Response<Body> {
    if let Some(status) = note.status {
        response.headers_mut().append(CACHE_STATUS, status.header());
    }
    if note.debug {
        debug_header(&note, &mut response);
    }
    let outcome = outcome(note.status, error);
    match &note.state {
        Some(state) => {
            state.metrics.outcome(outcome);
            state.metrics.head_sent(begun.elapsed());
            if let Some(code) = error {
                state.metrics.error(code);
            }
            cors::allow(&state.route.cors_origins, origin.as_ref(), response.headers_mut());
        }
        None => {
            if let Some(code) = error {
                metrics::unrouted(code);
            }
        }
    }
    if !snapshot.sampler.takes(error.is_some()) {
        return response;
    }
    let mut line = Box::new(AccessLine::new(response.status(), begun));
    line.route = note.state.as_ref().map(|state| state.route.id.clone());
    (line.api, line.outcome, line.detail, line.error) = (note.api, outcome.as_str(), note.detail, error);
    response.map(|body| body.with_line(line))
}

fn outcome(status: Option<CacheStatus>, error: Option<Code>) -> Outcome {
    match (status, error) {
        (_, Some(_)) => Outcome::Error,
        (Some(status), None) => status.outcome(),
        (None, None) => Outcome::Local,
    }
}

/// What only an admin may see: how near the nearest stored question was, and why its answer was not served.
fn debug_header(note: &Note, response: &mut Response<Body>) {
    let similarity =
        note.similarity.map_or_else(|| "none".to_owned(), |similarity| format!("{similarity:.4}"));
    let refusal = note.refusal.map_or("none", Refusal::as_str);
    if let Ok(value) = HeaderValue::try_from(format!("similarity={similarity}; refusal={refusal}")) {
        response.headers_mut().insert(DEBUG, value);
    }
}
