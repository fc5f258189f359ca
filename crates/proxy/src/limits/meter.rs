//! The arithmetic of one count: how much is taken, how it comes back, and how long that lasts. Whole numbers throughout, so
//! that nothing is lost or made up by rounding, however often it is asked.
//!
//! A minute's limit is a bucket that drains steadily: one unit is 60,000 grains, and each millisecond `limit` grains drain
//! (GCRA by another name). A day's limit drains `limit` units at midnight UTC. Both may be overdrawn, since answers are
//! counted when they have ended: what is overdrawn drains first.

use std::time::Duration;

use refrain_core::settings::{Rate, Window};

/// Grains of a unit, of a minute's limit: milliseconds of a minute.
const MINUTE_GRAINS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A rate as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Grains that drain each tick.
    pub(crate) limit: i64,
    /// Grains that fit.
    pub(crate) capacity: i64,
    /// Grains of a unit.
    pub(crate) grain: i64,
    /// Length of a tick; ticks are counted from 1970 on.
    pub(crate) tick_ms: i64,
}

/// How much is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meter {
    /// Grains taken and not yet drained; above the capacity: overdrawn.
    level: i64,
    /// When that was so.
    tick: i64,
}

/// What is left, for the response's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Units that may be taken now.
    pub(crate) left: u64,
    /// Until all is drained.
    pub(crate) reset: Duration,
}

impl Pace {
    /// Of a rate in config.
    pub(crate) fn of(rate: &Rate) -> Self {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (grain, tick_ms) = match rate.window {
            Window::Minute => (MINUTE_GRAINS, 1),
            Window::Day => (1, DAY_MS),
        };
        Self { limit: number(rate.limit), capacity: number(rate.burst).saturating_mul(grain), grain, tick_ms }
    }

    /// The most that can be taken at once.
    pub(crate) fn units_max(self) -> u64 {
        u64::try_from(self.capacity / self.grain).unwrap_or_default()
    }

    /// So many units, in grains.
    fn grains(self, units: i64) -> i64 {
        units.saturating_mul(self.grain)
    }

    fn tick(self, now_ms: u64) -> i64 {
        i64::try_from(now_ms).unwrap_or(i64::MAX) / self.tick_ms
    }

    /// Until so many grains have drained.
    fn drains(self, grains: i64, now_ms: u64) -> Duration {
        if grains <= 0 {
            return Duration::ZERO;
        }
        let ticks = grains.saturating_add(self.limit - 1) / self.limit;
        let at_ms = self.tick(now_ms).saturating_add(ticks).saturating_mul(self.tick_ms);
        Duration::from_millis(u64::try_from(at_ms).unwrap_or_default().saturating_sub(now_ms))
    }
}

impl Meter {
    /// With this level now.
    pub(crate) fn at(level: i64, pace: Pace, now_ms: u64) -> Self {
        Self { level, tick: pace.tick(now_ms) }
    }

    /// What is left of it by now. Time that goes back is no time.
    pub(crate) fn drain(&mut self, pace: Pace, now_ms: u64) {
        let now = pace.tick(now_ms);
        let ticks = now.saturating_sub(self.tick).max(0);
        self.level = self.level.saturating_sub(ticks.saturating_mul(pace.limit)).max(0);
        self.tick = self.tick.max(now);
    }

    /// How long so many units have to wait; none: they may be taken now. No units need room for at least something, so that
    /// who has overdrawn waits. Drain it first.
    pub(crate) fn wait(&self, pace: Pace, units: u64, now_ms: u64) -> Option<Duration> {
        let asked = pace.grains(i64::try_from(units).unwrap_or(i64::MAX)).max(1);
        let lack = self.level.saturating_add(asked).saturating_sub(pace.capacity);
        (lack > 0).then(|| pace.drains(lack, now_ms))
    }

    /// Takes units, or gives some back: without a question.
    pub(crate) fn add(&mut self, pace: Pace, units: i64) {
        self.level = self.level.saturating_add(pace.grains(units)).max(0);
    }

