//! What is remembered of requests so that operators can ask why: misses with the parts of their keys, who was served which
//! answer, what shadow mode saw. Digests, names of callers and numbers; never a word of a request or an answer.
//!
//! All of it is in memory, bounded, and gone with the process.

use std::hash::{BuildHasher as _, RandomState};

use crate::anatomy::{Part, PartName};

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

/// Which questions' misses are noted changes so often: in time, every question is among them.
const SAMPLE_PERIOD_MS: u64 = 60 * 60 * 1000;

/// What is remembered.
#[derive(Debug)]
pub struct Insight {
    /// Makes digests that never leave the process: several times as fast as those that may be shown.
    hasher: RandomState,
    /// Sampled misses.
    pub misses: Ring<NotedMiss>,
    /// Answers that were stored, or served to others than who asked first.
    pub servings: Ring<Serving>,
    /// What shadow mode would have served, and what came instead.
    pub shadowed: Ring<Shadowed>,
}

impl Default for Insight {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            misses: Ring::new(MISSES_MAX),
            servings: Ring::new(SERVINGS_MAX),
            shadowed: Ring::new(SHADOWED_MAX),
        }
    }
}

impl Insight {
    /// A part of a key, to be compared with others of this process. Of name and content: equal contents of two parts don't show.
    pub fn part(&self, name: PartName, text: &[u8]) -> Part {
        let digest = self.hasher.hash_one((&name, text));
        Part { name, digest }
    }

    /// What stands for a question in this process.
    pub fn question(&self, text: &[u8]) -> u64 {
        self.hasher.hash_one(text)
    }

    /// Whether a question's misses are noted now, where this share of all questions is: the same questions for a while, then
    /// others.
    pub fn samples(&self, question: u64, share: f32, now_ms: u64) -> bool {
        let drawn = self.hasher.hash_one((question, now_ms / SAMPLE_PERIOD_MS));
        share > 0.0 && drawn as f64 <= f64::from(share) * u64::MAX as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_takes_its_part_of_the_questions_and_the_same_ones_again() {
        let insight = Insight::default();
        let taken = |share, at_ms| {
            (0..10_000).filter(|nth| insight.samples(*nth, share, at_ms)).collect::<Vec<u64>>()
        };
        assert_eq!((taken(1.0, 7).len(), taken(0.0, 7).len()), (10_000, 0));
        let tenth = taken(0.1, 7);
        assert!((850..1150).contains(&tenth.len()), "{}", tenth.len());
        assert_eq!(tenth, taken(0.1, SAMPLE_PERIOD_MS - 1));
    }

    #[test]
    fn every_question_is_of_the_sample_in_time() {
        let insight = Insight::default();
        let hours = |question| {
            (0..200).filter(|hour| insight.samples(question, 0.1, hour * SAMPLE_PERIOD_MS)).count()
        };
        assert!((0..100).all(|question| (1..60).contains(&hours(question))));
    }

    #[test]
    fn digests_tell_names_and_contents_apart() {
        let insight = Insight::default();
        let digest = |name, text: &str| insight.part(name, text.as_bytes()).digest;
        assert_eq!(digest(PartName::Model, "m"), digest(PartName::Model, "m"));
        assert_ne!(digest(PartName::Model, "m"), digest(PartName::Pool, "m"));
        assert_ne!(digest(PartName::Model, "m"), digest(PartName::Model, "n"));
    }
}
