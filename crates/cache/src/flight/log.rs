//! The state of one flight: what has come, who reads it, and how far each has got. Plain data behind the flight's lock.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::{ChunkPoll, FlightEnd, FlightLimits};

/// What a kept chunk costs beside its bytes, so that a million empty deltas count too.
const CHUNK_OVERHEAD: usize = 64;

/// Why a reader can't join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// It runs, but its start is gone or it has as many readers as it may, or it failed.
    ToNewReaders,
    /// All its readers left, and its pump has been told.
    Abandoned,
}

pub(super) struct Log<H> {
    limits: FlightLimits,
    head: Option<H>,
    /// Chunks that somebody may still read; the first has the number `first`.
    chunks: VecDeque<Bytes>,
    first: u64,
    /// Cost of `chunks`.
    kept: usize,
    /// Cost of all chunks there ever were.
    pushed: u64,
    end: Option<FlightEnd>,
    readers: Vec<Option<Place>>,
    /// Whether the start of the log is still there.
    whole: bool,
    abandoned: bool,
    pump: PumpWakers,
    /// Called when somebody else than the leader's own client comes to read.
    shared: Option<Hook>,
}

/// What a flight calls once.
pub(super) type Hook = Box<dyn FnOnce() + Send>;

/// How far one reader has got.
struct Place {
    /// Number of the next chunk.
    next: u64,
    /// Cost of the chunks read.
    read: u64,
    lagged: bool,
    waker: Option<Waker>,
}

#[derive(Default)]
struct PumpWakers {
    abandoned: Option<Waker>,
    room: Option<Waker>,
}

/// Wakers to call once the lock is released.
#[derive(Default)]
#[must_use]
pub(super) struct Woken(Vec<Waker>);

impl Woken {
    pub(super) fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

impl<H> Log<H> {
    /// An empty log with its leader's reader.
    pub(super) fn with_reader(limits: FlightLimits) -> (Self, usize) {
        let log = Self {
            limits,
            head: None,
            chunks: VecDeque::new(),
            first: 0,
            kept: 0,
            pushed: 0,
            end: None,
            readers: vec![Some(Place::start())],
            whole: true,
            abandoned: false,
            pump: PumpWakers::default(),
            shared: None,
        };
        (log, 0)
    }

    /// Whether one more may read it, from its start.
    pub(super) fn room(&self) -> Result<(), Closed> {
        if self.abandoned {
            return Err(Closed::Abandoned);
        }
        let failed = self.end.is_some_and(|end| end != FlightEnd::Complete);
        if !self.whole || failed || self.readers() >= self.limits.waiters_max {
            return Err(Closed::ToNewReaders);
        }
        Ok(())
    }

    pub(super) fn add_reader(&mut self) -> Result<usize, Closed> {
        self.room()?;
        let slot = self.readers.iter().position(Option::is_none).unwrap_or_else(|| {
            self.readers.push(None);
            self.readers.len() - 1
        });
        self.readers[slot] = Some(Place::start());
        Ok(slot)
    }

    /// Whom to tell that there are several readers now; for the caller to call without a lock.
    pub(super) fn take_hook(&mut self) -> Option<Hook> {
        self.shared.take()
    }

    /// Keeps the hook for the next reader to come; gives it back if one has come already.
    pub(super) fn when_shared(&mut self, hook: Hook) -> Option<Hook> {
        if self.readers() > 1 {
            return Some(hook);
        }
        self.shared = Some(hook);
        None
    }

    pub(super) fn remove_reader(&mut self, slot: usize) -> Woken {
        self.readers[slot] = None;
        self.trim();
        let mut woken = self.pump_if_room();
        if self.readers() == 0 {
            woken.0.extend(self.pump.abandoned.take());
        }
        woken
    }

    pub(super) fn readers(&self) -> usize {
        self.readers.iter().flatten().count()
    }

    /// Cost of what is kept.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept
    }

    pub(super) fn set_head(&mut self, head: H) -> Woken {
        self.head.get_or_insert(head);
        self.wake_readers()
    }

    pub(super) fn push(&mut self, chunk: Bytes) -> Woken {
        if self.end.is_some() {
            return Woken::default();
        }
        let cost = cost(&chunk);
        self.kept += cost;
        self.pushed += cost as u64;
        self.chunks.push_back(chunk);
        if self.kept > self.limits.buffer_bytes_max {
            self.whole = false;
            self.cut_laggards();
        }
        self.trim();
        self.wake_readers()
    }

