//! Why a connection or a stream of it was ended, or not begun, for its client's manners: one counter.

use metrics::counter;

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its address has too many.
    Address,
    /// It took nothing of what waited for it.
    SlowReader,
    /// It sent too many HTTP/2 frames that ask for nothing.
    FrameFlood,
    /// It was long without a request (HTTP/2).
    Idle,
}

impl Ended {
    const ALL: [Self; 4] = [Self::Address, Self::SlowReader, Self::FrameFlood, Self::Idle];

    fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::SlowReader => "slow_reader",
            Self::FrameFlood => "frame_flood",
            Self::Idle => "idle",
        }
    }
}

/// Makes all reasons visible at zero.
pub(crate) fn register() {
    Ended::ALL.into_iter().for_each(|reason| counter(reason).increment(0));
}

/// Counts one.
pub(crate) fn count(reason: Ended) {
    counter(reason).increment(1);
}

fn counter(reason: Ended) -> metrics::Counter {
    counter!("refrain_connections_ended_total", "reason" => reason.as_str())
}
