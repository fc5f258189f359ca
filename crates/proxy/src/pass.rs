//! Past the cache: the request goes upstream as it is, and the answer comes back as it is.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use refrain_core::{Api, Bypass, Code, Prompt};
use refrain_llm::answer::Form;
use refrain_llm::usage::UsageObserver;
use refrain_upstream::{
    BoxError, Charge, Demand, PoolState, Purpose, UpstreamBody, UpstreamRequest, UpstreamResponse,
};

use crate::affinity;
use crate::ask::Target;
use crate::body::{Body, Relay, Source};
use crate::cost;
use crate::failure::Failure;
use crate::generate::form_of;
use crate::ingest::{self, Whole};
use crate::origin::{Dispatched, Origin};
use crate::outgoing::{self, Usage};
use crate::paths::PathClass;
use crate::plan::Planned;
use crate::request::Admitted;
use crate::respond::{self, Assembly, Wanted};
use crate::room::Share;
use crate::upload::Upload;
use crate::upstream_headers::{self, Encoding};
use crate::worker::Worker;

/// Longest answer to a load or unload call.
const TOLD_BYTES_MAX: usize = 64 * 1024;

/// Bodies up to this length are not streamed.
const SHORT_BYTES_MAX: u64 = 64 * 1024;

/// Sends a request whose body was read.
pub(crate) async fn whole(
    worker: &Worker,
    admitted: &Admitted,
    planned: &Planned,
) -> Result<Response<Body>, Failure> {
    let body = outgoing::body(admitted, planned, Usage::AsAsked);
    let encoding = if outgoing::is_assembled(planned) { Encoding::Identity } else { Encoding::AsAsked };
    let mut request = upstream_headers::request(admitted, encoding, body)?;
    request.demand = affinity::demand(admitted, planned);
    let pool = &planned.target.pool;
    let passed = ask(worker, admitted, pool, request).await?;
    if is_refused(pool, passed.response.status) {
        return Err(Failure::upstream(Code::Overloaded));
    }
    if planned.sent.request.prompt.bypass == Some(Bypass::LoadUnload) {
        tell_others(worker, admitted, planned, &passed.response)?;
    }
    if planned.sent.request.prompt.api == Api::Responses && pool.has_choice() {
        return Ok(relay_watched(passed, admitted, pool));
    }
    if outgoing::is_assembled(planned) {
        return assembled(passed, admitted, &planned.sent.request.prompt).await;
    }
    Ok(relay(passed, admitted))
}

/// An Ollama's load or unload call concerns everybody who has the model in memory: how long it stays there, or that it goes.
fn tell_others(
    worker: &Worker,
    admitted: &Admitted,
    planned: &Planned,
    response: &UpstreamResponse,
) -> Result<(), Failure> {
    let Target { pool, model, .. } = &planned.target;
    for endpoint in pool.others_with(model, &response.endpoint) {
        let body = outgoing::body(admitted, planned, Usage::AsAsked);
        let request = upstream_headers::request(admitted, Encoding::Identity, body)?;
        let (client, pool) = (worker.client.clone(), pool.clone());
        worker.spawn(async move {
            let told =
                async { client.send_to(&pool, &endpoint, request).await?.body.collect(TOLD_BYTES_MAX).await };
            if let Err(error) = told.await {
                tracing::debug!(%error, "a server was not told to load or unload a model");
            }
        });
    }
    Ok(())
}

/// Sends a request whose body nobody needs to read, as it comes in. Uploads to a server's admin paths (models of many
/// gigabytes) have no length limit; everything else has the body's.
pub(crate) async fn streamed(
    worker: &Worker,
    admitted: &Admitted,
    body: Incoming,
    share: Share<'_>,
) -> Result<Response<Body>, Failure> {
    let limits = share.limits;
    let bytes_max = match admitted.routed.head.class {
        PathClass::Admin => None,
        _ => Some(limits.body_bytes_max),
    };
    if let Some(bytes_max) = bytes_max {
        ingest::refuse_length(&admitted.routed.head.parts.headers, bytes_max)?;
    }
    let to = (&admitted.state().pool, affinity::unread(admitted));
    if body.is_end_stream() {
        return send(worker, admitted, to, UpstreamBody::empty()).await;
    }
    if is_short_prompt(admitted, &body) {
        let Whole { bytes, room: _room } = ingest::whole(body, share).await?;
        return send(worker, admitted, to, UpstreamBody::Full(bytes)).await;
    }
    if names_its_model(admitted, &body) {
        let Whole { bytes, room: _room } = ingest::whole(body, share).await?;
        let to = (to.0, affinity::naming(admitted, &bytes));
        return send(worker, admitted, to, UpstreamBody::Full(bytes)).await;
    }
    let upload = match bytes_max {
        Some(_) => Upload::new(body, limits),
        None => Upload::unbounded(body, limits),
    };
    let left = bytes_max.map_or(u64::MAX, |max| max as u64);
    let refused = Arc::new(Mutex::new(None));
    let bounded = UpstreamBody::stream(Bounded { upload, left, bytes_max, refused: refused.clone() });
    let sent = send(worker, admitted, to, bounded).await;
    match refused.lock().take() {
        Some(failure) if sent.is_err() => Err(failure),
        _ => sent,
    }
}

/// Whether the body is better read first: it mostly came with the head, and can be sent again as any prompt can.
fn is_short_prompt(admitted: &Admitted, body: &Incoming) -> bool {
    let is_short = body.size_hint().exact().is_some_and(|length| length <= SHORT_BYTES_MAX);
    is_short && matches!(admitted.routed.head.class, PathClass::Api(_))
}

