//! Purging the shared store: told to all proxies first, so that nobody serves or writes what is meant from then on; then
//! removed, which only gives back room.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::join_all;
use redis::cmd;
use tokio::sync::oneshot;

use super::entries::Guard;
use super::names;
use super::probe::VectorMode;
use super::scan::Scan;
use super::trouble::StoreTrouble;
use super::{Inner, Remote};
use crate::entry::Entry;
use crate::error::PurgeError;
use crate::purge::{BANS_MAX, Epoch, Fate, Purge, PurgeMode, PurgeReport, fate};
use crate::store::unix_ms;
use refrain_core::hex;

/// Records that are read at a time.
const READ_AT_ONCE: usize = 32;

impl Remote {
    /// Purges, or counts what would be.
    ///
    /// # Errors
    /// [`PurgeError::Away`] (nothing was done) and [`PurgeError::Unswept`] (it is in force, and takes room still).
    ///
    /// # Cancel safety
    /// Safe: what was begun comes to its end.
    pub(crate) async fn purge(&self, purge: &Purge, mode: PurgeMode) -> Result<PurgeReport, PurgeError> {
        let (done, report) = oneshot::channel();
        let (store, purge) = (self.inner.clone(), purge.clone());
        let run = async move {
            // Who asked may have gone.
            let _ = done.send(store.purge(&purge, mode).await);
        };
        self.tasks.lock().spawn_on(run, &self.runtime);
        report.await.map_err(|_| PurgeError::Closed)?
    }
}

impl Inner {
    async fn purge(self: Arc<Self>, purge: &Purge, mode: PurgeMode) -> Result<PurgeReport, PurgeError> {
        let Some(vectors) = self.mode() else { return Err(PurgeError::Away) };
        let epoch = match mode {
            PurgeMode::DryRun => None,
            PurgeMode::Real => Some(self.proclaim(purge).await.map_err(|trouble| {
                tracing::warn!(reason = %trouble, "a purge could not be told to the shared store");
                PurgeError::Away
            })?),
        };
        let mut report = PurgeReport::default();
        match self.sweep_purged(purge, epoch, vectors, &mut report).await {
            Ok(()) => Ok(report),
            Err(_) if epoch.is_none() => Err(PurgeError::Away),
            Err(trouble) => {
                tracing::warn!(reason = %trouble, "a purge is in force, and what it is about was not all removed");
                Err(PurgeError::Unswept)
            }
        }
    }

    /// Tells everybody; its place in the order.
    async fn proclaim(&self, purge: &Purge) -> Result<Epoch, StoreTrouble> {
        let mut add = cmd("XADD");
        add.arg(self.entries.names.purges()).arg("MAXLEN").arg("~").arg(BANS_MAX).arg("*");
        add.arg("purge").arg(self.seal(purge));
        let id: String = self.link.ask(&add).await?;
        let epoch = id.parse().map_err(|_| {
            StoreTrouble::new(super::Trouble::Refused, "the server names stream entries in another way")
        })?;
        self.near.bans.append(epoch, purge.clone());
        Ok(epoch)
    }

    async fn sweep_purged(
        &self,
        purge: &Purge,
        epoch: Option<Epoch>,
        vectors: VectorMode,
        report: &mut PurgeReport,
    ) -> Result<(), StoreTrouble> {
        let key = purge.select.conditions().key.map_or_else(|| "*".to_owned(), |key| hex(&key));
        let pattern = format!("{}*:e:{key}", self.entries.names.entries());
        let mut scan = Scan::begin(&self.link, pattern).await?;
        // Half of a key is told apart as well as the whole.
        let mut seen: HashSet<[u8; 16]> = HashSet::new();
        while let Some(found) = scan.next(&self.link).await? {
            // A walk may meet an entry twice; it counts once.
            let found: Vec<Vec<u8>> = found.into_iter().filter(|name| first_time(&mut seen, name)).collect();
            for some in found.chunks(READ_AT_ONCE) {
                let swept = some.iter().map(|name| self.sweep_one(name, purge, epoch, vectors));
                for swept in join_all(swept).await {
                    if let Some(entry) = swept? {
                        report.count(&entry);
                    }
                }
            }
        }
        Ok(())
    }

    /// Deals with the entry of that name; gives it if it is meant.
    async fn sweep_one(
        &self,
        name: &[u8],
        purge: &Purge,
        epoch: Option<Epoch>,
        vectors: VectorMode,
    ) -> Result<Option<Entry>, StoreTrouble> {
        let Some(key) = names::key_of(name) else { return Ok(None) };
        let Some((entry, guard)) = self.entries.read_named(&self.link, name, &key).await? else {
            return Ok(None);
        };
        match fate(purge, epoch, &entry, unix_ms()) {
            Fate::Stays => return Ok(None),
            Fate::Counted => {}
            Fate::Leaves => self.remove_if(vectors, &entry, &guard).await?,
            Fate::Expires(expired) => self.replace_if(vectors, &expired, &guard).await?,
        }
        Ok(Some(entry))
    }

    async fn remove_if(&self, vectors: VectorMode, entry: &Entry, guard: &Guard) -> Result<(), StoreTrouble> {
        let key = &entry.key;
        self.entries.remove_if(&self.link, vectors, (&key.partition, &key.key), guard).await?;
        Ok(())
    }

    async fn replace_if(
        &self,
        vectors: VectorMode,
        entry: &Entry,
        guard: &Guard,
    ) -> Result<(), StoreTrouble> {
        // What has expired is no candidate for similar questions.
        self.entries.write_if(&self.link, vectors, entry, None, guard).await?;
        Ok(())
    }
}

fn first_time(seen: &mut HashSet<[u8; 16]>, name: &[u8]) -> bool {
    let key = names::key_of(name);
    key.and_then(|key| key.first_chunk::<16>().copied()).is_some_and(|half| seen.insert(half))
}
