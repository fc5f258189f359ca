//! The path of one request, a line a stage. Each stage hands on proof of what it checked.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use refrain_core::settings::Priority;
use refrain_core::{Api, Bypass, Code, Dialect, Fault, ListenerId};

use crate::auth::{Arrival, Caller, PeerCertificate};
use crate::body::Body;
use crate::cache_status::CacheStatus;
use crate::failure::Failure;
use crate::generate::{Generated, Part};
use crate::key::Keyed;
use crate::limits::Granted;
use crate::lookup::{Hit, Lookup, Miss};
use crate::metrics::{self, Outcome};
use crate::note::Note;
use crate::paths::PathClass;
use crate::plan::{Meeting, Planned};
use crate::respond::Wanted;
use crate::room::Share;
use crate::route::{ROOT, RouteState, Routed};
use crate::snapshot::{AnswerCache, Snapshot};
use crate::tally::{Answered, Tally};
use crate::trace::StageKind;
use crate::worker::Worker;
use crate::{
    ask, audit, cors, cost, error_response, generate, head, ingest, insight, key, limits, lookup, models,
    pass, plan, refresh, respond, route,
};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// How a connection came in.
pub(crate) struct Entrance {
    /// Where.
    pub(crate) listener: ListenerId,
    /// From where: a client, or a balancer.
    pub(crate) peer: IpAddr,
    /// What its client has proved to be.
    pub(crate) certificate: Option<PeerCertificate>,
}

/// Proof that a request has a route and a known caller who may use its path.
pub(crate) struct Admitted {
    /// The route and the head.
    pub(crate) routed: Routed,
    /// Who asks.
    pub(crate) caller: Caller,
    /// Whose turn it is where model servers are at their limits.
    pub(crate) priority: Priority,
}

impl Admitted {
    /// The route.
    pub(crate) fn state(&self) -> &Arc<RouteState> {
        &self.routed.state
    }

    /// The API whose body must be understood; none: the request is passed through unread.
    pub(crate) fn reads(&self) -> Option<Api> {
        let PathClass::Api(api) = self.routed.head.class else { return None };
        let state = self.state();
        let needed = state.route.cache.enabled
            || (api == Api::Responses && state.pool.has_choice())
            || state.chain.is_some()
            || state.pool.reads_bodies()
            || self.caller.entitlements.limit_models();
        needed.then_some(api)
    }
}

/// Answers one request. Never fails: what goes wrong is an error in the client's dialect.
pub(crate) async fn serve(
    worker: &Arc<Worker>,
    entrance: &Entrance,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let mut tally = Tally::begin(request.method());
    let snapshot = worker.live.load_full();
    if let Some(tracer) = &snapshot.tracer {
        let trace = tracer.begin(request.headers());
        // The upstream is told with the client's other headers.
        trace.context().write(request.headers_mut());
        tally.note.trace = Some(trace);
    }
    let dialect = Dialect::of_path(request.uri().path());
    let origin = request.headers().get(http::header::ORIGIN).cloned();
    let (response, error) = match path(worker, &snapshot, entrance, request, &mut tally.note).await {
        Ok(response) => (response, None),
        Err(failure) => (error_response::render(&failure, dialect), Some(failure.code)),
    };
    finish(&snapshot, tally, (response, error), origin)
}

/// The path: head -> route -> auth -> limits -> body -> prompt -> plan (policies) -> answer.
async fn path(
    worker: &Arc<Worker>,
    snapshot: &Snapshot,
    entrance: &Entrance,
    request: Request<Incoming>,
    note: &mut Note,
) -> Result<Response<Body>, Failure> {
    let (parts, body) = request.into_parts();
    let bounds = &snapshot.settings.limits;
    let head = head::check(&entrance.listener, bounds, parts)?;
    if head.class == PathClass::Root {
        return root(&head.parts.method);
    }
    let routed = route::select(&snapshot.routes, head)?;
    note.routed(&routed);
    if let Some(preflight) = cors::preflight(&routed) {
        return Ok(preflight);
    }
    let caller = identify(snapshot, &routed, entrance).await?;
    route::authorize(&routed, &caller)?;
    let priority = snapshot.priority(&routed, &caller);
    let admitted = Arc::new(Admitted { routed, caller, priority });
    note.admitted(&admitted);
    note.granted = limits::admit(snapshot, &admitted, &mut note.limits).await?;
    if admitted.routed.head.class == PathClass::Models {
        return models::list(worker, &admitted).await;
    }
    let share =
        Share { memory: &worker.bodies, caller: &admitted.caller, peer: entrance.peer, limits: bounds };
    let Some(api) = admitted.reads() else {
        note.bypass(Bypass::CacheOff);
        note.passed(StageKind::Dispatch);
        return pass::streamed(worker, &admitted, body, share).await;
    };
    let body = ingest::read(&admitted.routed.head.parts.headers, body, share).await?;
    let asked = ask::understand(api, body, &admitted, bounds)?;
    limits::check_length(note.granted.as_mut(), &asked.0.request)?;
    let wanted = Wanted::by(&asked.0.request.prompt);
    note.understood(&asked.0.request.prompt);
    let (planned, meeting) = plan::decide(snapshot, &admitted, asked, note).await?;
    note.planned(&planned);
    answer_somewhere(worker, snapshot, (&admitted, planned), (meeting, wanted), note).await
}

