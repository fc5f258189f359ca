//! The one clock of guests: a thread that begins a new epoch each millisecond while any of them computes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use wasmtime::Engine;

/// An epoch.
pub(crate) const EPOCH: Duration = Duration::from_millis(1);
/// Epochs without any call after which the thread sleeps.
const QUIET_EPOCHS: u32 = 100;

/// Begins epochs until it is dropped.
#[derive(Debug)]
pub(crate) struct Ticker {
    beat: Arc<Beat>,
    thread: Thread,
    handle: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Beat {
    entered: AtomicU64,
    left: AtomicU64,
    asleep: AtomicBool,
    stop: AtomicBool,
}

/// A call that computes; epochs pass while it lives.
#[derive(Debug)]
pub(crate) struct Computing<'a>(&'a Beat);

impl Ticker {
    pub(crate) fn start(engine: Engine) -> std::io::Result<Self> {
        let beat = Arc::new(Beat::default());
        let shared = beat.clone();
        let handle =
            std::thread::Builder::new().name("policy-epochs".into()).spawn(move || shared.run(&engine))?;
        Ok(Self { beat, thread: handle.thread().clone(), handle: Some(handle) })
    }

    /// Announces a call. Wakes the thread if it sleeps: a system call, but only after a tenth of a second of quiet.
    pub(crate) fn enter(&self) -> Computing<'_> {
        self.beat.entered.fetch_add(1, Ordering::SeqCst);
        if self.beat.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Computing(&self.beat)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.beat.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
        if let Some(Err(_)) = self.handle.take().map(JoinHandle::join) {
            tracing::error!("the epoch thread panicked");
        }
    }
}

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        self.0.left.fetch_add(1, Ordering::SeqCst);
    }
}

impl Beat {
    fn run(&self, engine: &Engine) {
        let (mut quiet, mut seen) = (0, 0);
        while !self.stop.load(Ordering::SeqCst) {
            std::thread::park_timeout(EPOCH);
            engine.increment_epoch();
            let entered = self.entered.load(Ordering::SeqCst);
            quiet = if entered == seen && self.is_idle() { quiet + 1 } else { 0 };
            seen = entered;
            if quiet >= QUIET_EPOCHS {
                self.sleep();
                quiet = 0;
            }
        }
    }

    /// Sleeps until a call enters. A call that enters while this looks either is seen here, or sees `asleep`.
    fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        while self.is_idle() && !self.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }

    fn is_idle(&self) -> bool {
        self.left.load(Ordering::SeqCst) == self.entered.load(Ordering::SeqCst)
    }
}
