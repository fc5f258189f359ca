//! Sends the trace to simulated servers, where the product's balance says.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;

use refrain_core::settings::{Admission, Balance, Endpoint, Pool};
use refrain_upstream::{Affinity, Demand, EndpointStats, Millis, PoolState, Seat, Upstreams};

use super::server::Server;
use super::trace::Request;

const SERVERS: usize = 4;
/// How much more than its share of the tokens a server may have, and may have if it was sent that conversation before.
const BOUND: f64 = 1.5;
const BOUND_KEPT: f64 = 2.0;

/// A fleet and its rule.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) balance: Balance,
    /// Blocks of 512 tokens that a server keeps; none: all.
    pub(super) blocks_max: Option<usize>,
    /// Requests in flight up to which a server takes what it would, whatever the others have.
    pub(super) parallelism: u32,
}

/// What a replay came to.
pub(super) struct Outcome {
    /// Cached blocks of all blocks.
    pub(super) hit_ratio: f64,
    /// Requests that went to a server beyond its bound though another was within its own.
    pub(super) beyond_bound: usize,
    /// Most requests at one server at once.
    pub(super) peak_in_flight: u32,
}

/// Seats of requests that are being answered, by when they are done.
#[derive(Default)]
struct Seated {
    ends: BinaryHeap<Reverse<(u64, usize)>>,
    seats: HashMap<usize, Seat>,
}

/// Who was sent which longer beginning last.
#[derive(Default)]
struct Kept(HashMap<u64, usize>);

/// Sends all requests when they came.
pub(super) fn run(trace: &[Request], fleet: &Fleet) -> Outcome {
    let pool = fleet.pool();
    let mut servers: Vec<Server> = (0..SERVERS).map(|_| Server::new(fleet.blocks_max)).collect();
    let (mut seated, mut kept) = (Seated::default(), Kept::default());
    let (mut cached, mut beyond_bound, mut peak_in_flight) = (0, 0, 0);
    for (nth, request) in trace.iter().enumerate() {
        let now = request.arrival();
        seated.leave_until(now);
        let before = pool.stats();
        let demand = request.demand();
        let seat = pool.try_seat(&demand, now).expect("limits are far away");
        let at = pool.endpoints().iter().position(|one| Arc::ptr_eq(one, seat.endpoint())).unwrap();

        let bound = if kept.at(&demand) == Some(at) { BOUND_KEPT } else { BOUND };
        let within = |one, bound| fleet.is_within(one, &before, demand.tokens, bound);
        let others_were = || before.iter().any(|one| within(one, BOUND));
        beyond_bound += usize::from(!within(&before[at], bound) && others_were());
        peak_in_flight = peak_in_flight.max(before[at].in_flight + 1);

        kept.note(&demand, at);
        let (found, duration) = servers[at].take(request);
        cached += found;
        seated.sit(nth, now.after(duration), seat);
    }
    seated.leave_until(Millis(u64::MAX));
    assert!(pool.stats().iter().all(|one| (one.in_flight, one.tokens) == (0, 0)), "a seat was lost");
    let blocks: usize = trace.iter().map(|request| request.blocks.len()).sum();
    #[expect(clippy::cast_precision_loss, reason = "some hundred thousand blocks")]
    let hit_ratio = cached as f64 / blocks as f64;
    Outcome { hit_ratio, beyond_bound, peak_in_flight }
}

impl Fleet {
    fn pool(&self) -> Arc<PoolState> {
        let endpoint = |nth| Endpoint::plain(format!("gpu-{nth}").as_str(), "127.0.0.1", 1);
        let endpoints = (0..SERVERS).map(endpoint).collect();
        let admission =
            Admission { parallelism: self.parallelism, concurrency: 10_000, ..Admission::default() };
        let balance = self.balance.clone();
        let pool = Arc::new(Pool { balance, admission, ..Pool::new("fleet".into(), endpoints) });
        let upstreams = Upstreams::new(&BTreeMap::from([(pool.id.clone(), pool.clone())])).unwrap();
        upstreams.pool(&pool.id).unwrap().clone()
    }

    /// The product's rule, said once more: within its parallelism, or within `bound` times an equal part of all tokens.
    #[expect(clippy::cast_precision_loss, reason = "some million tokens")]
    fn is_within(&self, one: &EndpointStats, all: &[EndpointStats], tokens: u32, bound: f64) -> bool {
        let tokens = u64::from(tokens);
        let total: u64 = all.iter().map(|one| one.tokens).sum::<u64>() + tokens;
        let share = total as f64 / SERVERS as f64;
        one.in_flight < self.parallelism || (one.tokens + tokens) as f64 <= bound * share
    }
}

impl Kept {
    fn at(&self, demand: &Demand) -> Option<usize> {
        longer(demand).iter().rev().find_map(|hash| self.0.get(hash)).copied()
    }

    fn note(&mut self, demand: &Demand, server: usize) {
        if let Some(hash) = longer(demand).last() {
            self.0.insert(*hash, server);
        }
    }
}

fn longer(demand: &Demand) -> &[u64] {
    let Affinity::Prefix(prefix) = &demand.affinity else { panic!("{demand:?}") };
    &prefix.longer
}

impl Seated {
    fn sit(&mut self, nth: usize, end: Millis, seat: Seat) {
        self.ends.push(Reverse((end.0, nth)));
        self.seats.insert(nth, seat);
    }

    /// Gives up the seats of requests that are done by now.
    fn leave_until(&mut self, now: Millis) {
        while self.ends.peek().is_some_and(|Reverse((end, _))| *end <= now.0) {
            let Reverse((_, nth)) = self.ends.pop().unwrap();
            self.seats.remove(&nth);
        }
    }
}
