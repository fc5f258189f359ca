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

/// Wants of one tenant that are looked at before the next tenant's turn: the first may want what
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

/// Who waits of one tenant. A seat that becomes free costs as much as there are wants, however many wait.
#[derive(Debug)]
struct Line {
    tenant: Option<TenantId>,
    /// By want; whose first came first is first. None is empty.
    groups: VecDeque<Group>,
    len: usize,
}

/// Waiters for whom there is room alike, by ticket.
#[derive(Debug)]
struct Group {
    want: u64,
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
            Some(line) => line.push(ticket, waiter),
            None => {
                let mut line = Line { tenant: tenant.clone(), groups: VecDeque::new(), len: 0 };
                line.push(ticket, waiter);
                ring.push_back(line);
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
        let own = ring.iter().find(|line| line.tenant == demand.tenant).map_or(0, |line| line.len);
        let others = ring.iter().any(|line| line.tenant != demand.tenant);
        let Some(longest) = ring.iter_mut().max_by_key(|line| line.len) else {
            return Some(Turned::Full);
        };
        if is_own_class && longest.len <= own + 1 {
            return Some(if others && own > 0 { Turned::Share } else { Turned::Full });
        }
        let left = longest.pop_newest();
        ring.retain(|line| line.len > 0);
        if let Some(waiter) = left {
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
            if line.len > 0 {
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
    /// The newest ticket.
    fn push(&mut self, ticket: u64, waiter: Waiter) {
        self.len += 1;
        match self.groups.iter_mut().find(|group| group.want == waiter.want) {
            Some(group) => group.waiters.push_back((ticket, waiter)),
            None => self
                .groups
                .push_back(Group { want: waiter.want, waiters: VecDeque::from([(ticket, waiter)]) }),
        }
    }

    fn pop_newest(&mut self) -> Option<Waiter> {
        let newest = |group: &Group| group.waiters.back().map(|(ticket, _)| *ticket);
        let at = (0..self.groups.len()).max_by_key(|at| newest(&self.groups[*at]))?;
        let waiters = &mut self.groups[at].waiters;
        let newest = waiters.len().checked_sub(1)?;
        self.remove(at, newest)
    }

    /// Takes a waiter out of a group.
    fn remove(&mut self, group: usize, at: usize) -> Option<Waiter> {
        let (_, waiter) = self.groups[group].waiters.remove(at)?;
        self.len -= 1;
        if at == 0 {
            self.settle(group);
        }
        Some(waiter)
    }

    /// Moves a group whose first has left to where its next belongs.
    fn settle(&mut self, group: usize) {
        let Some(group) = self.groups.remove(group) else { return };
        let Some(first) = group.first() else { return };
        let at = self.groups.partition_point(|other| other.first() < Some(first));
        self.groups.insert(at, group);
    }

    fn forget(&mut self, ticket: u64) -> Option<Waiter> {
        let place = |group: &Group| group.waiters.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok();
        let (group, at) = self.groups.iter().enumerate().find_map(|(at, group)| Some((at, place(group)?)))?;
        self.remove(group, at)
    }

    /// Serves the first that can be served.
    fn serve(&mut self, next: &mut impl FnMut(&Waiter) -> Next, round: &mut Round) -> Given {
        let mut given = Given { seated: false, removed: 0 };
        let (mut at, mut looks) = (0, 0);
        while looks < LOOKS_A_TENANT
            && let Some(group) = self.groups.get(at)
        {
            let Some((_, waiter)) = group.waiters.front().filter(|_| !round.full.contains(&group.want))
            else {
                at += 1;
                continue;
            };
            if waiter.reply.is_closed() {
                given.removed += usize::from(self.remove(at, 0).is_some());
                continue;
            }
            let Next::Give(seat) = next(waiter) else {
                round.full.insert(group.want);
                looks += 1;
                continue;
            };
            if let Some(waiter) = self.remove(at, 0) {
                given.removed += 1;
                given.seated = true;
                round.left.extend(waiter.reply.send(seat).err().and_then(Result::ok));
            }
            break;
        }
        given
    }
}

impl Group {
    fn first(&self) -> Option<u64> {
        self.waiters.front().map(|(ticket, _)| *ticket)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.lines.lock();
        let ring = &mut lines.classes[self.class].ring;
        let Some(line) = ring.iter_mut().find(|line| line.tenant == self.tenant) else { return };
        let Some(gone) = line.forget(self.ticket) else { return };
        self.waiting.fetch_sub(1, SeqCst);
        if line.len == 0 {
            ring.retain(|line| line.len > 0);
        }
        drop(lines);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Join(u8),
        Leave(usize),
        /// Room for one of each of these wants.
        Room(BTreeSet<u8>),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0_u8..5).prop_map(Step::Join),
            1 => (0_usize..50).prop_map(Step::Leave),
            2 => proptest::collection::btree_set(0_u8..5, 0..3).prop_map(Step::Room),
        ];
        proptest::collection::vec(step, 1..200)
    }

    fn waiter(want: u8) -> (Waiter, oneshot::Receiver<Result<Seat, Turned>>) {
        let (reply, answer) = oneshot::channel();
        let demand = Demand { model: Some(want.to_string().into()), ..Demand::default() };
        (Waiter::new(demand, Vec::new(), reply), answer)
    }

    proptest! {
        /// One tenant's line, against a plain list: of those for whom there is room, the first that came is served.
        #[test]
        fn whoever_came_first_and_has_room_is_served_first(steps in steps()) {
            let queue = Queue::default();
            let mut list = Vec::new();
            for step in steps {
                match step {
                    Step::Join(want) => {
                        let (waiter, answer) = waiter(want);
                        list.push((want, queue.join(waiter, 1_000).expect("there is room to wait"), answer));
                    }
                    Step::Leave(at) if at < list.len() => drop(list.remove(at)),
                    Step::Leave(_) => {}
                    Step::Room(mut room) => {
                        let mut served = Vec::new();
                        let mut expected = room.clone();
                        queue.serve(Millis::now(), |waiter| {
                            let want = waiter.demand.model.as_deref().and_then(|want| want.parse().ok());
                            let want = want.expect("each has a want");
                            if !room.remove(&want) {
                                return Next::Wait;
                            }
                            served.push(want);
                            Next::Give(Err(Turned::NobodyLeft))
                        });
                        let mut due = Vec::new();
                        list.retain(|(want, _, _)| {
                            let is_due = expected.remove(want);
                            due.extend(is_due.then_some(*want));
                            !is_due
                        });
                        prop_assert_eq!(served, due);
                    }
                }
                prop_assert_eq!(queue.waiting(), list.len());
            }
            for (_, _, answer) in &mut list {
                prop_assert!(answer.try_recv().is_err(), "nobody who still waits was told anything");
            }
        }
    }

    #[test]
    fn a_seat_costs_a_few_looks_however_many_wait() {
        let queue = Queue::default();
        let waiting: Vec<_> = (0..10_000)
            .map(|at| {
                let (waiter, answer) = waiter(u8::from(at % 2 == 0));
                (queue.join(waiter, 20_000).unwrap(), answer)
            })
            .collect();
        let (mut room, mut looks) = (1, 0);
        queue.serve(Millis::now(), |_| {
            looks += 1;
            room -= 1;
            if room >= 0 { Next::Give(Err(Turned::NobodyLeft)) } else { Next::Wait }
        });
        assert_eq!(looks, 3, "one who gets it, and one of each want who doesn't");
        drop(waiting);
        assert_eq!(queue.waiting(), 0);
    }
}
