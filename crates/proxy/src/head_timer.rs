//! hyper's timer for one client connection. It waits for the head of every request, and most come long before the time is
//! over: all of them share one registration with the runtime.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;
use refrain_core::DeadlineTimer;

/// The timer of a connection that waits for one thing at a time.
#[derive(Clone, Default)]
pub(crate) struct HeadTimer(Arc<Mutex<DeadlineTimer>>);

struct HeadSleep {
    timer: HeadTimer,
    deadline: Instant,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(HeadSleep { timer: self.clone(), deadline })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into()
    }
}

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.0.lock().poll(cx, self.deadline.into())
    }
}
