//! A timer whose deadline moves with every chunk without touching the runtime's timer wheel each time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// One registration that is renewed only when it fires or when the deadline moves before it.
#[derive(Debug, Default)]
pub struct DeadlineTimer(Option<Pin<Box<Sleep>>>);

impl DeadlineTimer {
    /// Ready once `deadline` has passed. Registered at the first call.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        ready!(sleep.as_mut().poll(cx));
        while sleep.deadline() < deadline {
            sleep.as_mut().reset(deadline);
            ready!(sleep.as_mut().poll(cx));
        }
        Poll::Ready(())
    }

    /// Wakes nobody from now on, until it is polled again.
    pub fn detach(&mut self) {
        if let Some(sleep) = &mut self.0 {
            let _ = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;
    use std::time::Duration;

    use super::*;

    async fn fires_after(timer: &mut DeadlineTimer, wait: Duration) -> Duration {
        let start = Instant::now();
        poll_fn(|cx| timer.poll(cx, start + wait)).await;
        start.elapsed()
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn once_detached_it_wakes_nobody() {
        let second = Duration::from_secs(1);
        for (detached, wakes) in [(false, 1), (true, 0)] {
            let (mut timer, woken) = (DeadlineTimer::default(), Arc::<Woken>::default());
            let waker = woken.clone().into();
            assert!(timer.poll(&mut Context::from_waker(&waker), Instant::now() + second).is_pending());
            if detached {
                timer.detach();
            }
            tokio::time::sleep(2 * second).await;
            assert_eq!(woken.0.load(Relaxed), wakes);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn fires_at_a_deadline_after_before_and_at_the_one_it_was_registered_with() {
        for registered in [5, 10, 50] {
            let mut timer = DeadlineTimer::default();
            let registered = Instant::now() + Duration::from_secs(registered);
            assert!(poll_fn(|cx| Poll::Ready(timer.poll(cx, registered))).await.is_pending());
            let wait = Duration::from_secs(10);
            assert_eq!(fires_after(&mut timer, wait).await, wait);
            assert_eq!(fires_after(&mut timer, wait).await, wait, "reused");
        }
    }
}