    /// The first end counts.
    pub(super) fn end(&mut self, end: FlightEnd) -> Woken {
        self.end.get_or_insert(end);
        self.wake_readers()
    }

    pub(super) fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.readers() == 0 {
            self.abandoned = true;
            return Poll::Ready(());
        }
        keep(&mut self.pump.abandoned, cx);
        Poll::Pending
    }

    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        keep(&mut self.pump.room, cx);
        Poll::Pending
    }

    /// The next chunk of a reader, and whom its progress wakes.
    pub(super) fn poll_chunk(&mut self, slot: usize, cx: &mut Context<'_>) -> (ChunkPoll, Woken) {
        if let Some(chunk) = self.next_chunk(slot) {
            self.trim();
            return (Poll::Ready(Some(Ok(chunk))), self.pump_if_room());
        }
        (self.poll_end(slot, cx), Woken::default())
    }

    fn next_chunk(&mut self, slot: usize) -> Option<Bytes> {
        let place = self.readers[slot].as_mut().filter(|place| !place.lagged)?;
        let index = usize::try_from(place.next - self.first).ok()?;
        let chunk = self.chunks.get(index)?.clone();
        place.next += 1;
        place.read += cost(&chunk) as u64;
        Some(chunk)
    }

    fn poll_end(&mut self, slot: usize, cx: &mut Context<'_>) -> ChunkPoll {
        let Some(place) = self.readers[slot].as_mut() else { return Poll::Ready(None) };
        match self.end {
            _ if place.lagged => Poll::Ready(Some(Err(FlightEnd::Lagged))),
            Some(FlightEnd::Complete) => Poll::Ready(None),
            Some(end) => Poll::Ready(Some(Err(end))),
            None => {
                keep(&mut place.waker, cx);
                Poll::Pending
            }
        }
    }

    fn has_room(&self) -> bool {
        let fastest = self.places().map(|place| place.read).max();
        self.end.is_some()
            || fastest.is_none_or(|read| self.pushed - read < self.limits.window_bytes.max(1) as u64)
    }

    /// Marks every reader that is further behind than the buffer is long, but never the fastest: it sets the pace.
    fn cut_laggards(&mut self) {
        let fastest = self.places().map(|place| place.read).max().unwrap_or(0);
        let lag_max = self.limits.buffer_bytes_max as u64;
        for place in self.readers.iter_mut().flatten() {
            place.lagged |= place.read < fastest && self.pushed - place.read > lag_max;
        }
    }

    /// Drops chunks that nobody will read. While the log is whole, late comers will.
    fn trim(&mut self) {
        if self.whole {
            return;
        }
        let end = self.first + self.chunks.len() as u64;
        let needed = self.places().map(|place| place.next).min().unwrap_or(end);
        while self.first < needed {
            let Some(chunk) = self.chunks.pop_front() else { break };
            self.kept -= cost(&chunk);
            self.first += 1;
        }
    }

    /// Readers that still get chunks.
    fn places(&self) -> impl Iterator<Item = &Place> {
        self.readers.iter().flatten().filter(|place| !place.lagged)
    }

    fn wake_readers(&mut self) -> Woken {
        Woken(self.readers.iter_mut().flatten().filter_map(|place| place.waker.take()).collect())
    }

    fn pump_if_room(&mut self) -> Woken {
        if self.pump.room.is_none() || !self.has_room() {
            return Woken::default();
        }
        Woken(self.pump.room.take().into_iter().collect())
    }
}

impl<H: Clone> Log<H> {
    pub(super) fn poll_head(&mut self, slot: usize, cx: &mut Context<'_>) -> Poll<Result<H, FlightEnd>> {
        if let Some(head) = &self.head {
            return Poll::Ready(Ok(head.clone()));
        }
        match (self.end, self.readers[slot].as_mut()) {
            (Some(FlightEnd::Complete), _) | (None, None) => Poll::Ready(Err(FlightEnd::LeaderGone)),
            (Some(end), _) => Poll::Ready(Err(end)),
            (None, Some(place)) => {
                keep(&mut place.waker, cx);
                Poll::Pending
            }
        }
    }
}

impl Place {
    fn start() -> Self {
        Self { next: 0, read: 0, lagged: false, waker: None }
    }
}

fn cost(chunk: &Bytes) -> usize {
    chunk.len() + CHUNK_OVERHEAD
}

fn keep(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}
