//! The one thread that compiles. Components are shared by their digest, compiled once, and kept while anybody uses them.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{debug, info};

use crate::component::{Loaded, Loader, Unfit};

/// Components that may wait to be compiled.
pub(crate) const WAITING_MAX: usize = 64;
/// How far the thread steps back behind those that answer requests: 5 is about a third of their weight.
const NICENESS: i32 = 5;
/// Components that are kept though nobody has taken them yet: whoever asked for them left.
const UNCLAIMED_MAX: usize = 4;

type Loading = Result<Arc<Loaded>, Unfit>;

/// Hands work to the thread, and finds what it made.
pub(crate) struct Compiler {
    known: Arc<Known>,
    jobs: SyncSender<Job>,
}

/// Why there is no component.
#[derive(Debug)]
pub(crate) enum NotLoaded {
    Unfit(Unfit),
    /// Too many wait.
    Busy,
    /// The thread is gone.
    Stopped,
}

struct Job {
    sha256: [u8; 32],
    bytes: Bytes,
    done: watch::Sender<Option<Loading>>,
}

#[derive(Default)]
struct Known {
    components: Mutex<Components>,
}

#[derive(Default)]
struct Components {
    by_sha256: HashMap<[u8; 32], Entry>,
    unclaimed: VecDeque<Arc<Loaded>>,
}

enum Entry {
    Loading(watch::Receiver<Option<Loading>>),
    Loaded(Weak<Loaded>),
}

/// Compiling is never urgent: where there are few cores, whoever answers requests goes first.
fn step_back() {
    // On Linux niceness is the thread's own; elsewhere it would be everybody's.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        debug!("policies are compiled at the priority of requests: {error}");
    }
}

impl Compiler {
    /// Starts the thread; it ends when the compiler is dropped.
    pub(crate) fn start(loader: Loader) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(WAITING_MAX);
        let known = Arc::new(Known::default());
        let shared = known.clone();
        std::thread::Builder::new().name("policy-compiler".into()).stack_size(8 * 1024 * 1024).spawn(
            move || {
                step_back();
                shared.run(&loader, &queue);
            },
        )?;
        Ok(Self { known, jobs })
    }

    /// The component with this digest, compiled now unless somebody has it already.
    ///
    /// # Cancel safety
    /// Safe: a compilation begun goes on, and its result waits for the next ask.
    pub(crate) async fn load(&self, sha256: [u8; 32], bytes: Bytes) -> Result<Arc<Loaded>, NotLoaded> {
        let mut loading = match self.begin(sha256, bytes)? {
            Begun::Loaded(loaded) => return Ok(loaded),
            Begun::Loading(loading) => loading,
        };
        let done = loading.wait_for(Option::is_some).await.map_err(|_| NotLoaded::Stopped)?;
        let loaded = done.clone().ok_or(NotLoaded::Stopped)?;
        self.known.components.lock().claim(&sha256);
        loaded.map_err(NotLoaded::Unfit)
    }

    /// Components that are in use.
    pub(crate) fn in_use(&self) -> usize {
        let is_used = |entry: &&Entry| matches!(entry, Entry::Loaded(loaded) if loaded.strong_count() > 0);
        self.known.components.lock().by_sha256.values().filter(is_used).count()
    }

    fn begin(&self, sha256: [u8; 32], bytes: Bytes) -> Result<Begun, NotLoaded> {
        let mut components = self.known.components.lock();
        let found = match components.by_sha256.get(&sha256) {
            Some(Entry::Loading(loading)) => return Ok(Begun::Loading(loading.clone())),
            Some(Entry::Loaded(loaded)) => loaded.upgrade(),
            None => None,
        };
        if let Some(loaded) = found {
            components.claim(&sha256);
            return Ok(Begun::Loaded(loaded));
        }
        let (done, loading) = watch::channel(None);
        self.jobs.try_send(Job { sha256, bytes, done }).map_err(|error| match error {
            TrySendError::Full(_) => NotLoaded::Busy,
            TrySendError::Disconnected(_) => NotLoaded::Stopped,
        })?;
        components.drop_unused();
        components.by_sha256.insert(sha256, Entry::Loading(loading.clone()));
        Ok(Begun::Loading(loading))
    }
}

enum Begun {
    Loaded(Arc<Loaded>),
    Loading(watch::Receiver<Option<Loading>>),
}

impl Known {
    fn run(&self, loader: &Loader, queue: &Receiver<Job>) {
        while let Ok(Job { sha256, bytes, done }) = queue.recv() {
            let load = AssertUnwindSafe(|| loader.load(sha256, &bytes));
            let loaded = std::panic::catch_unwind(load)
                .unwrap_or_else(|_| Err(Unfit::Component("the compiler panicked on it".into())))
                .map(Arc::new);
            self.components.lock().put(sha256, &loaded);
            if let Ok(loaded) = &loaded {
                info!(
                    sha256 = refrain_core::hex(&sha256),
                    seconds = loaded.compile_time.as_secs_f64(),
                    "policy compiled"
                );
            }
            done.send_replace(Some(loaded));
        }
    }
}

impl Components {
    fn put(&mut self, sha256: [u8; 32], loaded: &Loading) {
        let Ok(loaded) = loaded else {
            self.by_sha256.remove(&sha256);
            return;
        };
        self.by_sha256.insert(sha256, Entry::Loaded(Arc::downgrade(loaded)));
        self.unclaimed.push_back(loaded.clone());
        if self.unclaimed.len() > UNCLAIMED_MAX {
            self.unclaimed.pop_front();
        }
    }

    /// Somebody has it now, so it need not be kept here.
    fn claim(&mut self, sha256: &[u8; 32]) {
        self.unclaimed.retain(|loaded| loaded.sha256 != *sha256);
    }

    fn drop_unused(&mut self) {
        self.by_sha256.retain(|_, entry| match entry {
            Entry::Loading(_) => true,
            Entry::Loaded(loaded) => loaded.strong_count() > 0,
        });
    }
}
