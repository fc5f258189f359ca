//! The connections of one worker: which of them takes the next request, how many may be open, and who waits for one.
//!
//! Idle HTTP/1.1 connections are taken last in, first out, and closed when idle for long; HTTP/2 connections are shared as
//! long as they have room. Who finds neither opens another, or waits: first come, first served.

mod shelf;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use refrain_core::{Drain, Tasks};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use crate::UpstreamError;
use crate::connection::Connection;
use crate::http1::Http1;
use crate::http2::{Http2, Stream};
use shelf::{Dropped, Shelf};

/// How long a connection waits if the upstream says nothing. A server that closes earlier is noticed when the connection
/// is looked at: before its next request, and at each sweep.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Taken off an announced time-out, so that a request does not cross the server's close on the way.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(1);

/// How often idle connections are looked over.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Most requests that wait for a connection to one endpoint.
const WAITERS_MAX: usize = 4096;

/// Connections of one worker.
#[derive(Debug)]
pub(crate) struct Connections {
    shelves: Mutex<Shelves>,
    pub(crate) tasks: Tasks,
}

#[derive(Debug, Default)]
struct Shelves {
    /// By endpoint key.
    by_endpoint: HashMap<u64, Shelf>,
    /// A task sweeps as long as any connection is idle or shared.
    swept: bool,
}

/// Whether a task sweeps the shelves.
#[derive(Clone, Copy, Debug)]
enum Swept {
    Yes,
    No,
}

/// What a request wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    /// Since when.
    pub(crate) now: Instant,
    /// Whose connections.
    pub(crate) endpoint_key: u64,
    /// How many may be open at once.
    pub(crate) connections_max: usize,
    /// Whether what is opened next is likely to be shared.
    pub(crate) shares: bool,
    /// Whether an idle connection will do.
    pub(crate) trusts_idle: bool,
}

/// How a request comes to a connection.
pub(crate) enum CheckOut {
    /// By one that is open.
    Ready(Connection),
    /// By opening one.
    Open(Permit),
    /// By waiting.
    Wait(Waiting),
    /// Not at all: too many wait.
    Full,
}

/// What a waiter gets.
#[derive(Debug)]
pub(crate) enum Handover {
    /// A connection.
    Ready(Connection),
    /// The right to open one.
    Open(Permit),
    /// The connection that it waited for could not be opened.
    Failed(UpstreamError),
}

/// A place in the queue. Dropping it gives the place up; what was handed over by then goes to the next.
pub(crate) struct Waiting(oneshot::Receiver<Handover>);

impl Waiting {
    /// Waits for its turn; none if `deadline` came first.
    pub(crate) async fn turn(self, deadline: Instant) -> Option<Handover> {
        timeout_at(deadline, self.0).await.ok()?.ok()
    }
}

impl Connections {
    pub(crate) fn new(tasks: Tasks) -> Arc<Self> {
        Arc::new(Self { shelves: Mutex::default(), tasks })
    }

    /// A connection for a request, or what to do for one. Closed ones are dropped on the way.
    pub(crate) fn check_out(self: &Arc<Self>, need: Need) -> CheckOut {
        let mut dropped = Dropped::default();
        let mut shelves = self.shelves.lock();
        let shelf = shelves.by_endpoint.entry(need.endpoint_key).or_default();
        shelf.check_out(self, need, &mut dropped)
    }

    /// Keeps a connection for the next request; if `count_max` wait already, the longest idle one is closed. One that
    /// still sends the request of an early answer is closed too.
    pub(crate) fn put(
        self: &Arc<Self>,
        endpoint_key: u64,
        mut line: Box<Http1>,
        announced: Option<Duration>,
        count_max: usize,
    ) {
        let wait = announced.map_or(IDLE_MAX, |timeout| timeout.saturating_sub(TIMEOUT_MARGIN).min(IDLE_MAX));
        if wait.is_zero() || count_max == 0 {
            return;
        }
        line.look();
        if !line.is_ready() {
            return;
        }
        let swept = self.with_shelf(endpoint_key, |shelf, dropped| {
            shelf.put(line, Instant::now() + wait, count_max, dropped);
            shelf.serve(self, endpoint_key, dropped);
        });
        self.keep(swept);
    }

    /// Counts an opened HTTP/1.1 connection, which is the opener's.
    pub(crate) fn own(self: &Arc<Self>, mut permit: Permit, mut line: Box<Http1>) -> Connection {
        if permit.expected_to_share {
            permit.expected_to_share = false;
            self.with_shelf(permit.endpoint_key, |shelf, dropped| {
                shelf.is_open_unshared();
                shelf.serve(self, permit.endpoint_key, dropped);
            });
        }
        line.permit = Some(permit);
        Connection::Own(line)
    }

