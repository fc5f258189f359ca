//! A miss, as it is remembered.

use refrain_core::RouteId;

use super::MISS_PARTS_MAX;
use crate::anatomy::Part;
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
    /// The parts of its key; a bounded number.
    pub(super) parts: Box<[Part]>,
    /// Their digests in ascending order.
    pub(super) digests: Box<[u64]>,
}

impl NotedMiss {
    /// One that has just happened.
    pub fn new(
        (route, at_ms): (RouteId, u64),
        (reason, refusal): (MissReason, Option<Refusal>),
        (question, mut parts): (u64, Vec<Part>),
    ) -> Self {
        parts.truncate(MISS_PARTS_MAX);
        let mut digests: Box<[u64]> = parts.iter().map(|part| part.digest).collect();
        digests.sort_unstable();
        Self { route, at_ms, reason, refusal, question, parts: parts.into(), digests }
    }
}
