//! A directory that another process has still: the version before, which serves its last requests.
//!
//! The store begins in memory. As soon as the other process lets go, the files are taken over, and what was stored meanwhile
//! goes to them; if the other one purged something meanwhile, it is forgotten instead.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::rebuild;
use super::tables::{IndexKey, Tables};
use crate::error::StoreError;
use crate::secret::KeySecret;
use crate::shared::Shared;

/// What is waited for.
pub(super) struct Waiting {
    pub(super) dir: PathBuf,
    pub(super) bytes_max: u64,
    pub(super) secret: Arc<KeySecret>,
    pub(super) embedder: Option<[u8; 32]>,
    /// Where readers find the files.
    pub(super) tables: Arc<OnceLock<Arc<Tables>>>,
    /// When the wait began, in ms since the Unix epoch.
    pub(super) since_ms: u64,
}

/// Files that were taken over, and the first place of their index.
pub(super) struct TakenOver {
    pub(super) tables: Arc<Tables>,
    pub(super) front: Option<IndexKey>,
}

impl Waiting {
    /// The files; none as long as the other process has them.
    ///
    /// # Errors
    /// They can't be had at all.
    pub(super) fn look(&self, shared: &Shared) -> Result<Option<TakenOver>, StoreError> {
        let tables = match Tables::open(&self.dir, &self.secret) {
            Ok(tables) => Arc::new(tables),
            Err(StoreError::Locked { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        self.forget_what_was_purged(shared, &tables);
        _ = self.tables.set(tables.clone());
        shared.disk_up();
        let front = rebuild::rebuild(shared, &tables, self.embedder);
        shared.disk_waits_no_more();
        tracing::info!(dir = %self.dir.display(), "the store's directory is taken over");
        Ok(Some(TakenOver { tables, front }))
    }

    /// What the other process purged is not known: only that it did.
    fn forget_what_was_purged(&self, shared: &Shared, tables: &Tables) {
        let epoch = tables.epoch();
        if epoch.ms >= self.since_ms {
            let _no_fill = shared.fills.write();
            shared.bans.reset(epoch);
            shared.clear();
            tracing::info!(
                "the process before has purged meanwhile; what was stored since the start is forgotten"
            );
        }
        shared.bans.settle(epoch);
    }
}
