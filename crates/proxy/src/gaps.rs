//! How long the gaps between the chunks of streams were: a histogram of every gap, for one addition a chunk.
//!
//! An answer counts for itself ([`GapCounts`]), and adds what it has to its route's ([`Gaps`]) once, when it has ended. The
//! recorder's own histograms keep every sample until somebody looks, which is too much for every token.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the gaps that are told apart, in milliseconds; longer ones are counted together.
const BOUNDS_MS: [u64; 16] = [1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000, 3000, 10_000];

/// One answer's gaps, by length.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GapCounts([u32; BOUNDS_MS.len() + 1]);

/// The gaps of all answers, kept over reloads.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    counts: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_ns: AtomicU64,
}

/// What was counted by now.
#[derive(Clone, Debug, PartialEq)]
pub struct GapStats {
    /// Upper bounds in seconds, with the number of gaps up to each.
    pub up_to: Vec<(f64, u64)>,
    /// All gaps.
    pub count: u64,
    /// Added up, in seconds.
    pub sum: f64,
}

impl GapCounts {
    /// Counts one.
    pub(crate) fn add(&mut self, gap: Duration) {
        let count = &mut self.0[BOUNDS_MS.partition_point(|bound| Duration::from_millis(*bound) < gap)];
        *count = count.saturating_add(1);
    }
}

impl Gaps {
    /// Adds an answer's, which are so long together.
    pub(crate) fn add(&self, counts: &GapCounts, sum: Duration) {
        for (all, more) in self.counts.iter().zip(counts.0).filter(|(_, more)| *more > 0) {
            all.fetch_add(more.into(), Relaxed);
        }
        // Beyond `u64`, which are centuries, it stays at the largest.
        self.sum_ns.fetch_add(sum.as_nanos().min(u64::MAX.into()) as u64, Relaxed);
    }

    /// What was counted by now.
    pub(crate) fn stats(&self) -> GapStats {
        let mut count = 0;
        let mut and_below = |of: &AtomicU64| {
            count += of.load(Relaxed);
            count
        };
        let [bounded @ .., longer] = &self.counts;
        let bounds = BOUNDS_MS.iter().map(|bound| Duration::from_millis(*bound).as_secs_f64());
        let up_to = bounds.zip(bounded.iter().map(&mut and_below)).collect();
        let count = and_below(longer);
        GapStats { up_to, count, sum: self.sum_ns.load(Relaxed) as f64 / 1e9 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gap_is_counted_up_to_its_bound() {
        let gaps = Gaps::default();
        for millis in [[1, 4], [4, 60_000]] {
            let mut counts = GapCounts::default();
            millis.into_iter().for_each(|millis| counts.add(Duration::from_millis(millis)));
            gaps.add(&counts, Duration::from_millis(millis.iter().sum()));
        }
        let GapStats { up_to, count, sum } = gaps.stats();
        assert_eq!(up_to[..4], [(0.001, 1), (0.002, 1), (0.005, 3), (0.01, 3)]);
        assert_eq!((up_to[15], count), ((10.0, 3), 4));
        assert!((sum - 60.009).abs() < 1e-9, "{sum}");
    }
}
