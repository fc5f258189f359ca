//! The waker of one connection: wakes whoever waits on it at the moment, and nobody while it rings by that one's own hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use parking_lot::Mutex;

/// Rung by the socket, by timers and by hyper's channels between a connection and the request on it.
///
/// One waker for the connection's whole life keeps the runtime from registering another for each request.
#[derive(Debug)]
pub(crate) struct Bell {
    ringer: Arc<Ringer>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Ringer {
    waiting: Mutex<Option<Waker>>,
    muted: AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> Self {
        let ringer = Arc::new(Ringer::default());
        Self { waker: ringer.clone().into(), ringer }
    }

    /// Rings for this task from now on.
    pub(crate) fn attach(&self, cx: &Context<'_>) {
        let mut waiting = self.ringer.waiting.lock();
        match &mut *waiting {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waiting = Some(cx.waker().clone()),
        }
    }

    /// Rings for nobody from now on.
    pub(crate) fn detach(&self) {
        let waiting = self.ringer.waiting.lock().take();
        drop(waiting);
    }

    /// What to poll with.
    pub(crate) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    /// Does what would ring the bell, for a caller that is about to poll the connection anyway.
    pub(crate) fn muted<T>(&self, does: impl FnOnce(&mut Context<'_>) -> T) -> T {
        self.ringer.muted.store(true, Ordering::Release);
        let done = does(&mut Context::from_waker(Waker::noop()));
        self.ringer.muted.store(false, Ordering::Release);
        done
    }
}

impl Wake for Ringer {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.muted.load(Ordering::Acquire) {
            return;
        }
        let waiting = self.waiting.lock().clone();
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}
