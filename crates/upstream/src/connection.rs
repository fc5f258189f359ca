//! What carries one request: a connection of its own, or a stream of a shared one.

use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::http1::Http1;
use crate::http2::Stream;

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

impl Connection {
    /// Polls what comes by nothing but this connection.
    pub(crate) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        match self {
            Self::Own(line) => {
                line.drive(cx);
                line.bell.muted(poll)
            }
            Self::Shared(_) => poll(cx),
        }
    }

    /// Ready once `deadline` has passed.
    pub(crate) fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        match self {
            Self::Own(line) => line.poll_deadline(deadline),
            Self::Shared(stream) => stream.poll_deadline(cx, deadline),
        }
    }

    /// Draws conclusions from an error of the request on it.
    pub(crate) fn note(&self, error: &hyper::Error) -> Told {
        match self {
            Self::Own(_) => Told::First,
            Self::Shared(stream) => stream.note(error),
        }
    }
}