    /// What is left now. Drain it first.
    pub(crate) fn reading(&self, pace: Pace, now_ms: u64) -> Reading {
        let left = (pace.capacity.saturating_sub(self.level)).max(0) / pace.grain;
        Reading { left: u64::try_from(left).unwrap_or_default(), reset: pace.drains(self.level, now_ms) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use refrain_core::settings::Measure;

    use super::*;

    fn rate(window: Window, limit: u64, burst: u64) -> Pace {
        Pace::of(&Rate { measure: Measure::Requests, window, limit, burst })
    }

    fn take(meter: &mut Meter, pace: Pace, units: u64, now_ms: u64) -> bool {
        meter.drain(pace, now_ms);
        let is_free = meter.wait(pace, units, now_ms).is_none();
        if is_free {
            meter.add(pace, i64::try_from(units).unwrap());
        }
        is_free
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_than_burst_and_rate(
            limit in 1_u64..5_000_000,
            burst in 1_u64..5_000,
            asks in proptest::collection::vec((0_u64..3_000, 0_u64..200), 1..200),
        ) {
            let pace = rate(Window::Minute, limit, burst);
            let (mut meter, mut now_ms) = (Meter::default(), 1_700_000_000_000);
            let mut taken = Vec::new();
            for (pause, units) in asks {
                now_ms += pause;
                if take(&mut meter, pace, units, now_ms) {
                    taken.push((now_ms, u128::from(units)));
                }
            }
            for (at, (from, _)) in taken.iter().enumerate() {
                let mut sum = 0;
                for (to, units) in &taken[at..] {
                    sum += units * 60_000;
                    prop_assert!(sum <= u128::from(burst) * 60_000 + u128::from(limit) * u128::from(to - from));
                }
            }
        }

        #[test]
        fn whoever_waits_as_told_gets_it_and_no_earlier(
            limit in 1_u64..10_000_000,
            burst in 1_u64..1_000,
            debt in 0_i64..100_000,
            units in 0_u64..1_000,
            day in any::<bool>(),
        ) {
            let window = if day { Window::Day } else { Window::Minute };
            let pace = rate(window, limit.max(if day { burst } else { 1 }), if day { limit.max(burst) } else { burst });
            prop_assume!(units <= pace.units_max());
            let now_ms = 1_700_000_000_123;
            let mut meter = Meter::default();
            meter.drain(pace, now_ms);
            meter.add(pace, debt);
            if let Some(wait) = meter.wait(pace, units, now_ms) {
                let then = now_ms + u64::try_from(wait.as_millis()).unwrap();
                let mut early = meter;
                prop_assert!(!take(&mut early, pace, units, then - 1));
                prop_assert!(take(&mut meter, pace, units, then));
            }
        }

        #[test]
        fn a_client_that_always_asks_gets_all_that_comes_back(limit in 1_u64..5_000, step in 1_u64..50) {
            let pace = rate(Window::Minute, limit, limit);
            let (mut meter, start) = (Meter::default(), 1_700_000_000_000);
            let (mut got, mut now_ms) = (0_u64, start);
            while now_ms < start + 60_000 {
                while take(&mut meter, pace, 1, now_ms) {
                    got += 1;
                }
                now_ms += step;
            }
            let last = now_ms - step;
            prop_assert_eq!(got, limit + limit * (last - start) / 60_000);
        }

        #[test]
        fn what_is_given_back_is_there_again(limit in 1_u64..1_000_000, taken in 1_i64..1_000, back in 1_i64..1_000) {
            let pace = rate(Window::Minute, limit, 1_000_000);
            let mut meter = Meter::default();
            meter.drain(pace, 1_000);
            meter.add(pace, taken);
            meter.add(pace, -back.min(taken));
            prop_assert_eq!(meter.reading(pace, 1_000).left, 1_000_000 - u64::try_from(taken - back.min(taken)).unwrap());
        }
    }

    #[test]
    fn a_day_begins_at_midnight_utc_and_pays_what_was_overdrawn() {
        let pace = rate(Window::Day, 100, 100);
        let noon = 1_700_000_000_000 / 86_400_000 * 86_400_000 + 43_200_000;
        let mut meter = Meter::default();
        meter.drain(pace, noon);
        meter.add(pace, 250);
        assert_eq!(meter.wait(pace, 1, noon), Some(Duration::from_secs(86_400 + 43_200)));
        meter.drain(pace, noon + 43_200_000);
        assert_eq!(meter.reading(pace, noon + 43_200_000).left, 0);
        meter.drain(pace, noon + 43_200_000 + 86_400_000);
        assert_eq!(meter.reading(pace, noon + 43_200_000 + 86_400_000).left, 50);
    }

    #[test]
    fn a_clock_that_goes_back_gives_and_takes_nothing() {
        let pace = rate(Window::Minute, 60, 60);
        let mut meter = Meter::default();
        meter.drain(pace, 2_000_000);
        meter.add(pace, 60);
        meter.drain(pace, 1_000_000);
        assert_eq!(meter.reading(pace, 2_000_000).left, 0);
        meter.drain(pace, 2_001_000);
        assert_eq!(meter.reading(pace, 2_001_000).left, 1);
    }
}
