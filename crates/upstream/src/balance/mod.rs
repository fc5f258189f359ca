//! Which endpoint of a pool is asked for a request.
//!
//! First who may be asked at all: those that have the model and are healthy, and others only if nobody is. Among them the
//! pool's rule makes an order; the first within its bound ([`bound`]) and its limit gets the request. It takes a look at each
//! endpoint and no lock.

pub(crate) mod bound;
pub(crate) mod preview;
pub(crate) mod recent;
pub(crate) mod rendezvous;
pub(crate) mod turns;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use refrain_core::settings::Balance;
use smallvec::SmallVec;

use crate::admission::Seat;
use crate::clock::Millis;
use crate::demand::{Affinity, Demand};
use crate::endpoint::EndpointState;
use crate::health::Standing;
use crate::models::Held;
use crate::pool::PoolState;
use bound::{Part, Total};
use turns::Members;

/// Endpoints of a pool that need no allocation.
const USUAL: usize = 16;
/// Load of a request whose prompt nobody counted, in tokens.
const TOKENS_UNKNOWN: u32 = 256;

/// What came of looking for an endpoint.
#[derive(Debug)]
pub(crate) enum Choice {
    /// This one, and there is room at it.
    Seat(Seat),
    /// Those that may be asked are at their limits.
    Full,
    /// There is nobody to ask, or nobody left.
    Nobody,
}

/// An endpoint as this choice sees it.
struct Candidate<'m> {
    endpoint: &'m Arc<EndpointState>,
    /// Its place among the members.
    place: usize,
    standing: Standing,
    part: Part,
    /// What it says of the model.
    model: Held,
}

/// Who may be asked.
struct Field<'m> {
    candidates: SmallVec<[Candidate<'m>; USUAL]>,
    total: Total,
    /// All have the same weight.
    is_even: bool,
}

/// Smaller is better.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Rank(u8, f64);