/// The answer of the planned pool, or of the one that stands in for it, and so on. Each is another question to the cache.
async fn answer_somewhere(
    worker: &Arc<Worker>,
    snapshot: &Snapshot,
    (admitted, mut planned): (&Arc<Admitted>, Arc<Planned>),
    (meeting, wanted): (Meeting, Wanted),
    note: &mut Note,
) -> Result<Response<Body>, Failure> {
    let mut asked_before = Vec::new();
    loop {
        let answered = answer(worker, snapshot, (admitted, &planned), (meeting.clone(), wanted), note).await;
        let Err(failure) = answered else { return answered };
        if !matches!(failure.code, Code::UpstreamUnreachable | Code::Overloaded | Code::TenantOverloaded) {
            return Err(failure);
        }
        asked_before.push(planned.target.pool.id().clone());
        let Some(next) = plan::fall_back(snapshot, &admitted.caller, &planned, &asked_before) else {
            return Err(failure);
        };
        note.fell_back(&next);
        planned = next;
    }
}

/// Key -> lookup -> generate -> respond.
async fn answer(
    worker: &Arc<Worker>,
    snapshot: &Snapshot,
    (admitted, planned): (&Arc<Admitted>, &Arc<Planned>),
    (meeting, wanted): (Meeting, Wanted),
    note: &mut Note,
) -> Result<Response<Body>, Failure> {
    let (cache, keyed) = match key(snapshot, admitted, (planned, meeting)) {
        Ok(found) => found,
        Err(reason) => {
            note.bypass(reason);
            note.passed(StageKind::Dispatch);
            return pass::whole(worker, admitted, planned).await;
        }
    };
    let found = lookup::find(cache, keyed, note).await;
    note.passed(StageKind::Lookup);
    match found {
        Lookup::Hit(hit) => serve_hit(cache, (admitted, planned), (&hit, wanted), note),
        Lookup::Stale(hit, miss) => {
            refresh::begin(worker, cache, *miss);
            serve_hit(cache, (admitted, planned), (&hit, wanted), note)
        }
        Lookup::Audited(hit, miss) => {
            audit::begin(worker, cache, *miss);
            serve_hit(cache, (admitted, planned), (&hit, wanted), note)
        }
        Lookup::NotCached => {
            note.status = Some(CacheStatus::NotCached);
            Err(Failure::new(Code::NotCached, "nothing fresh is stored for this request"))
        }
        Lookup::Miss(mut miss) => {
            miss.refusal = note.refusal;
            generate(worker, cache, (Arc::from(miss), wanted), note).await
        }
    }
}

/// A miss: the answer of an upstream, or a stale one if none can answer.
async fn generate(
    worker: &Arc<Worker>,
    cache: &Arc<AnswerCache>,
    (miss, wanted): (Arc<Miss>, Wanted),
    note: &mut Note,
) -> Result<Response<Body>, Failure> {
    let (admitted, planned) = (&miss.keyed.admitted, &miss.keyed.planned);
    note.status = Some(miss.status);
    note.key = Some(miss.keyed.key.key);
    note.passed(StageKind::Dispatch);
    let generated = generate::answer(worker, cache, &miss, note).await;
    let fallback = miss.fallback.as_ref().filter(|_| is_down(&generated));
    // The upstream may have taken long to fail: what was purged meanwhile is no answer.
    if let Some(stale) = fallback.filter(|stale| cache.store.admits(&stale.entry)) {
        return serve_hit(cache, (admitted, planned), (stale, wanted), note);
    }
    match generated? {
        Generated::Stored(hit) => serve_hit(cache, (admitted, planned), (&hit, wanted), note),
        Generated::Flight(flight) => {
            if flight.part == Part::Joined {
                note.status = Some(CacheStatus::Collapsed);
                note.shared = Some(cost::account(admitted, &planned.target.pool));
                insight::note_joined(cache, &miss.keyed);
            }
            if pass::is_refused(&miss.keyed.planned.target.pool, flight.head.status) {
                return Err(Failure::upstream(Code::Overloaded));
            }
            respond::generated(flight, wanted).await
        }
    }
}

