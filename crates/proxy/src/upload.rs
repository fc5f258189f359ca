//! A request's body on its way in: between two pieces of it, and altogether, it has so much time.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming, SizeHint};
use refrain_core::settings::Limits;
use refrain_core::{Code, DeadlineTimer};
use tokio::time::Instant;

use crate::failure::Failure;

/// The body. Its trailers are dropped.
pub(crate) struct Upload {
    body: Incoming,
    /// Between two pieces.
    patience: Duration,
    /// For the whole.
    whole: Option<Duration>,
    /// Since when more is waited for, in all and since the last piece. Most bodies are there at once and need no clock.
    waited: Option<(Instant, Option<Instant>)>,
    timer: DeadlineTimer,
}

impl Upload {
    /// A body that must be whole within its time, from when it is first waited for.
    pub(crate) fn new(body: Incoming, limits: &Limits) -> Self {
        Self { whole: Some(limits.upload_timeout), ..Self::unbounded(body, limits) }
    }

    /// One that may take as long as its pieces keep coming.
    pub(crate) fn unbounded(body: Incoming, limits: &Limits) -> Self {
        let timer = DeadlineTimer::default();
        Self { body, patience: limits.body_timeout, whole: None, waited: None, timer }
    }

    /// The next piece; none after the last.
    ///
    /// # Errors
    /// It broke off, or comes too slowly.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(_))) => {
                    let failure = Failure::new(Code::BodyIncomplete, "the request's body broke off");
                    return Poll::Ready(Some(Err(failure)));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some((_, since_last)) = &mut self.waited {
                        *since_last = None;
                    }
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Pending => {
                    let due = self.due();
                    std::task::ready!(self.timer.poll(cx, due));
                    let failure = Failure::new(Code::BodyTimeout, "the request's body came too slowly");
                    return Poll::Ready(Some(Err(failure)));
                }
            }
        }
    }

    /// [`Upload::poll`] as a future.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Whether nothing follows.
    pub(crate) fn is_ended(&self) -> bool {
        self.body.is_end_stream()
    }

    /// What is known of what follows.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn due(&mut self) -> Instant {
        let (begun, since_last) = self.waited.get_or_insert_with(|| (Instant::now(), None));
        let next = *since_last.get_or_insert_with(Instant::now) + self.patience;
        self.whole.map_or(next, |whole| next.min(*begun + whole))
    }
}
