//! Single-flight for generations: identical questions in flight share one upstream answer, chunk by chunk.
//!
//! The first to [`Flights::join`] leads: its pump feeds the answer through [`Lead`]. Every client, the leader's own
//! too, reads by a [`Reader`], so that nobody's leaving ends the answer for others; the pump hears of it when all have left.
//! Whoever drives the pump within its own client's task learns by [`Lead::when_shared`] that others depend on it.
//! Works across threads and runtimes; no lock is held over an await.
//!
//! Order at the end, so that a late comer finds either the flight or the entry: insert into the store, and only then drop
//! the [`Lead`], which removes the flight. [`Lead::finish`] may come before or after the insertion.

mod log;
mod reader;

use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use parking_lot::Mutex;
use refrain_core::Code;
use tokio::time::Instant;

use crate::memory::KeyHasher;
use log::Log;
pub use reader::Reader;

/// Shards of the map: joins of different keys rarely meet.
const SHARDS: usize = 16;
/// Keys a shard remembers as uncacheable.
const UNCACHEABLE_MAX: usize = 512;

/// Bounds of every flight.
#[derive(Clone, Copy, Debug)]
pub struct FlightLimits {
    /// Bytes kept for readers that come late or lag. Past it nobody may join and laggards are cut.
    pub buffer_bytes_max: usize,
    /// How far, in bytes, the pump may run ahead of the fastest reader; at most half the buffer is used.
    pub window_bytes: usize,
    /// Readers of one flight, the leader's included.
    pub waiters_max: usize,
}

impl Default for FlightLimits {
    fn default() -> Self {
        Self { buffer_bytes_max: 8 << 20, window_bytes: 256 << 10, waiters_max: 256 }
    }
}

/// How a flight ended, for a reader that did not get it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlightEnd {
    /// The whole answer went by.
    Complete,
    /// The upstream failed: before the head it is an error response, after it the stream ends without a terminator.
    Failed(Code),
    /// The leader's task ended without a word.
    LeaderGone,
    /// This reader fell further behind than the buffer is long.
    Lagged,
}

/// All flights of the process. `H` is what stands for a response head: plain data, cloned to each reader.
pub struct Flights<H> {
    shards: Box<[Mutex<Shard<H>>]>,
    limits: FlightLimits,
}

struct Shard<H> {
    flights: HashMap<[u8; 32], Arc<Flight<H>>, BuildHasherDefault<KeyHasher>>,
    uncacheable: HashMap<[u8; 32], Instant, BuildHasherDefault<KeyHasher>>,
}

type Flight<H> = Mutex<Log<H>>;

/// What [`Flights::join`] would do, as [`Flights::look`] sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnderWay {
    /// Nobody asks this yet.
    Nothing,
    /// It is being generated, for so many clients.
    Joinable(usize),
    /// Generated apart: too many wait, too much of it has gone by, or its answers can't be stored.
    Apart,
}

/// What to do with a request.
pub enum Joined<H> {
    /// Nobody asks this yet: generate, feed the lead, answer the own client by the reader.
    Lead(Lead<H>, Reader<H>),
    /// Somebody generates it already.
    Follow(Reader<H>),
    /// Generate without sharing: too many wait, too much of it has gone by, or its answers can't be stored.
    Pass,
}

impl<H: Clone> Flights<H> {
    /// No flights yet.
    pub fn new(limits: FlightLimits) -> Arc<Self> {
        let window_bytes = limits.window_bytes.min(limits.buffer_bytes_max / 2);
        let shard = || Mutex::new(Shard { flights: HashMap::default(), uncacheable: HashMap::default() });
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            limits: FlightLimits { window_bytes, ..limits },
        })
    }

    /// Joins the flight of a key, or starts it.
    pub fn join(self: &Arc<Self>, key: [u8; 32]) -> Joined<H> {
        let mut shard = self.shard(&key).lock();
        if shard.is_uncacheable(&key) {
            return Joined::Pass;
        }
        if let Some(flight) = shard.flights.get(&key).cloned() {
            let mut log = flight.lock();
            let joined = log.add_reader();
            let hook = joined.is_ok().then(|| log.take_hook()).flatten();
            drop(log);
            match joined {
                Ok(slot) => {
                    drop(shard);
                    if let Some(tell) = hook {
                        tell();
                    }
                    return Joined::Follow(Reader::new(flight, slot));
                }
                Err(log::Closed::ToNewReaders) => return Joined::Pass,
                Err(log::Closed::Abandoned) => {} // Its pump is about to drop it: begin anew.
            }
        }
        let (log, slot) = Log::with_reader(self.limits);
        let flight = Arc::new(Mutex::new(log));
        shard.flights.insert(key, flight.clone());
        let lead = Lead { flights: self.clone(), key, flight: flight.clone() };
        Joined::Lead(lead, Reader::new(flight, slot))
    }

    /// What joining would come to now. Changes nothing.
    pub fn look(&self, key: &[u8; 32]) -> UnderWay {
        let mut shard = self.shard(key).lock();
        if shard.is_uncacheable(key) {
            return UnderWay::Apart;
        }
        let Some(flight) = shard.flights.get(key) else { return UnderWay::Nothing };
        let log = flight.lock();
        match log.room() {
            Ok(()) => UnderWay::Joinable(log.readers()),
            Err(log::Closed::ToNewReaders) => UnderWay::Apart,
            Err(log::Closed::Abandoned) => UnderWay::Nothing,
        }
    }

    /// A flight that nobody else can join: for a request that wants an answer of its own.
    pub fn solo(self: &Arc<Self>, key: [u8; 32]) -> (Lead<H>, Reader<H>) {
        let (log, slot) = Log::with_reader(self.limits);
        let flight = Arc::new(Mutex::new(log));
        let lead = Lead { flights: self.clone(), key, flight: flight.clone() };
        (lead, Reader::new(flight, slot))
    }

    /// Until then, [`Flights::join`] gives [`Joined::Pass`] for this key: its last answer could not be stored, and waiting
    /// in line for another such answer would help nobody.
    pub fn mark_uncacheable(&self, key: [u8; 32], until: Instant) {
        let mut shard = self.shard(&key).lock();
        if shard.uncacheable.len() >= UNCACHEABLE_MAX && !shard.uncacheable.contains_key(&key) {
            shard.forget_one_uncacheable();
        }
        shard.uncacheable.insert(key, until);
    }

    /// Whether a key is marked uncacheable now.
    pub fn is_uncacheable(&self, key: &[u8; 32]) -> bool {
        self.shard(key).lock().is_uncacheable(key)
    }

    /// Flights under way.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().flights.len()).sum()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<H> Flights<H> {
    fn shard(&self, key: &[u8; 32]) -> &Mutex<Shard<H>> {
        &self.shards[usize::from(key[31]) % SHARDS]
    }
}

