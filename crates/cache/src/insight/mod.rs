//! What is remembered of requests so that operators can ask why: misses with the parts of their keys, who was served which
//! answer, what shadow mode saw. Digests, names of callers and numbers; never a word of a request or an answer.
//!
//! All of it is in memory, bounded, and gone with the process.

mod attribution;
mod miss;
mod ring;
mod serving;
mod shadow;

pub use attribution::{Attribution, Cause, CauseKind, attribute, differing};
pub use miss::{MissReason, NotedMiss};
pub use ring::Ring;
pub use serving::{ServedAs, Serving};
pub use shadow::Shadowed;

/// Misses that are remembered.
pub const MISSES_MAX: usize = 4096;
/// Parts of a miss's key that are remembered.
pub(crate) const MISS_PARTS_MAX: usize = 160;
/// Answers served that are remembered.
pub const SERVINGS_MAX: usize = 16_384;
/// Requests in shadow mode that are remembered.
pub const SHADOWED_MAX: usize = 16_384;

/// What is remembered.
#[derive(Debug)]
pub struct Insight {
    /// Sampled misses.
    pub misses: Ring<NotedMiss>,
    /// Answers served to others than who asked first, and those stored.
    pub servings: Ring<Serving>,
    /// What shadow mode would have served, and what came instead.
    pub shadowed: Ring<Shadowed>,
}

impl Default for Insight {
    fn default() -> Self {
        Self {
            misses: Ring::new(MISSES_MAX),
            servings: Ring::new(SERVINGS_MAX),
            shadowed: Ring::new(SHADOWED_MAX),
        }
    }
}
