//! Places in the order of purges.

use std::fmt;
use std::str::FromStr;

use crate::key::CacheKey;

/// A place in the order of purges, written as `ms-seq` (as Redis writes the ids of a stream).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// About when, in ms since the Unix epoch.
    pub ms: u64,
    /// Tells purges of one millisecond apart.
    pub seq: u64,
}

/// A text that is no epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a place in the order of purges; write it as ms-seq, two whole numbers")]
pub struct EpochError;

impl Epoch {
    /// Before any purge.
    pub const ZERO: Self = Self { ms: 0, seq: 0 };

    /// A later one, of now unless the clock went back.
    #[must_use]
    pub fn next(self, now_ms: u64) -> Self {
        if now_ms > self.ms { Self { ms: now_ms, seq: 0 } } else { self.successor() }
    }

    /// Names the flight of an answer that is begun after this purge and before the next: who asks after a purge never joins
    /// a generation from before it. Keys are keyed digests, so no two names are the same by the asker's choice.
    pub fn flight(self, key: &CacheKey) -> [u8; 32] {
        let mut name = key.key;
        let numbers = self.ms.to_le_bytes().into_iter().chain(self.seq.to_le_bytes());
        name.iter_mut().zip(numbers).for_each(|(byte, number)| *byte ^= number);
        name
    }

    fn successor(self) -> Self {
        match self.seq.checked_add(1) {
            Some(seq) => Self { ms: self.ms, seq },
            None => Self { ms: self.ms.saturating_add(1), seq: 0 },
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ms, seq } = self;
        write!(f, "{ms}-{seq}")
    }
}

impl FromStr for Epoch {
    type Err = EpochError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ms, seq) = text.split_once('-').ok_or(EpochError)?;
        let number = |digits: &str| {
            let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
            is_number.then(|| digits.parse().ok()).flatten().ok_or(EpochError)
        };
        Ok(Self { ms: number(ms)?, seq: number(seq)? })
    }
}