impl<H> Shard<H> {
    fn is_uncacheable(&mut self, key: &[u8; 32]) -> bool {
        match self.uncacheable.get(key) {
            Some(until) if *until > Instant::now() => true,
            Some(_) => {
                self.uncacheable.remove(key);
                false
            }
            None => false,
        }
    }

    /// Drops the expired marks, or else the one that ends first.
    fn forget_one_uncacheable(&mut self) {
        let now = Instant::now();
        self.uncacheable.retain(|_, until| *until > now);
        if self.uncacheable.len() < UNCACHEABLE_MAX {
            return;
        }
        let first = self.uncacheable.iter().min_by_key(|(_, until)| **until).map(|(key, _)| *key);
        if let Some(first) = first {
            self.uncacheable.remove(&first);
        }
    }
}

/// The feeding end of a flight. Dropping it removes the flight; without [`Lead::finish`] or [`Lead::fail`] its readers end
/// with [`FlightEnd::LeaderGone`].
pub struct Lead<H> {
    flights: Arc<Flights<H>>,
    key: [u8; 32],
    flight: Arc<Flight<H>>,
}

impl<H> Lead<H> {
    /// The key that it generates for.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// Calls `tell` once, as soon as anybody but the leader's own client reads; at once if somebody does.
    pub fn when_shared(&self, tell: impl FnOnce() + Send + 'static) {
        let tell_now = self.flight.lock().when_shared(Box::new(tell));
        if let Some(tell) = tell_now {
            tell();
        }
    }

    /// Gives the response head. The first one counts.
    pub fn head(&self, head: H) {
        let woken = self.flight.lock().set_head(head);
        woken.wake();
    }

    /// Gives the next bytes of the body. Never waits: see [`Lead::room`].
    pub fn push(&self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        let woken = self.flight.lock().push(chunk);
        woken.wake();
    }

    /// The body is whole. Late comers still join and get it all until the lead is dropped: insert into the store first.
    pub fn finish(&self) {
        self.end(FlightEnd::Complete);
    }

    /// The upstream failed.
    pub fn fail(&self, code: Code) {
        self.end(FlightEnd::Failed(code));
    }

    /// Waits until nobody reads any more; from then on nobody can join this flight. Stop the upstream.
    ///
    /// # Cancel safety
    /// Safe: dropping the future forgets nothing.
    pub async fn abandoned(&self) {
        poll_fn(|cx| self.flight.lock().poll_abandoned(cx)).await;
    }

    /// Waits until the fastest reader is less than a window behind (or nobody reads).
    ///
    /// # Cancel safety
    /// Safe: dropping the future forgets nothing.
    pub async fn room(&self) {
        poll_fn(|cx| self.flight.lock().poll_room(cx)).await;
    }

    /// Readers at the moment, the leader's own client included.
    pub fn readers(&self) -> usize {
        self.flight.lock().readers()
    }

    fn end(&self, end: FlightEnd) {
        let mut log = self.flight.lock();
        let (woken, hook) = (log.end(end), log.take_hook());
        drop(log);
        // It may hold the pump, and the pump this lead: never dropped under the lock.
        drop(hook);
        woken.wake();
    }
}

impl<H> Drop for Lead<H> {
    fn drop(&mut self) {
        self.end(FlightEnd::LeaderGone);
        let mut shard = self.flights.shard(&self.key).lock();
        // After an abandoned flight another one may stand under the key.
        if shard.flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            shard.flights.remove(&self.key);
        }
    }
}

type ChunkPoll = Poll<Option<Result<Bytes, FlightEnd>>>;

#[cfg(test)]
mod tests;
