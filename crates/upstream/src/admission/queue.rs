//! Who waits at a pool: the higher priority first, tenants in turn within one, and within a tenant first come, first served.
//! So one that sends a thousand requests waits for itself, and whoever is of a lower priority waits for all others, but not
//! for ever: now and then a seat is its own. Where there is no room to wait, the lowest priority leaves first.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use refrain_core::TenantId;
use refrain_core::settings::Priority;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Seat;
use super::drain_rate::DrainRate;
use crate::clock::Millis;
use crate::demand::Demand;

/// Waiters of one tenant, each with another want, that are looked at before the next tenant's turn: the first may want what
/// nobody has room for.
const LOOKS_A_TENANT: usize = 8;

/// Seats that a priority which waits sees go to higher ones in a row, before one is its own.
const PASSES_MAX: u32 = 16;

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) demand: Demand,
    pub(crate) tried: Vec<u64>,
    reply: oneshot::Sender<Result<Seat, Turned>>,
    /// Stands for all that decides whether there is room for it: who has none for one has none for another of the same.
    want: u64,
}

impl Waiter {
    /// `tried`: keys of endpoints that it was sent to before.
    pub(crate) fn new(demand: Demand, tried: Vec<u64>, reply: oneshot::Sender<Result<Seat, Turned>>) -> Self {
        let mut want = DefaultHasher::new();
        (demand.model.as_deref(), demand.follows, &tried).hash(&mut want);
        Self { demand, tried, reply, want: want.finish() }
    }
}

/// Why somebody got no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    /// The queue is full.
    Full,
    /// The queue is full, mostly of the same tenant's requests.
    Share,
    /// It waited too long.
    Late,
    /// Every endpoint that could answer is gone.
    NobodyLeft,
}

/// What is to be done about a waiter.
#[derive(Debug)]
pub(crate) enum Next {
    Give(Result<Seat, Turned>),
    Wait,
}

/// A pool's queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    lines: Arc<Mutex<Lines>>,
    waiting: Arc<AtomicUsize>,
    done: AtomicU64,
    waited_ms: AtomicU64,
    waits: AtomicU64,
    refused: AtomicU64,
    rate: Mutex<DrainRate>,
    /// When it was looked at last though nobody left.
    looked: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Lines {
    /// By priority, the lowest first.
    classes: [Class; Priority::ALL.len()],
    tickets: u64,
}

/// Who waits of one priority.
#[derive(Debug, Default)]
struct Class {
    /// Tenants with somebody who waits; the next in turn first.
    ring: VecDeque<Line>,
    /// Seats that went to higher priorities since one was its own.
    passes: u32,
}

#[derive(Debug)]
struct Line {
    tenant: Option<TenantId>,
    waiters: VecDeque<(u64, Waiter)>,
}

/// A place in the queue, given up when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    class: usize,
    tenant: Option<TenantId>,
    ticket: u64,
    lines: Arc<Mutex<Lines>>,
    waiting: Arc<AtomicUsize>,
}

