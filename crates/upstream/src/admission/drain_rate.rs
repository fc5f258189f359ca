//! How fast a pool gets requests done, to tell those that are refused when to come back.

use std::time::Duration;

use crate::clock::Millis;

/// Least time between two samples.
const SAMPLE: Duration = Duration::from_millis(500);
/// Weight of a new sample.
const NEWEST: f64 = 0.5;
/// Bounds of what anybody is told.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Requests done a second, smoothed.
#[derive(Debug, Default)]
pub(crate) struct DrainRate {
    seen: Option<(Millis, u64)>,
    per_second: Option<f64>,
}

impl DrainRate {
    /// Notes how many requests were done in all.
    pub(crate) fn note(&mut self, now: Millis, done: u64) {
        let Some((then, before)) = self.seen else {
            self.seen = Some((now, done));
            return;
        };
        let span = now.since(then);
        if span < SAMPLE {
            return;
        }
        let sample = done.saturating_sub(before) as f64 / span.as_secs_f64();
        self.per_second = Some(self.per_second.map_or(sample, |rate| rate + NEWEST * (sample - rate)));
        self.seen = Some((now, done));
    }

    /// When there may be room, behind so many that wait.
    pub(crate) fn wait(&self, waiting: usize) -> Duration {
        match self.per_second {
            Some(rate) if rate > 0.0 => {
                let seconds = ((waiting + 1) as f64 / rate).ceil().min(WAIT_MAX.as_secs_f64());
                Duration::from_secs_f64(seconds).clamp(WAIT_MIN, WAIT_MAX)
            }
            Some(_) => WAIT_MAX / 6,
            None => WAIT_MIN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_follows_from_what_was_done_lately() {
        let mut rate = DrainRate::default();
        assert_eq!(rate.wait(10), WAIT_MIN);
        rate.note(Millis(1_000), 100);
        rate.note(Millis(3_000), 110);
        assert_eq!(rate.wait(9), Duration::from_secs(2));
        assert_eq!(rate.wait(0), WAIT_MIN);
        assert_eq!(rate.wait(100_000), WAIT_MAX);
    }
}