    /// Counts an opened HTTP/2 connection, and shares it; the first stream is the opener's.
    pub(crate) fn share(self: &Arc<Self>, mut permit: Permit, mut line: Http2) -> Connection {
        let endpoint_key = permit.endpoint_key;
        let was_expected = std::mem::take(&mut permit.expected_to_share);
        line.permit = Some(permit);
        let line = Arc::new(line);
        let stream = Stream::new(&line, self, endpoint_key);
        let swept = self.with_shelf(endpoint_key, |shelf, dropped| {
            shelf.share(line, was_expected);
            shelf.serve(self, endpoint_key, dropped);
        });
        self.keep(swept);
        Connection::Shared(stream)
    }

    /// A connection could not be opened. If there is no other, whoever waits for one is told the same.
    pub(crate) fn failed(self: &Arc<Self>, permit: Permit, error: &UpstreamError) {
        self.with_shelf(permit.endpoint_key, |shelf, dropped| shelf.failed(error, dropped));
        drop(permit);
    }

    /// Takes a connection away from those who look for a stream. Streams that are open go on.
    pub(crate) fn retire(&self, endpoint_key: u64, line: &Arc<Http2>) {
        self.with_shelf(endpoint_key, |shelf, dropped| shelf.retire(line, dropped));
    }

    /// A stream of a connection ended.
    pub(crate) fn stream_ended(self: &Arc<Self>, endpoint_key: u64, line: &Arc<Http2>) {
        self.with_shelf(endpoint_key, |shelf, dropped| {
            shelf.stream_ended(line, Instant::now() + IDLE_MAX);
            shelf.serve(self, endpoint_key, dropped);
        });
    }

    fn permit_ended(self: &Arc<Self>, permit: &Permit) {
        self.with_shelf(permit.endpoint_key, |shelf, dropped| {
            shelf.permit_ended(permit.expected_to_share);
            shelf.serve(self, permit.endpoint_key, dropped);
        });
    }

    /// Does something to a shelf; what it lets go of is dropped when the lock is free again, since that takes it anew.
    fn with_shelf(&self, endpoint_key: u64, does: impl FnOnce(&mut Shelf, &mut Dropped)) -> Swept {
        let mut dropped = Dropped::default();
        let mut shelves = self.shelves.lock();
        let shelf = shelves.by_endpoint.entry(endpoint_key).or_default();
        does(shelf, &mut dropped);
        if shelf.is_empty() {
            shelves.by_endpoint.remove(&endpoint_key);
        }
        if shelves.swept { Swept::Yes } else { Swept::No }
    }

    /// Sees to it that a task sweeps. Only where something was put: those who drop may be on no runtime.
    fn keep(self: &Arc<Self>, swept: Swept) {
        if matches!(swept, Swept::No) && !std::mem::replace(&mut self.shelves.lock().swept, true) {
            self.tasks.spawn(sweep(Arc::downgrade(self), self.tasks.draining()));
        }
    }

    /// Returns whether nothing is left; the sweeper then ends and the next connection to look after starts another.
    fn sweep(&self, draining: bool) -> bool {
        let now = Instant::now();
        let mut dropped = Dropped::default();
        let mut shelves = self.shelves.lock();
        shelves.by_endpoint.retain(|_, shelf| {
            shelf.sweep(now, draining, &mut dropped);
            !shelf.is_empty()
        });
        shelves.swept = shelves.by_endpoint.values().any(Shelf::needs_sweeping);
        !shelves.swept
    }
}

/// Closes what has been idle too long, and everything when the process drains. Ends when nothing is idle or shared.
async fn sweep(connections: Weak<Connections>, drain: Drain) {
    loop {
        let draining = tokio::select! {
            () = drain.begun() => true,
            () = sleep(SWEEP_INTERVAL) => false,
        };
        let Some(connections) = connections.upgrade() else { return };
        if connections.sweep(draining) {
            return;
        }
    }
}

/// One of the connections that an endpoint may have: being opened, or open. Given back when dropped.
pub(crate) struct Permit {
    home: Weak<Connections>,
    endpoint_key: u64,
    /// Others wait for what it becomes, rather than to open more.
    expected_to_share: bool,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.permit_ended(self);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("endpoint_key", &self.endpoint_key).finish_non_exhaustive()
    }
}
