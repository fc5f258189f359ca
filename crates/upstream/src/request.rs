//! What goes upstream, and how it is made anew from parts, so that no oddity of a client's framing passes through.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use parking_lot::Mutex;
use refrain_core::settings::Timeouts;
use tokio::time::Instant;

use crate::demand::Demand;
use crate::endpoint::EndpointState;
use crate::ledger::Charge;
use crate::{UpstreamError, strip_hop_by_hop};

/// Any error of a streamed request body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One request for a pool. `Host`, `Content-Length`, `Transfer-Encoding` and other hop-by-hop headers are dropped and
/// set anew; the endpoint's own headers, `Authorization` among them, replace those that are here.
#[derive(Debug)]
pub struct UpstreamRequest {
    /// The method.
    pub method: Method,
    /// Path and query as the upstream shall see them, without the endpoint's base path.
    pub path_and_query: PathAndQuery,
    /// Already filtered by the proxy.
    pub headers: HeaderMap,
    /// The body.
    pub body: UpstreamBody,
    /// The route's time-outs.
    pub timeouts: Timeouts,
    /// Where it shall go.
    pub demand: Demand,
    /// Where its cost is put down; none: nowhere.
    pub charge: Option<Charge>,
}

/// A request body.
pub enum UpstreamBody {
    /// Whole, perhaps empty: can be sent again.
    Full(Bytes),
    /// As it comes: is sent once. Build it with [`UpstreamBody::stream`].
    Stream(UnsyncBoxBody<Bytes, BoxError>),
}

impl UpstreamBody {
    /// No body.
    pub fn empty() -> Self {
        Self::Full(Bytes::new())
    }

    /// A body that is passed on as it comes. An error of it ends as [`UpstreamError::RequestBody`].
    pub fn stream<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::Stream(body.map_err(Into::into).boxed_unsync())
    }
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream(..)"),
        }
    }
}

/// Removes from a request's headers what is set anew for each connection.
pub(crate) fn normalise(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    for name in [HOST, CONTENT_LENGTH, EXPECT] {
        headers.remove(name);
    }
}

/// Builds the request for one endpoint out of normalised headers.
pub(crate) fn build(
    endpoint: &EndpointState,
    method: Method,
    path_and_query: &PathAndQuery,
    mut headers: HeaderMap,
    body: SentBody,
) -> Result<Request<SentBody>, UpstreamError> {
    headers.insert(HOST, endpoint.host.clone());
    for (name, value) in &endpoint.headers {
        headers.insert(name, value.clone());
    }
    if body.is_end_stream() && (method == Method::POST || method == Method::PUT || method == Method::PATCH) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = target(endpoint, path_and_query)?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Makes of a request for HTTP/1.1 one for HTTP/2, where the target says what `Host` did.
pub(crate) fn absolute(
    endpoint: &EndpointState,
    request: Request<SentBody>,
) -> Result<Request<SentBody>, UpstreamError> {
    let (mut head, body) = request.into_parts();
    head.headers.remove(HOST);
    head.version = Version::HTTP_2;
    let mut parts = head.uri.into_parts();
    parts.scheme = Some(if endpoint.config.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(endpoint.authority.clone());
    head.uri = Uri::from_parts(parts).map_err(|_| UpstreamError::Path { endpoint: endpoint.id().clone() })?;
    Ok(Request::from_parts(head, body))
}

/// Origin form, behind the endpoint's base path.
fn target(endpoint: &EndpointState, path_and_query: &PathAndQuery) -> Result<Uri, UpstreamError> {
    let base = &endpoint.config.base_path;
    if base.is_empty() {
        return Ok(Uri::from(path_and_query.clone()));
    }
    PathAndQuery::try_from(format!("{base}{path_and_query}"))
        .map(Uri::from)
        .map_err(|_| UpstreamError::Path { endpoint: endpoint.id().clone() })
}

/// How a streamed body gets along: the first-byte time-out counts from the request's last byte.
#[derive(Debug)]
pub(crate) struct Progress {
    moved_at: Instant,
    /// The client has not sent the next piece yet, which is not the upstream's fault.
    waits_for_client: bool,
}

impl Progress {
    pub(crate) fn new(now: Instant) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { moved_at: now, waits_for_client: false }))
    }

    /// Since when the upstream alone is being waited for.
    pub(crate) fn upstream_owes_since(&self, now: Instant) -> Instant {
        if self.waits_for_client { now } else { self.moved_at }
    }

    fn note(&mut self, now: Instant, waits_for_client: bool) {
        *self = Self { moved_at: now, waits_for_client };
    }
}

/// The body as hyper sends it.
pub(crate) enum SentBody {
    Full(Bytes),
    Stream(UnsyncBoxBody<Bytes, BoxError>, Arc<Mutex<Progress>>),
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(body, progress) => {
                let polled = Pin::new(body).poll_frame(cx);
                progress.lock().note(Instant::now(), polled.is_pending());
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(body, _) => body.size_hint(),
        }
    }
}