fn serve_hit(
    cache: &AnswerCache,
    (admitted, planned): (&Admitted, &Planned),
    (hit, wanted): (&Hit, Wanted),
    note: &mut Note,
) -> Result<Response<Body>, Failure> {
    let Hit { tier, place, staleness, .. } = *hit;
    note.status = Some(CacheStatus::Hit { tier, place, staleness, ttl_s: respond::ttl_s(hit) });
    note.key = Some(hit.entry.key.key);
    insight::note_hit(cache, admitted, hit);
    admitted.state().metrics.saved(hit.entry.usage);
    cost::spared(admitted, &planned.target.pool, &hit.entry);
    respond::hit(cache, hit, wanted)
}

/// Who asks.
///
/// # Errors
/// The credential is not valid, or needed and absent.
pub(crate) async fn identify(
    snapshot: &Snapshot,
    routed: &Routed,
    entrance: &Entrance,
) -> Result<Caller, Failure> {
    let listener = snapshot
        .listener(&entrance.listener)
        .ok_or_else(|| Failure::new(Code::Draining, "this listener is closing"))?;
    let authority = snapshot.tls.get(&entrance.listener).and_then(|tls| tls.authority.as_ref());
    let arrival = Arrival { listener, authority, certificate: entrance.certificate.as_ref() };
    let methods = routed.state.route.auth.as_deref();
    snapshot.auth.identify(arrival, methods, &routed.head.parts.headers).await
}

/// Whether no upstream could answer (RFC 5861, section 4: an error of the server, or no answer at all).
fn is_down(generated: &Result<Generated, Failure>) -> bool {
    match generated {
        Ok(Generated::Stored(_)) => false,
        Ok(Generated::Flight(flight)) => flight.head.status.is_server_error(),
        Err(failure) => {
            let is_full = matches!(failure.code, Code::Overloaded | Code::TenantOverloaded);
            is_full || failure.code.fault() == Fault::Upstream
        }
    }
}

/// The cache, and the request's name in it; else why it has none.
fn key<'a>(
    snapshot: &'a Snapshot,
    admitted: &Arc<Admitted>,
    (planned, meeting): (&Arc<Planned>, Meeting),
) -> Result<(&'a Arc<AnswerCache>, Keyed), Bypass> {
    let plan = meeting?;
    let cache = snapshot.cache.as_ref().ok_or(Bypass::CacheOff)?;
    let mut keyed = key::name(cache, admitted.clone(), planned.clone(), plan)?;
    let (state, identity) = (admitted.state(), &admitted.caller.identity);
    if state.repeats.is_repeat(&keyed.key, identity, Instant::now()) {
        state.metrics.bypass(Bypass::Regenerate);
        keyed.plan.directives.no_cache = true;
    }
    Ok((cache, keyed))
}

fn root(method: &Method) -> Result<Response<Body>, Failure> {
    if *method != Method::GET && *method != Method::HEAD {
        let failure = Failure::new(Code::MethodNotAllowed, "this path takes GET");
        return Err(failure.with_allowed("GET, HEAD"));
    }
    let (status, text) = ROOT;
    let mut response = Response::new(Body::full(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// Headers and counters of a response that is ready to go, and its record, which goes with it.
fn finish(
    snapshot: &Snapshot,
    mut tally: Box<Tally>,
    (mut response, error): (Response<Body>, Option<Code>),
    origin: Option<HeaderValue>,
) -> Response<Body> {
    if let Some(fields) = tally.note.limits.take() {
        fields.write(response.headers_mut());
    }
    let note = &tally.note;
    if let Some(status) = note.status {
        response.headers_mut().append(CACHE_STATUS, status.header());
    }
    note.add_debug(&mut response);
    let outcome = outcome(note.status, error);
    note.count_labels(outcome.as_str());
    let at = Instant::now();
    match &note.state {
        Some(state) => {
            state.metrics.outcome(outcome);
            state.metrics.head_sent(at - tally.begun);
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
    let is_logged = snapshot.sampler.takes(error.is_some());
    if note.granted.as_ref().is_some_and(Granted::counts_tokens) {
        response.body_mut().count_tokens();
    }
    let head = Answered { at, status: response.status(), outcome, error, is_logged };
    tally.travel(response, head)
}

fn outcome(status: Option<CacheStatus>, error: Option<Code>) -> Outcome {
    match (status, error) {
        (_, Some(_)) => Outcome::Error,
        (Some(status), None) => status.outcome(),
        (None, None) => Outcome::Local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_answer_serves_where_no_server_can_answer_or_has_room() {
        let fails = |code| is_down(&Err(Failure::upstream(code)));
        assert!([Code::UpstreamUnreachable, Code::UpstreamTimeout, Code::Overloaded].map(fails) == [true; 3]);
        assert!([Code::BadRequest, Code::NotCached, Code::PolicyRefused].map(fails) == [false; 3]);
    }
}
