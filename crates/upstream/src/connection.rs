//! What carries one request: a connection of its own, or a stream of a shared one.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::SizeHint;
use tokio::time::Instant;

use crate::UpstreamError;
use crate::http1::Http1;
use crate::http2::Stream;
use crate::request::{Outgoing, SentBody};
use crate::response::Head;

/// The way to the upstream for one request. Dropping it closes the connection, or ends the stream alone.
#[derive(Debug)]
pub(crate) enum Connection {
    /// HTTP/1.1. Boxed once for all its requests, since it is moved with each.
    Own(Box<Http1>),
    /// HTTP/2.
    Shared(Stream),
}

/// Whether something that happened to a connection is known from another request on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is news.
    First,
    /// It speaks no more against the endpoint than it did when it was told first.
    Before,
}

/// What can go wrong on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireFault {
    /// The connection or the stream ended or broke before the answer did.
    Lost,
    /// The server breaks the protocol, or a limit: in what.
    Malformed(&'static str),
    /// The request's own body failed.
    RequestBody,
}

/// A request that got no answer.
pub(crate) struct Unanswered {
    pub(crate) fault: WireFault,
    pub(crate) told: Told,
    /// Nothing of the request left this process, or the server says that it did not process it.
    pub(crate) is_unsent: bool,
    /// A body that nothing was taken of.
    pub(crate) body: Option<SentBody>,
}

impl Unanswered {
    /// By something that is news; the request may have been processed.
    pub(crate) fn by(fault: WireFault) -> Self {
        Self { fault, told: Told::First, is_unsent: false, body: None }
    }
}

impl Connection {
    /// Takes a request. It goes on its way when its answer is polled for, if not before.
    ///
    /// # Errors
    /// [`UpstreamError::Path`] if HTTP/2 has no way to say it.
    pub(crate) fn send(&mut self, request: Outgoing<'_>) -> Result<(), UpstreamError> {
        match self {
            Self::Own(line) => line.send(request),
            Self::Shared(stream) => stream.send(request.into_http2()?),
        }
        Ok(())
    }

    /// The head of the answer, once it is there.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Unanswered>> {
        match self {
            Self::Own(line) => line.poll_head(cx),
            Self::Shared(stream) => stream.poll_head(cx),
        }
    }

    /// The next piece of the answer's body; none at its end.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, (WireFault, Told)>>> {
        match self {
            Self::Own(line) => line.poll_data(cx).map_err(|fault| (fault, Told::First)),
            Self::Shared(stream) => stream.poll_data(cx),
        }
    }

    /// Whether the body has ended.
    pub(crate) fn is_at_end(&self) -> bool {
        match self {
            Self::Own(line) => line.is_at_end(),
            Self::Shared(stream) => stream.is_at_end(),
        }
    }

    /// How much of the body is still to come.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(line) => line.size_hint(),
            Self::Shared(stream) => stream.size_hint(),
        }
    }

    /// Ready once `deadline` has passed.
    pub(crate) fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        match self {
            Self::Own(line) => line.poll_deadline(cx, deadline),
            Self::Shared(stream) => stream.poll_deadline(cx, deadline),
        }
    }
}
