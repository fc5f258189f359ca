//! What shadow mode saw: an answer that might have been served, and whether the fresh one says the same.

use refrain_core::RouteId;

/// A request in shadow mode whose nearest candidate no veto forbids, with the answer that came.
#[derive(Clone, Debug, PartialEq)]
pub struct Shadowed {
    /// The route.
    pub route: RouteId,
    /// When, in ms since the Unix epoch.
    pub at_ms: u64,
    /// The key of the stored answer.
    pub key: [u8; 32],
    /// Digest of the question.
    pub question: u64,
    /// Cosine similarity of the questions.
    pub similarity: f32,
    /// The threshold in force: at or above it, the stored answer would have been served.
    pub threshold: f32,
    /// How alike the stored answer and the fresh one are, 0 to 1: shared words over all. 1 only if they say the same, but for
    /// case, white space and punctuation at the ends.
    pub answers_alike: f32,
}

impl Shadowed {
    /// Whether the stored answer would have been served.
    pub fn would_serve(&self) -> bool {
        self.similarity >= self.threshold
    }
}
