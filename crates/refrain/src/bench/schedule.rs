//! When the requests of an open loop are due.

use std::time::Duration;

use tokio::time::Instant;

use super::random::Random;

/// When requests come.
pub(crate) enum Schedule {
    /// As the workload recorded them.
    Recorded,
    /// At equal distances.
    Constant(Duration),
    /// At random distances of this mean.
    Poisson(Duration, Random),
}

impl Schedule {
    /// When the next request is due, from the beginning and the one before.
    pub(super) fn next(&mut self, start: Instant, last: Instant, recorded: Option<Duration>) -> Instant {
        match self {
            // A line without a time comes with the one before.
            Self::Recorded => recorded.map_or(last, |at| start + at),
            Self::Constant(distance) => last + *distance,
            Self::Poisson(mean, random) => last + mean.mul_f64(-random.unit().ln()),
        }
    }
}

impl std::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Recorded => "Recorded",
            Self::Constant(_) => "Constant",
            Self::Poisson(..) => "Poisson",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisson_arrivals_have_their_mean_and_their_spread() {
        let start = Instant::now();
        let mut schedule = Schedule::Poisson(Duration::from_millis(10), Random::new(1, "arrivals", 0));
        let mut last = start;
        let mut distances = Vec::new();
        for _ in 0..20_000 {
            let next = schedule.next(start, last, None);
            distances.push(next.duration_since(last).as_secs_f64() * 1000.0);
            last = next;
        }
        let mean = distances.iter().sum::<f64>() / 20_000.0;
        let variance = distances.iter().map(|distance| (distance - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!((mean - 10.0).abs() < 0.3, "{mean}");
        assert!((variance.sqrt() - 10.0).abs() < 0.5, "{variance}");
    }
}