/// Whether only some endpoints may know what is asked about.
fn names_its_model(admitted: &Admitted, body: &Incoming) -> bool {
    let is_short = body.size_hint().exact().is_some_and(|length| length <= SHORT_BYTES_MAX);
    is_short && admitted.routed.head.class == PathClass::Plain && admitted.state().pool.has_choice()
}

async fn send(
    worker: &Worker,
    admitted: &Admitted,
    (pool, demand): (&Arc<PoolState>, Demand),
    body: UpstreamBody,
) -> Result<Response<Body>, Failure> {
    // Tokens of a compressed answer can't be counted.
    let is_counted = admitted.state().limits.iter().any(|limit| limit.counts_tokens());
    let encoding = if is_counted { Encoding::Identity } else { Encoding::AsAsked };
    let mut request = upstream_headers::request(admitted, encoding, body)?;
    request.demand = demand;
    Ok(relay(ask(worker, admitted, pool, request).await?, admitted))
}

/// An answer on its way past the cache.
struct Passed {
    response: UpstreamResponse,
    /// Its record.
    dispatched: Arc<Dispatched>,
}

async fn ask(
    worker: &Worker,
    admitted: &Admitted,
    pool: &Arc<PoolState>,
    mut request: UpstreamRequest,
) -> Result<Passed, Failure> {
    let account = cost::account(admitted, pool);
    request.charge = Some(Charge { account: account.clone(), purpose: Purpose::Pass });
    let response = worker.client.send(pool, request).await?;
    admitted.state().metrics.first_byte(response.timings);
    let dispatched = Arc::new(Dispatched::of(&response).on(account, pool));
    Ok(Passed { response, dispatched })
}

/// Whether an answer only says that its pool has no room, and another pool stands in for it.
pub(crate) fn is_refused(pool: &PoolState, status: StatusCode) -> bool {
    status == StatusCode::SERVICE_UNAVAILABLE && pool.config().fallback.is_some()
}

/// A stream that stands for a whole answer; anything else is passed on as it is.
async fn assembled(passed: Passed, admitted: &Admitted, prompt: &Prompt) -> Result<Response<Body>, Failure> {
    if form_of(&passed.response.headers, prompt.api.dialect()) != Some(Form::Stream) {
        return Ok(relay(passed, admitted));
    }
    let Passed { response, dispatched } = passed;
    let UpstreamResponse { headers, mut body, .. } = response;
    let mut assembly = Assembly::new(prompt.api, Form::Stream, respond::CONVERTED_BYTES_MAX);
    while let Some(chunk) = body.chunk().await {
        assembly.feed(&chunk?)?;
    }
    let response = assembly.finish(&headers, Wanted::by(prompt), &dispatched)?;
    Ok(response.map(|body| body.from(Origin::Passed(dispatched))))
}

fn relay(passed: Passed, admitted: &Admitted) -> Response<Body> {
    relay_as(passed, admitted, |relay| relay)
}

/// Relays a response of the Responses API: who goes on from it later must reach the same endpoint.
fn relay_watched(passed: Passed, admitted: &Admitted, pool: &Arc<PoolState>) -> Response<Body> {
    let (pool, endpoint) = (pool.clone(), passed.response.endpoint.clone());
    let tenant = admitted.caller.identity.tenant.clone();
    let found = move |id: &str| pool.note_owner(affinity::response_hash(&tenant, id), &endpoint);
    relay_as(passed, admitted, |relay| relay.with_response_id(Box::new(found)))
}

fn relay_as(passed: Passed, admitted: &Admitted, with: impl FnOnce(Relay) -> Relay) -> Response<Body> {
    let Passed { response, dispatched } = passed;
    let UpstreamResponse { status, headers, body, .. } = response;
    let dialect = admitted.routed.head.dialect;
    let form = form_of(&headers, dialect).filter(|_| status == StatusCode::OK);
    let is_stream = form_of(&headers, dialect) == Some(Form::Stream);
    let length = announced(&headers);
    let mut relay = with(Relay::new(Source::Upstream(body), is_stream.then_some(dialect), length));
    if let (Some(form), PathClass::Api(_)) = (form, admitted.routed.head.class) {
        relay = relay.with_count(UsageObserver::new(dialect, form), &dispatched);
    }
    let mut response = Response::new(Body::relay(relay).from(Origin::Passed(dispatched)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The announced length of a body.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A request body with an upper bound, within its time.
struct Bounded {
    upload: Upload,
    left: u64,
    bytes_max: Option<usize>,
    /// Told here, since the error itself is lost in the client's connection.
    refused: Arc<Mutex<Option<Failure>>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the request's body can't be passed on")]
struct Refused;

impl Bounded {
    fn refuse(&self, failure: Failure) -> BoxError {
        *self.refused.lock() = Some(failure);
        Refused.into()
    }
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let piece = std::task::ready!(this.upload.poll(cx));
        Poll::Ready(piece.map(|piece| {
            let piece = piece.map_err(|failure| this.refuse(failure))?;
            match (this.left.checked_sub(piece.len() as u64), this.bytes_max) {
                (Some(left), _) => this.left = left,
                (None, bytes_max) => {
                    return Err(this.refuse(ingest::too_large(bytes_max.unwrap_or(usize::MAX))));
                }
            }
            Ok(Frame::data(piece))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.upload.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.upload.size_hint()
    }
}
