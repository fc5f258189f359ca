//! At most so many things a second, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// At most `per_second` in each second since it was made.
#[derive(Debug)]
pub(crate) struct Quota {
    per_second: u32,
    since: Instant,
    /// The second in the upper half, how many it had in the lower.
    window: AtomicU64,
}

impl Quota {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, since: Instant::now(), window: AtomicU64::new(0) }
    }

    /// Takes one, if there is one left.
    pub(crate) fn take(&self) -> bool {
        self.take_at(self.since.elapsed().as_secs())
    }

    fn take_at(&self, second: u64) -> bool {
        let next = |window: u64| {
            let used = if window >> 32 == second { window & u64::from(u32::MAX) } else { 0 };
            (used < u64::from(self.per_second)).then_some((second << 32) | (used + 1))
        };
        self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_own() {
        let quota = Quota::new(2);
        let taken: Vec<_> = [7, 7, 7, 8, 8, 8].into_iter().map(|second| quota.take_at(second)).collect();
        assert_eq!(taken, [true, true, false, true, true, false]);
    }
}
