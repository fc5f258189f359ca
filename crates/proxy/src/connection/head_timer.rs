//! hyper's timer for one client connection. It waits for the head of every request, and most come long before the time is
//! over: all of them share one registration with the runtime.
//!
//! hyper knows one time-out, from the end of an answer to the next whole head. Here it has two parts: a connection may be
//! idle for one time, and once a head has begun it must be whole within another.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;
use refrain_core::DeadlineTimer;

use super::linger::Unread;

/// Whether bytes have come in since it was last asked. Told by the connection's stream.
#[derive(Clone, Default)]
pub(super) struct Arrivals(Arc<AtomicBool>);

impl Arrivals {
    /// Bytes have come.
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// The timer of a connection that waits for one thing at a time.
#[derive(Clone)]
pub(super) struct HeadTimer {
    timer: Arc<Mutex<DeadlineTimer>>,
    arrivals: Arrivals,
    unread: Unread,
    /// From the first byte of a head to its end.
    head_timeout: Duration,
}

impl HeadTimer {
    /// For a stream that notes its arrivals here.
    pub(super) fn new(arrivals: Arrivals, unread: Unread, head_timeout: Duration) -> Self {
        Self { timer: Arc::default(), arrivals, unread, head_timeout }
    }
}

struct HeadSleep {
    timer: HeadTimer,
    deadline: Instant,
    has_begun: bool,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    /// Until the end of idleness; once bytes have come, until the end of the head's own time.
    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        // What came before belongs to the request before, and that was read whole.
        self.arrivals.take();
        self.unread.set(false);
        Box::pin(HeadSleep { timer: self.clone(), deadline, has_begun: false })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into()
    }
}

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_begun && self.timer.arrivals.take() {
            self.has_begun = true;
            self.deadline = self.timer.now() + self.timer.head_timeout;
        }
        self.timer.timer.lock().poll(cx, self.deadline.into())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_head_that_has_begun_has_its_own_time_however_long_the_silence_before() {
        let arrivals = Arrivals::default();
        let timer = HeadTimer::new(arrivals.clone(), Unread::default(), 10 * SECOND);
        arrivals.note();
        let begun = timer.now();
        let mut idle = timer.sleep(75 * SECOND);
        assert!(poll_fn(|cx| Poll::Ready(idle.as_mut().poll(cx))).await.is_pending());
        tokio::time::advance(70 * SECOND).await;
        arrivals.note();
        for _ in 0..3 {
            // Neither more bytes nor more looks lengthen it.
            assert!(poll_fn(|cx| Poll::Ready(idle.as_mut().poll(cx))).await.is_pending());
            tokio::time::advance(SECOND).await;
            arrivals.note();
        }
        idle.await;
        assert_eq!(timer.now() - begun, 80 * SECOND);
    }

    #[test]
    fn who_is_waited_for_to_ask_again_has_sent_all_of_the_request_before() {
        let unread = Unread::default();
        unread.set(true);
        drop(HeadTimer::new(Arrivals::default(), unread.clone(), SECOND).sleep(SECOND));
        assert!(!unread.is_set());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_let_go_after_its_time() {
        let timer = HeadTimer::new(Arrivals::default(), Unread::default(), 10 * SECOND);
        let begun = timer.now();
        timer.sleep(75 * SECOND).await;
        assert_eq!(timer.now() - begun, 75 * SECOND);
    }
}
