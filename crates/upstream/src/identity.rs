//! What stands behind a model name: part of every cache key.
//!
//! For Ollama the digests of `GET /api/tags`, as [`crate::watch`] reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tracing::warn;

use crate::PoolState;
use crate::endpoint::EndpointState;

/// Whether a pool's endpoints were seen to disagree: logged once a pool.
#[derive(Debug, Default)]
pub(crate) struct Disagreement(AtomicBool);

/// The digest at one endpoint, as last seen.
pub(crate) fn at(endpoint: &EndpointState, model: &str) -> Option<Arc<str>> {
    endpoint.models.load().as_ref()?.digest(model).cloned()
}

/// The digest that all endpoints which hold the model agree on.
///
/// An endpoint that never told its models does not count: it would switch the cache off for as long as it is down.
pub(crate) fn agreed(pool: &PoolState, model: &str) -> Option<Arc<str>> {
    let members = pool.endpoints();
    let mut held = members.iter().filter_map(|endpoint| at(endpoint, model));
    let first = held.next()?;
    let agree = held.all(|other| other == first);
    pool.disagreement.note(pool, agree);
    agree.then_some(first)
}

impl Disagreement {
    fn note(&self, pool: &PoolState, agree: bool) {
        if !agree && !self.0.swap(true, Relaxed) {
            warn!(pool = %pool.id(), "endpoints hold different builds of a model: it is not cached until they agree");
        }
    }
}
