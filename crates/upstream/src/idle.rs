//! Connections that wait for their next request: last in, first out, bounded per endpoint, closed when idle for long.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use parking_lot::Mutex;
use refrain_core::{Drain, Tasks};
use tokio::time::{Instant, sleep};

use crate::connect::Connection;

/// How long a connection waits if the upstream says nothing. A server that closes earlier is noticed when the connection
/// is looked at: before its next request, and at each sweep.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Taken off an announced time-out, so that a request does not cross the server's close on the way.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(1);

/// How often idle connections are looked over.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Idle connections of one worker.
#[derive(Debug)]
pub(crate) struct IdleConnections {
    shelves: Mutex<Shelves>,
    tasks: Tasks,
}

#[derive(Debug, Default)]
struct Shelves {
    /// By endpoint key; the longest idle first.
    by_endpoint: HashMap<u64, VecDeque<Idle>>,
    /// A task sweeps as long as anything is idle.
    swept: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    until: Instant,
}

impl IdleConnections {
    pub(crate) fn new(tasks: Tasks) -> Arc<Self> {
        Arc::new(Self { shelves: Mutex::default(), tasks })
    }

    /// The connection that became idle last and can take a request, if any. Closed ones are dropped on the way.
    pub(crate) fn take(&self, endpoint_key: u64, now: Instant) -> Option<Connection> {
        let mut shelves = self.shelves.lock();
        let shelf = shelves.by_endpoint.get_mut(&endpoint_key)?;
        while let Some(mut idle) = shelf.pop_back() {
            if idle.is_usable(now) {
                return Some(idle.connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request; if `count_max` wait already, the longest idle one is closed. One that
    /// still sends the request of an early answer is closed too.
    pub(crate) fn put(
        self: &Arc<Self>,
        endpoint_key: u64,
        connection: Connection,
        announced: Option<Duration>,
        count_max: usize,
    ) {
        let wait = announced.map_or(IDLE_MAX, |timeout| timeout.saturating_sub(TIMEOUT_MARGIN).min(IDLE_MAX));
        if wait.is_zero() || count_max == 0 || !connection.is_ready() {
            return;
        }
        connection.bell.detach();
        let mut shelves = self.shelves.lock();
        let shelf = shelves.by_endpoint.entry(endpoint_key).or_default();
        while shelf.len() >= count_max {
            shelf.pop_front();
        }
        shelf.push_back(Idle { connection, until: Instant::now() + wait });
        if !shelves.swept {
            shelves.swept = true;
            self.tasks.spawn(sweep(Arc::downgrade(self), self.tasks.draining()));
        }
    }
}

impl Idle {
    fn is_usable(&mut self, now: Instant) -> bool {
        self.connection.look();
        now < self.until && self.connection.is_ready()
    }
}

/// Closes what has been idle too long, and everything when the process drains. Ends when nothing is idle.
async fn sweep(idle: Weak<IdleConnections>, drain: Drain) {
    loop {
        let draining = tokio::select! {
            () = drain.begun() => true,
            () = sleep(SWEEP_INTERVAL) => false,
        };
        let Some(idle) = idle.upgrade() else { return };
        if idle.shelves.lock().sweep(draining) {
            return;
        }
    }
}

impl Shelves {
    /// Returns whether nothing is left; the sweeper then ends and the next idle connection starts another.
    fn sweep(&mut self, draining: bool) -> bool {
        let now = Instant::now();
        self.by_endpoint.retain(|_, shelf| {
            shelf.retain_mut(|idle| !draining && idle.is_usable(now));
            !shelf.is_empty()
        });
        self.swept = !self.by_endpoint.is_empty();
        !self.swept
    }
}
