//! What goes upstream, and how it is made anew from parts, so that no oddity of a client's framing passes through.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::uri::{self, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
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

/// One try of a request, for one endpoint.
pub(crate) struct Outgoing<'a> {
    pub(crate) method: &'a Method,
    /// Behind the endpoint's base path.
    pub(crate) target: Cow<'a, PathAndQuery>,
    endpoint: &'a EndpointState,
    /// Normalised.
    headers: &'a HeaderMap,
    pub(crate) body: SentBody,
}

/// What a request says of its body's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// There is no body, and none that could be expected.
    None,
    /// In bytes.
    Known(u64),
    /// It ends where it ends.
    Unknown,
}

impl<'a> Outgoing<'a> {
    /// `headers`: normalised.
    ///
    /// # Errors
    /// [`UpstreamError::Path`] if the base path is none.
    pub(crate) fn new(
        endpoint: &'a EndpointState,
        method: &'a Method,
        path_and_query: &'a PathAndQuery,
        headers: &'a HeaderMap,
        body: SentBody,
    ) -> Result<Self, UpstreamError> {
        let target = target(endpoint, path_and_query)?;
        Ok(Self { method, target, endpoint, headers, body })
    }

    /// What goes into `Host`.
    pub(crate) fn host(&self) -> &HeaderValue {
        &self.endpoint.host
    }

    /// The endpoint's own fields, and those of the request that they don't replace.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let own = &self.endpoint.headers;
        own.iter().chain(self.headers.iter().filter(|(name, _)| !own.contains_key(*name)))
    }

    /// A body that is not there is said to be empty where one is expected (RFC 9110, section 8.6).
    pub(crate) fn body_length(&self) -> BodyLength {
        let expects_body = [Method::POST, Method::PUT, Method::PATCH].contains(self.method);
        match self.body.size_hint().exact() {
            Some(0) if !expects_body => BodyLength::None,
            Some(bytes) => BodyLength::Known(bytes),
            None => BodyLength::Unknown,
        }
    }

    /// The same for HTTP/2, where the target says what `Host` did.
    ///
    /// # Errors
    /// [`UpstreamError::Path`] if that makes no target.
    pub(crate) fn into_http2(self) -> Result<Request<SentBody>, UpstreamError> {
        let Self { method, target, endpoint, headers, .. } = &self;
        let mut headers = HeaderMap::clone(headers);
        for (name, value) in &endpoint.headers {
            headers.insert(name, value.clone());
        }
        if self.body_length() == BodyLength::Known(0) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut parts = uri::Parts::default();
        parts.scheme = Some(if endpoint.config.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(endpoint.authority.clone());
        parts.path_and_query = Some(PathAndQuery::clone(target));
        let uri =
            Uri::from_parts(parts).map_err(|_| UpstreamError::Path { endpoint: endpoint.id().clone() })?;
        let method = Method::clone(method);
        let mut request = Request::new(self.body);
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
        *request.version_mut() = Version::HTTP_2;
        Ok(request)
    }
}

/// Origin form, behind the endpoint's base path. Of an absolute URL without a path a query may be all there is.
fn target<'a>(
    endpoint: &EndpointState,
    path_and_query: &'a PathAndQuery,
) -> Result<Cow<'a, PathAndQuery>, UpstreamError> {
    let base = &endpoint.config.base_path;
    if base.is_empty() && path_and_query.as_str().starts_with(['/', '*']) {
        return Ok(Cow::Borrowed(path_and_query));
    }
    PathAndQuery::try_from(format!("{base}{path_and_query}"))
        .map(Cow::Owned)
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

/// The body as it is sent.
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
            Self::Stream(body, _) if body.is_end_stream() => SizeHint::with_exact(0),
            Self::Stream(body, _) => body.size_hint(),
        }
    }
}
