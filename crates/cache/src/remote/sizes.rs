//! How large partitions are, which decides how the query engine is best asked: by comparing every vector of a small partition,
//! or by walking its graph over all partitions and keeping those of a large one. Left alone it compares too often: 0.98 ms
//! against 0.08 where one partition holds 13,000 vectors (Redis 8.2 with RediSearch 2.10).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quick_cache::sync::Cache;

/// Partitions whose size is remembered.
const PARTITIONS_MAX: usize = 10_000;
/// How long a size is believed, in ms.
const BELIEVED_MS: u64 = 60_000;
/// What one comparison takes, in ns.
const COMPARE_NS: u64 = 67;
/// What a walk takes to begin, in ns.
const WALK_NS: u64 = 70_000;
/// What a walk takes for each vector that it comes by, in ns.
const STEP_NS: u64 = 1_300;

/// Sizes, as they were of late.
pub(super) struct Sizes {
    partitions: Cache<[u8; 32], Size>,
    all: AtomicU64,
    /// The server doesn't know the words.
    is_off: AtomicBool,
}

#[derive(Clone, Copy)]
struct Size {
    vectors: u64,
    at_ms: u64,
}

/// How the query engine is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As it thinks best, and for the size of the partition too.
    Unknown,
    /// As it thinks best.
    Any,
    /// Every vector of the partition is compared.
    Compare,
    /// The graph is walked.
    Walk,
}

impl Sizes {
    pub(super) fn new() -> Self {
        Self {
            partitions: Cache::new(PARTITIONS_MAX),
            all: AtomicU64::new(0),
            is_off: AtomicBool::new(false),
        }
    }

    /// Notes how many vectors a partition has.
    pub(super) fn note(&self, partition: &[u8; 32], vectors: u64, now_ms: u64) {
        self.partitions.insert(*partition, Size { vectors, at_ms: now_ms });
    }

    /// Notes how many vectors there are.
    pub(super) fn note_all(&self, vectors: u64) {
        self.all.store(vectors, Ordering::Relaxed);
    }

    /// The server refuses to be told how.
    pub(super) fn switch_off(&self) {
        self.is_off.store(true, Ordering::Relaxed);
    }

    /// How to ask for the `k` nearest of a partition.
    pub(super) fn way(&self, partition: &[u8; 32], k: usize, now_ms: u64) -> Way {
        if self.is_off.load(Ordering::Relaxed) {
            return Way::Any;
        }
        let known = self.partitions.get(partition).filter(|size| now_ms < size.at_ms + BELIEVED_MS);
        let Some(Size { vectors, .. }) = known else { return Way::Unknown };
        let all = self.all.load(Ordering::Relaxed).max(vectors);
        // To find k of the partition, a walk comes by as many more as there are strangers among them.
        let passed = (k as u64).saturating_mul(all) / vectors.max(1);
        let walk_ns = WALK_NS.saturating_add(passed.saturating_mul(STEP_NS));
        if walk_ns < vectors.saturating_mul(COMPARE_NS) { Way::Walk } else { Way::Compare }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(vectors: u64, all: u64) -> Way {
        let sizes = Sizes::new();
        sizes.note(&[1; 32], vectors, 0);
        sizes.note_all(all);
        sizes.way(&[1; 32], 8, 1)
    }

    #[test]
    fn small_partitions_are_compared_and_large_ones_walked() {
        assert_eq!(way(0, 100_000), Way::Compare);
        assert_eq!(way(100, 100_000), Way::Compare);
        assert_eq!(way(10_000, 1_000_000), Way::Compare);
        assert_eq!(way(13_000, 13_000), Way::Walk);
        assert_eq!(way(100_000, 200_000), Way::Walk);
    }

    #[test]
    fn a_size_is_asked_for_first_and_again_after_a_while() {
        let sizes = Sizes::new();
        assert_eq!(sizes.way(&[1; 32], 8, 0), Way::Unknown);
        sizes.note(&[1; 32], 5, 1_000);
        assert_eq!(sizes.way(&[1; 32], 8, 1_000), Way::Compare);
        assert_eq!(sizes.way(&[1; 32], 8, 1_000 + BELIEVED_MS), Way::Unknown);
        sizes.switch_off();
        assert_eq!(sizes.way(&[1; 32], 8, 1_000 + BELIEVED_MS), Way::Any);
    }
}
