//! Past the cache: the request goes upstream as it is, and the answer comes back as it is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use refrain_core::settings::Limits;
use refrain_llm::request::Rewrite;
use refrain_upstream::{BoxError, Demand, PoolState, UpstreamBody, UpstreamResponse};

use crate::affinity;
use crate::body::{Body, Relay, Source};
use crate::failure::Failure;
use crate::generate::form_of;
use crate::ingest;
use crate::paths::PathClass;
use crate::plan::Planned;
use crate::request::Admitted;
use crate::upstream_headers::{self, Encoding};
use crate::worker::Worker;

/// Bodies up to this length are not streamed.
const SHORT_BYTES_MAX: u64 = 64 * 1024;

/// Sends a request whose body was read.
pub(crate) async fn whole(
    worker: &Worker,
    admitted: &Admitted,
    planned: &Planned,
) -> Result<Response<Body>, Failure> {
    let Planned { sent, target, .. } = planned;
    let rewrite = Rewrite { model: sent.renamed(target), include_usage: false };
    let body = UpstreamBody::Full(sent.request.upstream_body(&rewrite));
    send(worker, admitted, (&target.pool, affinity::demand(admitted, planned)), body).await
}

/// Sends a request whose body nobody needs to read, as it comes in. Uploads to a server's admin paths (models of many
/// gigabytes) have no length limit; everything else has the body's.
pub(crate) async fn streamed(
    worker: &Worker,
    admitted: &Admitted,
    body: Incoming,
    limits: &Limits,
) -> Result<Response<Body>, Failure> {
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
        let body = UpstreamBody::Full(ingest::whole(body, limits).await?);
        return send(worker, admitted, to, body).await;
    }
    let over = Arc::new(AtomicBool::new(false));
    let left = bytes_max.map_or(u64::MAX, |max| max as u64);
    let bounded = UpstreamBody::stream(Bounded { body, left, over: over.clone() });
    let sent = send(worker, admitted, to, bounded).await;
    match bytes_max {
        Some(bytes_max) if sent.is_err() && over.load(Ordering::Relaxed) => Err(ingest::too_large(bytes_max)),
        _ => sent,
    }
}

/// Whether the body is better read first: it mostly came with the head, and can be sent again as any prompt can.
fn is_short_prompt(admitted: &Admitted, body: &Incoming) -> bool {
    let is_short = body.size_hint().exact().is_some_and(|length| length <= SHORT_BYTES_MAX);
    is_short && matches!(admitted.routed.head.class, PathClass::Api(_))
}

async fn send(
    worker: &Worker,
    admitted: &Admitted,
    (pool, demand): (&Arc<PoolState>, Demand),
    body: UpstreamBody,
) -> Result<Response<Body>, Failure> {
    let mut request = upstream_headers::request(admitted, Encoding::AsAsked, body)?;
    request.demand = demand;
    let response = worker.client.send(pool, request).await?;
    admitted.state().metrics.first_byte(response.timings.first_byte);
    Ok(relay(response, admitted))
}

fn relay(response: UpstreamResponse, admitted: &Admitted) -> Response<Body> {
    let UpstreamResponse { status, headers, body, .. } = response;
    let dialect = admitted.routed.head.dialect;
    let is_stream = form_of(&headers, dialect) == Some(refrain_llm::answer::Form::Stream);
    let length = announced(&headers);
    let mut response =
        Response::new(Body::relay(Relay::new(Source::Upstream(body), is_stream.then_some(dialect), length)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The announced length of a body.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A request body with an upper bound.
struct Bounded {
    body: Incoming,
    left: u64,
    /// Told here, since the error itself is lost in the client's connection.
    over: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
#[error("the request's body is over the limit")]
struct OverLimit;

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            let frame = frame?;
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            let Some(left) = this.left.checked_sub(length) else {
                this.over.store(true, Ordering::Relaxed);
                return Err(OverLimit.into());
            };
            this.left = left;
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
