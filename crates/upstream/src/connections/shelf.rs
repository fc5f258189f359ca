//! The connections to one endpoint. Whatever changes here ends with [`Shelf::serve`], so that nobody waits while there is
//! something to have.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{CheckOut, Connections, Handover, Need, Permit, WAITERS_MAX, Waiting};
use crate::UpstreamError;
use crate::connection::Connection;
use crate::http1::Http1;
use crate::http2::{Http2, STREAMS_MAX, Stream};

/// Connections to one endpoint, and who waits for one.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// The longest idle first.
    idle: VecDeque<Idle>,
    shared: Vec<Shared>,
    /// The longest waiting first; some may have given up.
    waiters: VecDeque<oneshot::Sender<Handover>>,
    /// Permits that are out: connections being opened, and open.
    open: usize,
    /// Of them, those being opened of which more than one request will be served.
    opening_shared: usize,
    /// As a request last said.
    connections_max: usize,
    /// As a request last said, or a connection that was opened since.
    shares: bool,
}

#[derive(Debug)]
struct Idle {
    line: Box<Http1>,
    until: Instant,
}

#[derive(Debug)]
struct Shared {
    line: Arc<Http2>,
    streams: usize,
    /// Counts while it has no stream.
    until: Instant,
}

/// What is let go of under the lock, and dropped without.
#[derive(Default)]
pub(super) struct Dropped {
    own: Vec<Http1>,
    shared: Vec<Arc<Http2>>,
    undelivered: Option<Handover>,
}

impl Shelf {
    pub(super) fn check_out(
        &mut self,
        home: &Arc<Connections>,
        need: Need,
        dropped: &mut Dropped,
    ) -> CheckOut {
        (self.connections_max, self.shares) = (need.connections_max, need.shares);
        if need.trusts_idle
            && let Some(line) = self.take_idle(need.now, dropped)
        {
            return CheckOut::Ready(Connection::Own(line));
        }
        if let Some(stream) = self.stream(home, need.endpoint_key, dropped) {
            return CheckOut::Ready(Connection::Shared(stream));
        }
        if let Some(permit) = self.permit(home, need.endpoint_key) {
            return CheckOut::Open(permit);
        }
        // Only idle connections that are not trusted are in the way.
        if let Some(mut idle) = self.idle.pop_front() {
            let permit = idle.line.permit.take();
            dropped.own.push(*idle.line);
            if let Some(permit) = permit {
                return CheckOut::Open(permit);
            }
        }
        self.wait()
    }

    fn wait(&mut self) -> CheckOut {
        if self.waiters.len() >= WAITERS_MAX {
            self.waiters.retain(|waiter| !waiter.is_closed());
        }
        if self.waiters.len() >= WAITERS_MAX {
            return CheckOut::Full;
        }
        let (waiter, waiting) = oneshot::channel();
        self.waiters.push_back(waiter);
        CheckOut::Wait(Waiting(waiting))
    }

    /// Hands what there is to those who wait.
    pub(super) fn serve(&mut self, home: &Arc<Connections>, endpoint_key: u64, dropped: &mut Dropped) {
        let mut offer = None;
        while let Some(waiter) = self.waiters.pop_front() {
            if waiter.is_closed() {
                continue;
            }
            let Some(handover) = offer.take().or_else(|| self.available(home, endpoint_key, dropped)) else {
                self.waiters.push_front(waiter);
                break;
            };
            offer = waiter.send(handover).err();
        }
        // Nobody is left who wants it.
        dropped.undelivered = offer;
    }

    fn available(
        &mut self,
        home: &Arc<Connections>,
        endpoint_key: u64,
        dropped: &mut Dropped,
    ) -> Option<Handover> {
        if let Some(line) = self.take_idle(Instant::now(), dropped) {
            return Some(Handover::Ready(Connection::Own(line)));
        }
        if let Some(stream) = self.stream(home, endpoint_key, dropped) {
            return Some(Handover::Ready(Connection::Shared(stream)));
        }
        self.permit(home, endpoint_key).map(Handover::Open)
    }

    /// The connection that became idle last and can take a request, if any.
    fn take_idle(&mut self, now: Instant, dropped: &mut Dropped) -> Option<Box<Http1>> {
        while let Some(mut idle) = self.idle.pop_back() {
            if idle.is_usable(now) {
                return Some(idle.line);
            }
            dropped.own.push(*idle.line);
        }
        None
    }

