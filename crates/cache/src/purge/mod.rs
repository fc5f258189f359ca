//! Purges: which stored answers shall be gone or count as expired, and in which order that was said.
//!
//! A purge takes effect at once by being in the list of [`Bans`], whatever a store's sweep has still to remove; and an answer
//! whose generation began before a purge is held against it for good. Removes nothing itself: stores do.

mod bans;
mod epoch;
mod job;
mod report;
mod select;

use crate::fields::{Fields, FieldsMut};

pub use bans::{BANS_MAX, Bans, Verdict};
pub use epoch::{Epoch, EpochError};
pub(crate) use job::{Fate, Job, Jobs, fate};
pub use report::{PurgeMode, PurgeReport};
pub use select::{Conditions, SELECT_NAME_BYTES_MAX, Select, SelectError};

/// Version of the encoding.
const VERSION: u64 = 1;

/// One purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// What it is about.
    pub select: Select,
    /// What becomes of it.
    pub how: PurgeHow,
    /// When it was said, in ms since the Unix epoch.
    pub at_ms: u64,
}

/// What becomes of purged entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeHow {
    /// They count as expired from the purge on; their stale windows end when they would have.
    Soft,
    /// They are gone.
    Hard,
}

/// Why bytes are no purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurgeDecodeError {
    /// Another version wrote it.
    #[error("a purge of another version; run the same version of refrain everywhere")]
    Version,
    /// Not what any version writes.
    #[error("not a purge")]
    Malformed,
}

impl PurgeHow {
    /// Every way.
    pub const ALL: [Self; 2] = [Self::Soft, Self::Hard];

    /// The word in answers, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Soft => "soft",
            Self::Hard => "hard",
        }
    }
}

impl Purge {
    /// As bytes, a few KiB at most.
    pub fn encode(&self) -> Vec<u8> {
        let Self { select, how, at_ms } = self;
        let mut fields = FieldsMut::with_capacity(256);
        fields.number(VERSION);
        fields.number(match how {
            PurgeHow::Soft => 0,
            PurgeHow::Hard => 1,
        });
        fields.number(*at_ms);
        select.write(&mut fields);
        fields.into_bytes()
    }

    /// Reads what [`Purge::encode`] wrote. Any bytes may be given.
    ///
    /// # Errors
    /// See [`PurgeDecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PurgeDecodeError> {
        let mut fields = Fields::new(bytes);
        if fields.number().ok_or(PurgeDecodeError::Malformed)? != VERSION {
            return Err(PurgeDecodeError::Version);
        }
        Self::read(fields).ok_or(PurgeDecodeError::Malformed)
    }

    fn read(mut fields: Fields<'_>) -> Option<Self> {
        let how = match fields.number()? {
            0 => PurgeHow::Soft,
            1 => PurgeHow::Hard,
            _ => return None,
        };
        let at_ms = fields.number()?;
        let select = Select::read(&mut fields)?;
        fields.end()?;
        Some(Self { select, how, at_ms })
    }
}

#[cfg(test)]
pub(crate) mod tests;
