//! The body of an upstream's answer: ends cleanly, or with an error that says how it broke.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use refrain_core::EndpointId;
use tokio::time::Instant;

use crate::UpstreamError;
use crate::admission::Seat;
use crate::connection::{Connection, Told, WireFault};
use crate::connections::Connections;

/// A response body. An HTTP/1.1 connection goes back to the idle ones only when the body ended cleanly; dropping the
/// stream before closes it at once, or resets its stream of an HTTP/2 connection, which is how the upstream learns that nobody
/// wants the rest. Trailers are dropped.
#[derive(Debug)]
pub struct UpstreamStream {
    /// None once the body ended, well or not.
    lease: Option<Lease>,
    idle: Duration,
    /// Counted from when it is first waited for what comes next.
    idle_deadline: Option<Instant>,
    total_deadline: Instant,
}

/// What a body holds until it ends.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) connection: Connection,
    /// Counts it until it has ended.
    pub(crate) seat: Seat,
    pub(crate) connections: Arc<Connections>,
    pub(crate) reuse: Reuse,
}

/// What becomes of the connection afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Close it.
    No,
    /// Keep it, for the announced time, among at most `count_max`.
    Yes { announced: Option<Duration>, count_max: usize },
}

impl Lease {
    fn give_back(self) {
        if let (Reuse::Yes { announced, count_max }, Connection::Own(line)) = (self.reuse, self.connection) {
            self.connections.put(self.seat.endpoint().key, line, announced, count_max);
        }
    }
}

impl UpstreamStream {
    pub(crate) fn new(lease: Lease, idle: Duration, total_deadline: Instant) -> Self {
        let mut stream = Self { lease: Some(lease), idle, idle_deadline: None, total_deadline };
        stream.finish_if_ended();
        stream
    }

    /// The next piece; none at the clean end. After an error it is ended too.
    ///
    /// # Errors
    /// [`UpstreamError::Cut`], [`UpstreamError::Malformed`], [`UpstreamError::IdleTimeout`] or
    /// [`UpstreamError::TotalTimeout`].
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        let Some(Lease { connection, seat, .. }) = &mut self.lease else {
            return Poll::Ready(None);
        };
        match connection.poll_data(cx) {
            Poll::Ready(Some(Ok(data))) => {
                // An answer that is always ahead of its reader never waits for a deadline.
                if Instant::now() >= self.total_deadline {
                    return self.fail(Told::First, |endpoint| UpstreamError::TotalTimeout { endpoint });
                }
                self.idle_deadline = None;
                seat.note_heard();
                self.finish_if_ended();
                Poll::Ready(Some(Ok(data)))
            }
            Poll::Ready(Some(Err((fault, told)))) => self.fail(told, |endpoint| broken(fault, endpoint)),
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let idle_deadline = *self.idle_deadline.get_or_insert_with(|| Instant::now() + self.idle);
                ready!(connection.poll_deadline(cx, idle_deadline.min(self.total_deadline)));
                if self.total_deadline <= idle_deadline {
                    self.fail(Told::First, |endpoint| UpstreamError::TotalTimeout { endpoint })
                } else {
                    self.fail(Told::First, |endpoint| UpstreamError::IdleTimeout { endpoint })
                }
            }
        }
    }

    /// The next piece, as [`UpstreamStream::poll_chunk`].
    ///
    /// # Cancel safety
    /// Safe: nothing is taken before it is returned.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, UpstreamError>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// The whole rest, if it is at most `bytes_max`.
    ///
    /// # Errors
    /// As [`UpstreamStream::poll_chunk`]; [`UpstreamError::Malformed`] if there is more.
    pub async fn collect(mut self, bytes_max: usize) -> Result<Bytes, UpstreamError> {
        let Some(lease) = &self.lease else { return Ok(Bytes::new()) };
        let endpoint = lease.seat.endpoint().id().clone();
        let too_long = UpstreamError::Malformed { endpoint, detail: "it is longer than it may be" };
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.chunk().await.transpose()? {
            if whole.len() + chunk.len() > bytes_max {
                return Err(too_long);
            }
            if whole.is_empty() && self.lease.is_none() {
                return Ok(chunk);
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    fn finish_if_ended(&mut self) {
        if self.lease.as_ref().is_some_and(|lease| lease.connection.is_at_end()) {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    /// Ends the stream with an error; dropping the lease closes the connection.
    fn fail(
        &mut self,
        told: Told,
        error: impl FnOnce(EndpointId) -> UpstreamError,
    ) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        let Some(lease) = self.lease.take() else { return Poll::Ready(None) };
        let error = error(lease.seat.endpoint().id().clone());
        let ejection = lease.seat.pool().config().health.ejection;
        lease.seat.endpoint().note_error(&error, told, ejection);
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for UpstreamStream {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        self.get_mut().poll_chunk(cx).map_ok(Frame::data)
    }

    fn is_end_stream(&self) -> bool {
        self.lease.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.lease.as_ref().map_or_else(|| SizeHint::with_exact(0), |lease| lease.connection.size_hint())
    }
}

/// What an error within a body means.
fn broken(fault: WireFault, endpoint: EndpointId) -> UpstreamError {
    match fault {
        WireFault::Malformed(detail) => UpstreamError::Malformed { endpoint, detail },
        WireFault::Lost | WireFault::RequestBody => UpstreamError::Cut { endpoint },
    }
}