    /// A stream of the first connection that has room: later ones can become idle.
    fn stream(
        &mut self,
        home: &Arc<Connections>,
        endpoint_key: u64,
        dropped: &mut Dropped,
    ) -> Option<Stream> {
        self.let_go_of_shared(dropped, |shared| shared.line.is_closed());
        let shared = self.shared.iter_mut().find(|shared| shared.streams < shared.line.streams_max())?;
        shared.streams += 1;
        Some(Stream::new(&shared.line, home, endpoint_key))
    }

    /// The right to open a connection. What is being opened and will be shared is waited for, up to its room.
    fn permit(&mut self, home: &Arc<Connections>, endpoint_key: u64) -> Option<Permit> {
        let is_awaited = self.shares && self.waiters.len() < self.opening_shared * STREAMS_MAX;
        if self.open >= self.connections_max || is_awaited {
            return None;
        }
        self.open += 1;
        self.opening_shared += usize::from(self.shares);
        Some(Permit { home: Arc::downgrade(home), endpoint_key, expected_to_share: self.shares })
    }

    pub(super) fn permit_ended(&mut self, expected_to_share: bool) {
        self.open -= 1;
        self.opening_shared -= usize::from(expected_to_share);
    }

    /// What was expected to be shared turned out not to be.
    pub(super) fn is_open_unshared(&mut self) {
        self.opening_shared -= 1;
        self.shares = false;
    }

    /// Takes a connection in whose first stream is its opener's.
    pub(super) fn share(&mut self, line: Arc<Http2>, was_expected: bool) {
        self.opening_shared -= usize::from(was_expected);
        self.shares = true;
        self.shared.push(Shared { line, streams: 1, until: Instant::now() });
    }

    /// The only connection there was to be could not be opened: those who wait need not try one after the other.
    pub(super) fn failed(&mut self, error: &UpstreamError, dropped: &mut Dropped) {
        if self.open > 1 {
            return;
        }
        for waiter in self.waiters.drain(..) {
            dropped.undelivered = waiter.send(Handover::Failed(error.clone())).err();
        }
    }

    pub(super) fn retire(&mut self, line: &Arc<Http2>, dropped: &mut Dropped) {
        self.let_go_of_shared(dropped, |shared| Arc::ptr_eq(&shared.line, line));
    }

    /// `until`: when the connection is closed if nobody takes another stream.
    pub(super) fn stream_ended(&mut self, line: &Arc<Http2>, until: Instant) {
        if let Some(shared) = self.shared.iter_mut().find(|shared| Arc::ptr_eq(&shared.line, line)) {
            shared.streams -= 1;
            shared.until = until;
        }
    }

    pub(super) fn put(&mut self, line: Box<Http1>, until: Instant, count_max: usize, dropped: &mut Dropped) {
        while self.idle.len() >= count_max {
            dropped.own.extend(self.idle.pop_front().map(|idle| *idle.line));
        }
        self.idle.push_back(Idle { line, until });
    }

    pub(super) fn sweep(&mut self, now: Instant, draining: bool, dropped: &mut Dropped) {
        let looked_at = std::mem::take(&mut self.idle);
        for mut idle in looked_at {
            if !draining && idle.is_usable(now) {
                self.idle.push_back(idle);
            } else {
                dropped.own.push(*idle.line);
            }
        }
        self.let_go_of_shared(dropped, |shared| {
            draining || shared.line.is_closed() || (shared.streams == 0 && shared.until <= now)
        });
    }

    fn let_go_of_shared(&mut self, dropped: &mut Dropped, which: impl Fn(&Shared) -> bool) {
        let gone = self.shared.extract_if(.., |shared| which(shared));
        dropped.shared.extend(gone.map(|shared| shared.line));
    }

    pub(super) fn needs_sweeping(&self) -> bool {
        !self.idle.is_empty() || !self.shared.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open == 0 && self.waiters.is_empty() && !self.needs_sweeping()
    }
}

impl Idle {
    fn is_usable(&mut self, now: Instant) -> bool {
        self.line.look();
        now < self.until && self.line.is_ready()
    }
}
