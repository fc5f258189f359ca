//! Which endpoint of a pool is asked, and which after it, in turns: weighted round robin. Nothing here knows about prompts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use crate::endpoint::EndpointState;

/// Longest schedule; weights that need a longer one are rounded.
const SCHEDULE_MAX: u64 = 4096;

/// Whose turn it is in a pool.
#[derive(Debug)]
pub(crate) struct Turns {
    /// Indices of endpoints, each as often as its weight, evenly spread.
    schedule: Vec<usize>,
    /// How many there are.
    endpoints: usize,
    next: AtomicUsize,
}

impl Turns {
    /// Turns by weight. Weight 0 gets none, unless all are 0.
    pub(crate) fn new(weights: &[u32]) -> Self {
        Self { schedule: schedule(weights), endpoints: weights.len(), next: AtomicUsize::new(0) }
    }

    /// Whose turn it is, then the others in the order of config. Takes the turn.
    pub(crate) fn preference(&self) -> Vec<usize> {
        let (first, count) = (self.take(), self.endpoints);
        (0..count).map(|step| (first + step) % count).collect()
    }

    fn take(&self) -> usize {
        if self.schedule.is_empty() {
            return 0;
        }
        self.schedule[self.next.fetch_add(1, Relaxed) % self.schedule.len()]
    }
}

/// The order in which to ask endpoints for one request: as preferred, but those that lately refused a connection come
/// last, with the exception of one request after each cool-down. Every endpoint is there once.
pub(crate) fn order(endpoints: &[Arc<EndpointState>], preference: Vec<usize>, now: Instant) -> Vec<usize> {
    let mut order = preference;
    let is_cooling = |&index: &usize| endpoints[index].is_cooling(now);
    if order.iter().any(is_cooling) {
        // Cached, since other workers may change the keys while this sorts.
        order.sort_by_cached_key(is_cooling);
    }
    if order.first().is_some_and(|&first| !endpoints[first].admits(now)) {
        order.rotate_left(1);
    }
    order
}

/// Smooth weighted round robin, one whole turn of it: after each pick the picked one pays the sum of all weights.
fn schedule(weights: &[u32]) -> Vec<usize> {
    let weights = rounded(weights);
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0i64; weights.len()];
    let mut turns = Vec::with_capacity(total as usize);
    for _ in 0..total {
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            *credit += weight;
        }
        let Some(picked) = (0..credit.len()).max_by_key(|&index| (credit[index], usize::MAX - index)) else {
            break;
        };
        credit[picked] -= total;
        turns.push(picked);
    }
    turns
}

/// Weights in lowest terms, summing to [`SCHEDULE_MAX`] or so at most; all 1 if all are 0.
fn rounded(weights: &[u32]) -> Vec<i64> {
    let divisor = weights.iter().fold(0, |divisor, &weight| gcd(divisor, weight.into()));
    if divisor == 0 {
        return vec![1; weights.len()];
    }
    let total: u64 = weights.iter().map(|&weight| u64::from(weight) / divisor).sum();
    let scale = total.div_ceil(SCHEDULE_MAX).max(1);
    let share = |&weight: &u32| (u64::from(weight) / divisor).div_ceil(scale) as i64;
    weights.iter().map(share).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_weights_take_strict_turns() {
        assert_eq!(schedule(&[5, 5, 5]), [0, 1, 2]);
    }

    #[test]
    fn heavier_endpoints_get_more_turns_evenly_spread() {
        assert_eq!(schedule(&[4, 2, 1]), [0, 1, 0, 2, 0, 1, 0]);
    }

    #[test]
    fn weight_zero_gets_no_turn_unless_all_have_none() {
        assert_eq!(schedule(&[0, 3]), [1]);
        assert_eq!(schedule(&[0, 0]), [0, 1]);
        assert!(schedule(&[]).is_empty());
    }

    #[test]
    fn schedules_stay_short_and_keep_the_proportion() {
        let turns = schedule(&[2_000_003, 1_000_001]);
        let first = turns.iter().filter(|&&index| index == 0).count();
        assert!(turns.len() <= SCHEDULE_MAX as usize + 2, "{}", turns.len());
        assert!((first as f64 / turns.len() as f64 - 2.0 / 3.0).abs() < 0.001, "{first}");
    }

    #[test]
    fn an_endpoint_that_refused_a_connection_is_asked_last_for_a_while() {
        let endpoints = crate::pool::tests::endpoints(&["a", "b", "c"]);
        let turns = Turns::new(&[1, 1, 1]);
        let now = Instant::now();
        endpoints[1].note_unreachable(now);
        let orders: Vec<_> = (0..3).map(|_| order(&endpoints, turns.preference(), now)).collect();
        assert_eq!(orders, [[0, 2, 1], [2, 0, 1], [2, 0, 1]]);

        let later = now + crate::endpoint::COOL_DOWN;
        let orders: Vec<_> = (0..5).map(|_| order(&endpoints, turns.preference(), later)).collect();
        let probe = [1, 2, 0];
        assert_eq!(orders, [[0, 1, 2], probe, [2, 0, 1], [0, 2, 1], [2, 0, 1]], "one probes, no more");

        endpoints[1].note_reachable();
        let orders: Vec<_> = (0..2).map(|_| order(&endpoints, turns.preference(), later)).collect();
        assert_eq!(orders, [[2, 0, 1], [0, 1, 2]]);
    }

    #[test]
    fn a_keyed_request_leaves_an_endpoint_that_cools_and_comes_back_to_it() {
        let endpoints = crate::pool::tests::endpoints(&["a", "b", "c"]);
        let ordered = |now| order(&endpoints, crate::rendezvous::preference(&endpoints, &[7; 32]), now);
        let now = Instant::now();
        let home = ordered(now);
        endpoints[home[0]].note_unreachable(now);
        let away = [home[1], home[2], home[0]];
        assert_eq!(ordered(now), away);

        let later = now + crate::endpoint::COOL_DOWN;
        assert_eq!([ordered(later), ordered(later)], [home.clone(), away.to_vec()], "one probes, no more");
        endpoints[home[0]].note_reachable();
        assert_eq!([ordered(later), ordered(later)], [home.clone(), home]);
    }
}
