//! A miss, as it is remembered.

use std::hash::{DefaultHasher, Hasher as _};

use refrain_core::RouteId;

use super::MISS_PARTS_MAX;
use crate::anatomy::{Part, PartName};
use crate::decide::Refusal;

/// Why nothing stored was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MissReason {
    /// Nothing was stored for the request.
    NothingStored,
    /// What was stored was past its time.
    Expired,
    /// The client wanted none that is stored.
    Forbidden,
    /// A policy, or shadow mode, was against it.
    HeldBack,
}

/// A miss.
#[derive(Clone, Debug)]
pub struct NotedMiss {
    /// The route.
    pub route: RouteId,
    /// When, in ms since the Unix epoch.
    pub at_ms: u64,
    /// Why nothing stored was served.
    pub reason: MissReason,
    /// Why no similar question's answer was, where that was looked at.
    pub refusal: Option<Refusal>,
    /// Of the last message: misses are sampled by it, so that those of one question are remembered together.
    pub question: u64,
    /// The parts of its key by ascending digests; a bounded number.
    pub(super) parts: Box<[Part]>,
}

impl NotedMiss {
    /// One that has just happened.
    pub fn new(
        (route, at_ms): (RouteId, u64),
        (reason, refusal): (MissReason, Option<Refusal>),
        (question, parts): (u64, Vec<Part>),
    ) -> Self {
        let mut parts = bounded(parts);
        parts.sort_unstable_by_key(|part| part.digest);
        Self { route, at_ms, reason, refusal, question, parts: parts.into() }
    }
}

/// Of too many parts those in the middle become one: who asks what stands at the beginning, and the question at the end.
fn bounded(mut parts: Vec<Part>) -> Vec<Part> {
    if parts.len() <= MISS_PARTS_MAX {
        return parts;
    }
    let middle = MISS_PARTS_MAX / 2..parts.len() - (MISS_PARTS_MAX / 2 - 1);
    let mut hasher = DefaultHasher::new();
    parts[middle.clone()].iter().for_each(|part| hasher.write_u64(part.digest));
    let further = Part { name: PartName::Further, digest: hasher.finish() };
    parts.splice(middle, [further]);
    parts
}

#[cfg(test)]
mod tests {
    use refrain_llm::request::PieceName;

    use super::*;

    fn parts(lines: u32, question: u64) -> Vec<Part> {
        let line = |nth| Part { name: PartName::Body(PieceName::SystemLine(nth)), digest: u64::from(nth) };
        let question = Part { name: PartName::Body(PieceName::Question), digest: question };
        (1..=lines).map(line).chain([question]).collect()
    }

    #[test]
    fn of_very_many_parts_the_middle_is_one_and_the_question_stays() {
        for lines in [0, 1, 158, 159, 160, 1000] {
            let bounded = bounded(parts(lines, 7777));
            assert_eq!(bounded.len(), MISS_PARTS_MAX.min(lines as usize + 1), "{lines}");
            assert_eq!(bounded.last().unwrap().digest, 7777);
        }
        let other = |at: usize| {
            let mut parts = parts(1000, 1);
            parts[at].digest = 1 << 40;
            bounded(parts) != bounded(self::parts(1000, 1))
        };
        assert!([0, 1, 500, 999, 1000].into_iter().all(other), "whatever differs shows");
    }
}
