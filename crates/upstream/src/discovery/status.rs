//! How the sources do, for people and metrics, and what they found.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use refrain_core::settings::Discovery;
use refrain_core::{EndpointId, PoolId};
use tokio::sync::watch;

use super::DiscoveryError;
use super::guard::MembershipGuard;
use super::listing::Listed;

/// Every source that runs. One for all reloads; written by [`super::keep_members`], read by anybody.
#[derive(Debug)]
pub struct Discoveries {
    records: Mutex<Vec<Arc<SourceRecord>>>,
    /// Whether every source was looked at once, and the pools know what it said.
    settled: watch::Sender<bool>,
}

/// How one source does.
#[derive(Clone, Debug)]
pub struct SourceStatus {
    /// Whose endpoints it finds.
    pub pool: PoolId,
    /// Its name in config.
    pub source: String,
    /// Its kind: `dns`, `srv`, `file`, `kubernetes`, `vast` or `runpod`.
    pub kind: &'static str,
    /// Endpoints that it stands for.
    pub members: usize,
    /// Those of them that it does not list any more, kept for now.
    pub held_back: usize,
    /// Items of its last list that should be endpoints and can't be used.
    pub unusable: usize,
    /// Looks so far that went well.
    pub successes: u64,
    /// Looks so far that failed.
    pub failures: u64,
    /// When a look last went well.
    pub last_success: Option<SystemTime>,
    /// Why the last look failed; none: it went well, or there was none.
    pub last_error: Option<DiscoveryError>,
}

/// One source as it runs.
#[derive(Debug)]
pub(super) struct SourceRecord {
    pub(super) pool: PoolId,
    pub(super) discovery: Arc<Discovery>,
    state: Mutex<State>,
}

/// What a look brought.
#[derive(Debug)]
pub(super) struct News {
    pub(super) added: Vec<EndpointId>,
    pub(super) removed: Vec<EndpointId>,
    /// The look before failed.
    pub(super) recovered: bool,
    /// There are items that can't be used, and were none before.
    pub(super) newly_unusable: bool,
    /// Members are kept that are not listed, and none were before.
    pub(super) newly_held_back: bool,
}

#[derive(Debug, Default)]
struct State {
    members: Vec<Listed>,
    held_back: usize,
    unusable: usize,
    successes: u64,
    failures: u64,
    last_success: Option<SystemTime>,
    last_error: Option<DiscoveryError>,
}

impl Default for Discoveries {
    fn default() -> Self {
        Self { records: Mutex::default(), settled: watch::Sender::new(false) }
    }
}

impl Discoveries {
    /// How every source does, by pool and in the order of config.
    pub fn statuses(&self) -> Vec<SourceStatus> {
        self.records.lock().iter().map(|record| record.status()).collect()
    }

    /// What the sources of a pool found, with price and age where they tell them.
    pub fn found(&self, pool: &PoolId) -> Vec<Listed> {
        let records = self.records.lock();
        records.iter().filter(|record| record.pool == *pool).flat_map(|record| record.members()).collect()
    }

    /// Waits until every source was looked at once, with or without success, and its pool knows.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn settled(&self) {
        // The sender is in `self`: it can't be gone.
        let _ = self.settled.subscribe().wait_for(|settled| *settled).await;
    }

    pub(super) fn set(&self, records: Vec<Arc<SourceRecord>>) {
        *self.records.lock() = records;
    }

    pub(super) fn note_settled(&self) {
        let is_settled = self.records.lock().iter().all(|record| record.was_looked_at());
        self.settled.send_if_modified(|settled| std::mem::replace(settled, is_settled) != is_settled);
    }
}

impl SourceRecord {
    /// Before the first look, with members that it stands for until then.
    pub(super) fn new(pool: &PoolId, discovery: &Arc<Discovery>, members: Vec<Listed>) -> Arc<Self> {
        let state = Mutex::new(State { members, ..State::default() });
        Arc::new(Self { pool: pool.clone(), discovery: discovery.clone(), state })
    }

    pub(super) fn members(&self) -> Vec<Listed> {
        self.state.lock().members.clone()
    }

    fn was_looked_at(&self) -> bool {
        let state = self.state.lock();
        state.successes + state.failures > 0
    }

    /// Notes a look that went well, and what is new by it.
    pub(super) fn note_success(&self, guard: &MembershipGuard, unusable: usize) -> News {
        let mut state = self.state.lock();
        let members = guard.members();
        let news = News {
            added: missing_in(&members, &state.members),
            removed: missing_in(&state.members, &members),
            recovered: state.last_error.take().is_some(),
            newly_unusable: unusable > 0 && state.unusable == 0,
            newly_held_back: guard.held_back() > 0 && state.held_back == 0,
        };
        state.members = members;
        state.held_back = guard.held_back();
        state.unusable = unusable;
        state.successes += 1;
        state.last_success = Some(SystemTime::now());
        news
    }

    /// Notes a look that failed; true if the one before did not.
    pub(super) fn note_failure(&self, error: DiscoveryError) -> bool {
        let mut state = self.state.lock();
        state.failures += 1;
        state.last_error.replace(error).is_none()
    }

    fn status(&self) -> SourceStatus {
        let state = self.state.lock();
        SourceStatus {
            pool: self.pool.clone(),
            source: self.discovery.name.clone(),
            kind: self.discovery.source.kind(),
            members: state.members.len(),
            held_back: state.held_back,
            unusable: state.unusable,
            successes: state.successes,
            failures: state.failures,
            last_success: state.last_success,
            last_error: state.last_error.clone(),
        }
    }
}

/// Ids of the first that are not in the second.
fn missing_in(these: &[Listed], others: &[Listed]) -> Vec<EndpointId> {
    let known: BTreeSet<&EndpointId> = others.iter().map(|listed| &listed.endpoint.id).collect();
    let ids = these.iter().map(|listed| &listed.endpoint.id);
    ids.filter(|id| !known.contains(id)).cloned().collect()
}
