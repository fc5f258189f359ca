//! A timer whose deadline moves with every chunk without touching the runtime's timer wheel each time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// One registration that is renewed only when it fires or when the deadline moves before it.
#[derive(Debug)]
pub(crate) struct Timer {
    /// When to look first: a bet on the earliest deadline to come.
    look_at: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// A timer that is registered at the first [`Timer::poll`].
    pub(crate) fn new(look_at: Instant) -> Self {
        Self { look_at, sleep: None }
    }

    /// Ready once `deadline` has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let look_at = self.look_at.min(deadline);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(look_at)));
        loop {
            if sleep.deadline() > deadline {
                sleep.as_mut().reset(deadline);
            }
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    async fn fires_after(timer: &mut Timer, wait: Duration) -> Duration {
        let start = Instant::now();
        poll_fn(|cx| timer.poll(cx, start + wait)).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn fires_at_a_deadline_after_before_and_at_the_first_look() {
        for look in [5, 10, 50] {
            let mut timer = Timer::new(Instant::now() + Duration::from_secs(look));
            let wait = Duration::from_secs(10);
            assert_eq!(fires_after(&mut timer, wait).await, wait);
            assert_eq!(fires_after(&mut timer, wait).await, wait, "reused");
        }
    }
}