/// Chooses, and takes the seat. `tried`: keys of endpoints that this request was sent to before.
pub(crate) fn choose(pool: &Arc<PoolState>, demand: &Demand, tried: &[u64], now: Millis) -> Choice {
    let members = pool.members();
    let mut field = Field::of(pool, &members, demand, tried, now);
    if field.candidates.is_empty() {
        return Choice::Nobody;
    }
    let limit = pool.limit();
    let order = Order::of(pool, &members, demand, now);
    let tokens = tokens(demand);
    loop {
        let best = (0..field.candidates.len())
            .filter(|&at| field.candidates[at].part.in_flight < limit)
            .map(|at| (at, order.rank(&field, at, tokens)))
            .min_by(|(_, a), (_, b)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let Some((at, _)) = best else { return Choice::Full };
        let Candidate { endpoint, standing, .. } = &field.candidates[at];
        let seat = match standing {
            Standing::OnTrial => on_trial(pool, endpoint, limit, tokens, now),
            _ => Seat::take(pool, endpoint, limit, tokens),
        };
        match seat {
            Some(seat) => {
                order.note(seat.endpoint(), now);
                return Choice::Seat(seat);
            }
            // Another request was faster.
            None => field.candidates.swap_remove(at),
        };
    }
}

/// The seat of the one request that finds out whether an endpoint is back.
fn on_trial(
    pool: &Arc<PoolState>,
    endpoint: &Arc<EndpointState>,
    limit: u32,
    tokens: u32,
    now: Millis,
) -> Option<Seat> {
    if !endpoint.health.takes_trial(now, pool.config().health.ejection) {
        return None;
    }
    let seat = Seat::take(pool, endpoint, limit, tokens);
    if seat.is_none() {
        endpoint.health.end_trial(now);
    }
    seat.map(Seat::on_trial)
}

/// How much load a request is.
fn tokens(demand: &Demand) -> u32 {
    if demand.tokens == 0 { TOKENS_UNKNOWN } else { demand.tokens }
}

impl<'m> Field<'m> {
    /// One look at each member.
    fn of(pool: &PoolState, members: &'m Members, demand: &Demand, tried: &[u64], now: Millis) -> Self {
        let mut candidates: SmallVec<[Candidate<'m>; USUAL]> = SmallVec::with_capacity(members.len());
        let (floor, slow_start) = (f64::from(pool.floor()), pool.config().health.slow_start);
        let model = demand.model.as_deref().map(crate::models::hash);
        let owner = demand.follows.and_then(|hash| pool.owners.find(&[hash], now));
        let owner = owner.filter(|owner| members.iter().any(|endpoint| endpoint.key as u16 == *owner));
        let mut is_held = false;
        for (place, endpoint) in members.iter().enumerate() {
            let held = model.map_or(Held::Unknown, |model| endpoint.held(model));
            is_held |= matches!(held, Held::OnDisk | Held::InMemory);
            let is_other = owner.is_some_and(|owner| owner != endpoint.key as u16);
            let standing = endpoint.standing(now);
            if !is_other && standing != Standing::Awaited && !tried.contains(&endpoint.key) {
                let part = part(endpoint, floor, endpoint.health.share(now, slow_start));
                candidates.push(Candidate { endpoint, place, standing, part, model: held });
            }
        }
        if is_held {
            candidates.retain(|one| one.model != Held::Not);
        }
        keep_fit(&mut candidates);
        let mut total = Total::default();
        for candidate in &candidates {
            total.add(candidate.part.load, candidate.part.weight);
        }
        let weight = |one: &Candidate<'_>| one.endpoint.config.weight;
        let is_even = candidates.windows(2).all(|two| weight(&two[0]) == weight(&two[1]));
        Self { candidates, total, is_even }
    }
}

/// Those in good standing. If they are fewer than those that were ejected for their answers, the ejected ones too: so many
/// are hardly broken on their own account, and the others would be crushed. Who asked to be left alone is, as long as there is
/// anybody else. If there is nobody, all.
fn keep_fit(candidates: &mut SmallVec<[Candidate<'_>; USUAL]>) {
    let count = |wanted: fn(Standing) -> bool| candidates.iter().filter(|one| wanted(one.standing)).count();
    let is_good = |standing| matches!(standing, Standing::Good | Standing::OnTrial);
    let (good, ejected) = (count(is_good), count(|standing| standing == Standing::Ejected));
    let busy = count(|standing| standing == Standing::Busy);
    if good == candidates.len() || good + ejected + busy == 0 {
        return;
    }
    let (panics, all_busy) = (good < ejected, good + ejected == 0);
    candidates.retain(|one| match one.standing {
        Standing::Good | Standing::OnTrial => true,
        Standing::Ejected => panics,
        Standing::Busy => all_busy,
        Standing::Down | Standing::Awaited => false,
    });
}

/// An endpoint's part of the load. `share`: how much of its weight a slow start has reached.
fn part(endpoint: &EndpointState, floor: f64, share: f64) -> Part {
    Part {
        in_flight: endpoint.counters.in_flight.load(Relaxed),
        floor: (floor * share).ceil() as u32,
        load: endpoint.counters.tokens.load(Relaxed),
        weight: f64::from(endpoint.config.weight.max(1)) * share,
    }
}

impl Candidate<'_> {
    /// Outstanding tokens for its weight, more if it lately failed: who fails fast looks idle.
    fn relative_load(&self) -> f64 {
        let failures = f64::from(self.endpoint.health.failures_in_a_row());
        (self.part.load + 1) as f64 * (1.0 + failures) / self.part.weight
    }
}

/// The pool's rule, for one request.
enum Order<'p> {
    /// By key; the sticky one first.
    Keyed { key: u64, sticky: Option<u16>, longest: Option<u64>, pool: &'p PoolState },
    /// The first in turn is this one of so many.
    Turn { first: usize, members: &'p Members },
    /// Two at random.
    LeastLoad { draw: u64 },
}

impl<'p> Order<'p> {
    /// Takes the next turn, where turns count.
    fn of(pool: &'p PoolState, members: &'p Members, demand: &Demand, now: Millis) -> Self {
        let takes_turn = match &pool.config().balance {
            Balance::RoundRobin | Balance::LeastLoad => true,
            Balance::Prefix | Balance::Hash(_) => demand.affinity.key().is_none(),
        };
        let turn = if takes_turn { pool.turn() } else { 0 };
        Self::at(pool, members, demand, (turn, now))
    }

    /// The order at a turn.
    fn at(pool: &'p PoolState, members: &'p Members, demand: &Demand, (turn, now): (usize, Millis)) -> Self {
        match (&pool.config().balance, demand.affinity.key()) {
            (Balance::LeastLoad, _) => Self::LeastLoad { draw: rendezvous::mixed(turn as u64) },
            (Balance::Prefix | Balance::Hash(_), Some(key)) => {
                let longer: &[u64] = match &demand.affinity {
                    Affinity::Prefix(prefix) => &prefix.longer,
                    Affinity::Any | Affinity::Key(_) => &[],
                };
                let sticky = pool.recent.find(longer, now);
                Self::Keyed { key, sticky, longest: longer.last().copied(), pool }
            }
            (Balance::RoundRobin, _) | (_, None) => Self::Turn { first: members.first(turn), members },
        }
    }

    /// The place of a candidate in the order. One that has the model in memory goes first, up to its bound: beyond it, loading
    /// the model elsewhere is what the load asks for.
    fn rank(&self, field: &Field<'_>, at: usize, tokens: u32) -> Rank {
        let candidate = &field.candidates[at];
        let admits = |factor| field.total.admits(&candidate.part, tokens.into(), factor);
        let away = u8::from(candidate.model != Held::InMemory || !admits(bound::FACTOR));
        match self {
            Self::Keyed { key, sticky, .. } => {
                let is_kept = *sticky == Some(candidate.endpoint.key as u16);
                let factor = if is_kept { bound::FACTOR_KEPT } else { bound::FACTOR };
                if !admits(factor) {
                    return Rank(2, candidate.relative_load());
                }
                if is_kept {
                    return Rank(0, 0.0);
                }
                let EndpointState { seed, config, .. } = &**candidate.endpoint;
                let distance = if field.is_even { rendezvous::even_distance } else { rendezvous::distance };
                Rank(away, distance(*key, *seed, config.weight))
            }
            Self::Turn { first, members } => Rank(away, members.distance(*first, candidate.place) as f64),
            Self::LeastLoad { draw } => {
                let count = field.candidates.len() as u64;
                let one = draw % count;
                let other = (one + 1 + (draw >> 32) % count.saturating_sub(1).max(1)) % count;
                let is_drawn = at as u64 == one || at as u64 == other;
                Rank(if is_drawn { away } else { 2 + away }, candidate.relative_load())
            }
        }
    }

    /// Remembers where a conversation is.
    fn note(&self, endpoint: &EndpointState, now: Millis) {
        if let Self::Keyed { longest: Some(hash), pool, .. } = self {
            pool.recent.note(*hash, endpoint.key, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use refrain_core::settings::{Admission, Pool, PoolKind};

    use super::*;
    use crate::Upstreams;
    use crate::models::Models;

    fn pool(balance: Balance, endpoints: &[&str]) -> Arc<PoolState> {
        let plain = crate::pool::tests::pool("p", PoolKind::Ollama, endpoints);
        let admission = Admission { parallelism: 1, ..Admission::default() };
        let config = Arc::new(Pool { admission, balance, ..(*plain).clone() });
        let upstreams = Upstreams::new(&BTreeMap::from([(config.id.clone(), config)])).unwrap();
        upstreams.pools().next().unwrap().clone()
    }

    /// Where requests that are all under way at once went.
    fn seats(pool: &Arc<PoolState>, count: usize) -> Vec<Seat> {
        let demand = Demand { model: Some("x".into()), ..Demand::default() };
        (0..count).map(|_| pool.try_seat(&demand, Millis::now()).unwrap()).collect()
    }

    fn at<'s>(seats: impl IntoIterator<Item = &'s Seat>, id: &str) -> usize {
        seats.into_iter().filter(|seat| seat.endpoint().id().as_str() == id).count()
    }

    #[test]
    fn a_model_in_memory_draws_requests_but_not_all_of_them() {
        for balance in [Balance::RoundRobin, Balance::LeastLoad, Balance::Prefix] {
            let pool = pool(balance.clone(), &["a", "b"]);
            for (endpoint, resident) in
                pool.endpoints().iter().zip([&br#"{"models":[{"name":"x"}]}"#[..], b"{}"])
            {
                let models = Models::of_ollama(br#"{"models":[{"name":"x"}]}"#).unwrap();
                endpoint.models.store(Some(Arc::new(models.with_resident(resident))));
            }
            let seats = seats(&pool, 20);
            assert_eq!(at(&seats[..1], "a"), 1, "{balance:?}");
            assert!((5..=15).contains(&at(&seats, "a")), "{balance:?}: {}", at(&seats, "a"));
        }
    }

    #[test]
    fn who_asks_to_be_left_alone_is_as_long_as_there_is_anybody_else() {
        let pool = pool(Balance::RoundRobin, &["a", "b", "c"]);
        let now = Millis::now();
        for endpoint in &pool.endpoints()[..2] {
            endpoint.health.note_busy(now, Duration::from_secs(30));
        }
        assert_eq!(at(&seats(&pool, 6), "c"), 6);
        pool.endpoints()[2].health.note_busy(now, Duration::from_secs(30));
        assert_eq!(at(&seats(&pool, 6), "a"), 2);
    }
}
