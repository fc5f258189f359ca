//! Time as one number, so that it fits an atomic and simulations can make their own.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since some moment before the process first asked.
pub(crate) fn nanos() -> u64 {
    // 584 years.
    EPOCH.elapsed().as_nanos() as u64
}

/// Milliseconds since some moment before the process first asked; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// Now.
    pub fn now() -> Self {
        Self(EPOCH.elapsed().as_millis() as u64 + 1)
    }

    /// So much later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span.as_millis().min(u128::from(u64::MAX)) as u64))
    }

    /// How long ago `earlier` was; zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
