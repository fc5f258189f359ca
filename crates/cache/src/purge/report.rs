//! What a purge came to, and how it is asked for.

use std::collections::BTreeMap;

use refrain_core::RouteId;

use crate::entry::Entry;

/// Whether a purge is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeMode {
    /// It only counts.
    DryRun,
    /// It takes effect.
    Real,
}

/// What a purge was about, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgeReport {
    /// Entries, each once wherever it is stored.
    pub matched: u64,
    /// Bytes of their records before compression.
    pub bytes: u64,
    /// Entries by the route that stored them.
    pub by_route: BTreeMap<RouteId, u64>,
}

impl PurgeReport {
    pub(crate) fn count(&mut self, entry: &Entry) {
        self.matched += 1;
        self.bytes += entry.record_bytes() as u64;
        *self.by_route.entry(entry.meta.route.clone()).or_default() += 1;
    }
}
