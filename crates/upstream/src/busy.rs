//! Whose an endpoint's time is.
//!
//! At each moment the requests that an endpoint answers side by side share it evenly. So a request that had it alone for a
//! second took a second of it, and one of ten took a tenth, and what all requests took is what the endpoint was busy.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// An endpoint's time, and how it was shared. All in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct BusyTime {
    /// When requests last came or went.
    changed: AtomicU64,
    /// What one request would have taken that had been there all the time.
    share: AtomicU64,
    /// While there was any request.
    busy: AtomicU64,
}

/// What one request's share is counted from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began {
    at: u64,
    share: u64,
}

/// What one request took of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Its share of the endpoint's time.
    pub(crate) busy: Duration,
    /// From beginning to end.
    pub(crate) elapsed: Duration,
}

impl BusyTime {
    /// A request comes to `others`, at this moment.
    pub(crate) fn begin(&self, now: u64, others: u32) {
        self.advance(now, others);
    }

    /// A request goes; with it there were so many.
    pub(crate) fn end(&self, now: u64, in_flight: u32) {
        self.advance(now, in_flight);
    }

    /// What a request's share is counted from that has just come.
    pub(crate) fn reading(&self, now: u64) -> Began {
        Began { at: now, share: self.share.load(Relaxed) }
    }

    /// What a request took that has just gone.
    pub(crate) fn taken(&self, began: Began, now: u64) -> Taken {
        let share = self.share.load(Relaxed).saturating_sub(began.share);
        let elapsed = now.saturating_sub(began.at);
        // Others may come and go between two of these additions, and be counted a moment late: never more than all of it.
        Taken { busy: Duration::from_nanos(share.min(elapsed)), elapsed: Duration::from_nanos(elapsed) }
    }

    /// How long it had any request, up to the last that came or went.
    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy.load(Relaxed))
    }

    /// Each moment is counted by one caller alone: whoever moves `changed` over it.
    fn advance(&self, now: u64, in_flight: u32) {
        let passed = now.saturating_sub(self.changed.fetch_max(now, Relaxed));
        if in_flight > 0 && passed > 0 {
            self.busy.fetch_add(passed, Relaxed);
            self.share.fetch_add(passed / u64::from(in_flight), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn begin(time: &BusyTime, now: u64, others: u32) -> Began {
        time.begin(now, others);
        time.reading(now)
    }

    fn end(time: &BusyTime, began: Began, now: u64, in_flight: u32) -> Taken {
        time.end(now, in_flight);
        time.taken(began, now)
    }

    #[test]
    fn cost_of_two_that_overlap_is_shared_where_they_do() {
        let time = BusyTime::default();
        let first = begin(&time, 10 * SECOND, 0);
        let second = begin(&time, 12 * SECOND, 1);
        let second = end(&time, second, 16 * SECOND, 2);
        let first = end(&time, first, 17 * SECOND, 1);
        assert_eq!((first.busy.as_secs(), first.elapsed.as_secs()), (5, 7));
        assert_eq!((second.busy.as_secs(), second.elapsed.as_secs()), (2, 4));
        assert_eq!(time.busy().as_secs(), 7);
    }

    #[test]
    fn cost_is_nothing_while_nobody_is_there() {
        let time = BusyTime::default();
        let alone = begin(&time, SECOND, 0);
        end(&time, alone, 2 * SECOND, 1);
        let later = begin(&time, 100 * SECOND, 0);
        assert_eq!(end(&time, later, 101 * SECOND, 1).busy.as_secs(), 1);
        assert_eq!(time.busy().as_secs(), 2);
    }

    proptest! {
        /// Whatever comes and goes in whatever order, the shares are all of the time, and no more.
        #[test]
        fn cost_shares_add_up_to_the_time(
            steps in proptest::collection::vec((0_u64..5_000_000, any::<bool>(), any::<prop::sample::Index>()), 1..200)
        ) {
            let (time, mut now, mut there, mut taken) = (BusyTime::default(), 1, Vec::new(), Duration::ZERO);
            for (passed, comes, which) in steps {
                now += passed;
                if comes || there.is_empty() {
                    let others = u32::try_from(there.len()).unwrap();
                    there.push(begin(&time, now, others));
                } else {
                    let in_flight = u32::try_from(there.len()).unwrap();
                    let began = there.swap_remove(which.index(there.len()));
                    taken += end(&time, began, now, in_flight).busy;
                }
            }
            for in_flight in (1..=u32::try_from(there.len()).unwrap()).rev() {
                taken += end(&time, there.pop().unwrap(), now, in_flight).busy;
            }
            let lost = time.busy().saturating_sub(taken);
            prop_assert!(taken <= time.busy() && lost < Duration::from_micros(40), "{lost:?} of {:?}", time.busy());
        }
    }
}