impl Queue {
    /// Whether anybody waits. Sees whoever joined before a seat became free.
    pub(crate) fn is_waited_at(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Requests that were refused or gave up waiting, and those that waited and for how long in all.
    pub(crate) fn counts(&self) -> (u64, u64, Duration) {
        let waited = Duration::from_millis(self.waited_ms.load(Relaxed));
        (self.refused.load(Relaxed), self.waits.load(Relaxed), waited)
    }

    /// Waits behind the tenant's own. If the queue is full, one of the lowest priority gives up its place: the newest of the
    /// tenant that has the most of it, or this request.
    pub(crate) fn join(&self, waiter: Waiter, len_max: usize) -> Result<Place, Turned> {
        self.rate.lock().note(Millis::now(), self.done.load(Relaxed));
        let mut lines = self.lines.lock();
        let tenant = waiter.demand.tenant.clone();
        if self.waiting.load(Relaxed) >= len_max
            && let Some(refused) = self.refusal(&mut lines, &waiter.demand)
        {
            self.refused.fetch_add(1, Relaxed);
            return Err(refused);
        }
        lines.tickets += 1;
        let ticket = lines.tickets;
        let class = waiter.demand.priority as usize;
        let ring = &mut lines.classes[class].ring;
        match ring.iter_mut().find(|line| line.tenant == tenant) {
            Some(line) => line.waiters.push_back((ticket, waiter)),
            None => {
                ring.push_back(Line { tenant: tenant.clone(), waiters: VecDeque::from([(ticket, waiter)]) });
            }
        }
        self.waiting.fetch_add(1, SeqCst);
        drop(lines);
        Ok(Place { class, tenant, ticket, lines: self.lines.clone(), waiting: self.waiting.clone() })
    }

    /// Makes room for one more; none if somebody else had to leave for it.
    fn refusal(&self, lines: &mut Lines, demand: &Demand) -> Option<Turned> {
        let lowest = lines.classes.iter().position(|class| !class.ring.is_empty());
        let Some(lowest) = lowest.filter(|lowest| *lowest <= demand.priority as usize) else {
            return Some(Turned::Full);
        };
        let ring = &mut lines.classes[lowest].ring;
        let is_own_class = lowest == demand.priority as usize;
        let own = ring.iter().find(|line| line.tenant == demand.tenant).map_or(0, |line| line.waiters.len());
        let others = ring.iter().any(|line| line.tenant != demand.tenant);
        let Some(longest) = ring.iter_mut().max_by_key(|line| line.waiters.len()) else {
            return Some(Turned::Full);
        };
        if is_own_class && longest.waiters.len() <= own + 1 {
            return Some(if others && own > 0 { Turned::Share } else { Turned::Full });
        }
        let left = longest.waiters.pop_back();
        ring.retain(|line| !line.waiters.is_empty());
        if let Some((_, waiter)) = left {
            self.waiting.fetch_sub(1, SeqCst);
            self.refused.fetch_add(1, Relaxed);
            // Who has left needs no answer.
            let _ = waiter.reply.send(Err(if is_own_class { Turned::Share } else { Turned::Full }));
        }
        None
    }

    /// Asks `next` about those that wait, in the order of their turns, until nobody can be served. Gives back seats whose requests left
    /// meanwhile: drop them without holding anything.
    pub(crate) fn serve(&self, now: Millis, mut next: impl FnMut(&Waiter) -> Next) -> Vec<Seat> {
        let mut round = Round::default();
        let mut lines = self.lines.lock();
        while let Some(class) = lines.turns().into_iter().find(|class| {
            let given = lines.classes[*class].serve(&mut next, &mut round);
            self.waiting.fetch_sub(given.removed, SeqCst);
            given.seated
        }) {
            lines.note_seat(class);
        }
        drop(lines);
        self.rate.lock().note(now, self.done.load(Relaxed));
        round.left
    }

    /// Whether it is time to look at it though nobody left; says so to one of those that wait.
    pub(crate) fn takes_look(&self, now: Instant, interval: Duration) -> bool {
        let mut looked = self.looked.lock();
        let is_due = looked.is_none_or(|looked| now >= looked + interval / 2);
        if is_due {
            *looked = Some(now);
        }
        is_due
    }

    /// A request ended.
    pub(crate) fn note_done(&self) {
        self.done.fetch_add(1, Relaxed);
    }

    /// A request waited so long, with success or not.
    pub(crate) fn note_wait(&self, wait: Duration) {
        self.waits.fetch_add(1, Relaxed);
        self.waited_ms.fetch_add(wait.as_millis() as u64, Relaxed);
    }

    /// A request waited in vain.
    pub(crate) fn note_late(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// When there may be room for one more.
    pub(crate) fn retry_after(&self) -> Duration {
        self.rate.lock().wait(self.waiting())
    }
}

/// What is known while the queue is served.
#[derive(Default)]
struct Round {
    /// Wants that there is no room for: seats only go, until the lock is free again.
    full: HashSet<u64>,
    /// Seats whose requests left meanwhile.
    left: Vec<Seat>,
}

/// What one turn did.
struct Given {
    seated: bool,
    removed: usize,
}

impl Lines {
    /// Priorities in the order of their turns: those that were passed over too often, then the highest first.
    fn turns(&self) -> [usize; Priority::ALL.len()] {
        let mut turns = [2, 1, 0];
        turns.sort_by_key(|class| self.classes[*class].passes < PASSES_MAX);
        turns
    }

    /// One of this priority has got a seat.
    fn note_seat(&mut self, seated: usize) {
        self.classes[seated].passes = 0;
        for class in &mut self.classes[..seated] {
            class.passes = if class.ring.is_empty() { 0 } else { class.passes.saturating_add(1) };
        }
    }
}

impl Class {
    /// Serves the first that can be served, tenants in turn.
    fn serve(&mut self, next: &mut impl FnMut(&Waiter) -> Next, round: &mut Round) -> Given {
        let mut all = Given { seated: false, removed: 0 };
        for _ in 0..self.ring.len() {
            let Some(mut line) = self.ring.pop_front() else { break };
            let given = line.serve(next, round);
            all.removed += given.removed;
            if !line.waiters.is_empty() {
                self.ring.push_back(line);
            }
            if given.seated {
                return Given { seated: true, ..all };
            }
        }
        all
    }
}

impl Line {
    /// Serves the first that can be served.
    fn serve(&mut self, next: &mut impl FnMut(&Waiter) -> Next, round: &mut Round) -> Given {
        let before = self.waiters.len();
        self.waiters.retain(|(_, waiter)| !waiter.reply.is_closed());
        let mut given = Given { seated: false, removed: before - self.waiters.len() };
        let mut looks = 0;
        for at in 0..self.waiters.len() {
            let waiter = &self.waiters[at].1;
            if round.full.contains(&waiter.want) {
                continue;
            }
            let Next::Give(seat) = next(waiter) else {
                round.full.insert(waiter.want);
                looks += 1;
                if looks == LOOKS_A_TENANT {
                    break;
                }
                continue;
            };
            if let Some((_, waiter)) = self.waiters.remove(at) {
                given.removed += 1;
                given.seated = true;
                round.left.extend(waiter.reply.send(seat).err().and_then(Result::ok));
            }
            break;
        }
        given
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.lines.lock();
        let ring = &mut lines.classes[self.class].ring;
        let Some(line) = ring.iter_mut().find(|line| line.tenant == self.tenant) else { return };
        let Ok(at) = line.waiters.binary_search_by_key(&self.ticket, |(ticket, _)| *ticket) else { return };
        let gone = line.waiters.remove(at);
        self.waiting.fetch_sub(1, SeqCst);
        ring.retain(|line| !line.waiters.is_empty());
        drop(lines);
        drop(gone);
    }
}
