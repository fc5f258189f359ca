//! The policies of a route, as one: each is asked in its order, and what they say is merged.

use std::sync::Arc;

use refrain_core::Plan;

use crate::verdict::{Contexts, Decision, Failed, Labels, Outcome, Verdict};
use crate::view::{CandidatesView, RequestView, ResponseView};

/// The policies of a route, as one. Cheap to share; dropped with the snapshot that holds it.
#[derive(Debug)]
pub struct Chain {
    identity: [u8; 32],
}

impl Chain {
    /// Digest of the components and their configs, in order: part of every key of the route.
    pub fn identity(&self) -> &[u8; 32] {
        &self.identity
    }

    /// Whether any policy wants to see candidates.
    pub fn validates(&self) -> bool {
        false
    }

    /// Whether any policy wants to see answers before they are stored.
    pub fn judges(&self) -> bool {
        false
    }

    /// What is to be done with a request. Every policy is asked, unless one refuses.
    ///
    /// # Errors
    /// [`Failed`] where a policy failed and may not be passed over, or where two contradict each other.
    ///
    /// # Cancel safety
    /// Safe: the instance that was at work is thrown away.
    pub async fn on_request(&self, _request: &Arc<dyn RequestView>) -> Result<Decision, Failed> {
        std::future::pending().await
    }

    /// Which of the candidates is served. `contexts` is what [`Chain::on_request`] planned. The first policy with the hook
    /// sees all of them, each next one only the accepted one. A policy that fails accepts none.
    ///
    /// # Cancel safety
    /// Safe, as [`Chain::on_request`].
    pub async fn on_candidates(
        &self,
        _request: &Arc<dyn RequestView>,
        _contexts: &Contexts,
        _candidates: &Arc<dyn CandidatesView>,
    ) -> Verdict {
        std::future::pending().await
    }

    /// How a finished answer is stored; never for longer or for more callers than `plan` says.
    ///
    /// # Cancel safety
    /// Safe, as [`Chain::on_request`].
    pub async fn on_response(
        &self,
        _request: &Arc<dyn RequestView>,
        _contexts: &Contexts,
        _plan: &Plan,
        _response: &Arc<dyn ResponseView>,
    ) -> Outcome {
        std::future::pending().await
    }

    /// Counts a request's outcome ("hit", "miss", ...) by those of its labels whose values its policies declared.
    pub fn count(&self, _labels: &Labels, _outcome: &'static str) {}
}
