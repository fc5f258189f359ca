//! A pool's endpoints, and whose turn it is: weighted round robin. Nothing here knows about prompts.

use std::ops::Deref;
use std::sync::Arc;

use crate::endpoint::EndpointState;

/// Longest schedule; weights that need a longer one are rounded.
const SCHEDULE_MAX: u64 = 4096;

/// A pool's endpoints at one moment, those of config first.
#[derive(Debug)]
pub struct Members {
    endpoints: Vec<Arc<EndpointState>>,
    /// Indices of endpoints, each as often as its weight, evenly spread. Weight 0 gets no turn, unless all have it.
    schedule: Vec<usize>,
}

impl Members {
    pub(crate) fn new(endpoints: Vec<Arc<EndpointState>>) -> Self {
        let weights: Vec<u32> = endpoints.iter().map(|endpoint| endpoint.config.weight).collect();
        Self { schedule: schedule(&weights), endpoints }
    }

    /// Whose turn it is, as an index.
    pub(crate) fn first(&self, turn: usize) -> usize {
        self.schedule.get(turn % self.schedule.len().max(1)).copied().unwrap_or_default()
    }

    /// How many come before the one at `place` if the one at `first` is first.
    pub(crate) fn distance(&self, first: usize, place: usize) -> usize {
        let count = self.endpoints.len();
        // Those without a turn of their own come last.
        let has_turn = self.endpoints.get(place).is_some_and(|endpoint| endpoint.config.weight > 0);
        let without = if has_turn { 0 } else { count };
        without + (place + count - first) % count
    }
}

impl Deref for Members {
    type Target = [Arc<EndpointState>];

    fn deref(&self) -> &Self::Target {
        &self.endpoints
    }
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
}
