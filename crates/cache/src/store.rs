//! The embedded store: entries in memory, on disk if a directory is given, and the vectors that lead to them.
//!
//! Decides nothing about whose answer may be served: the key does. What it promises: an entry is found by its own three
//! digests only, fresh or marked as stale and never after its last window, and a vector leads to a fresh entry of its own
//! partition or to nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use refrain_core::Skip;
use refrain_core::settings::EmbeddedStore;
use refrain_llm::answer::{DecodeError, Rendering};
use tokio::sync::oneshot;

use crate::disk::{Disk, DiskOptions};
use crate::embedder::Embedding;
use crate::entry::{Candidate, Entry};
use crate::error::{PurgeError, StoreError};
use crate::key::CacheKey;
use crate::purge::{Epoch, Job, Purge, PurgeMode, PurgeReport, Verdict};
use crate::secret::KeySecret;
use crate::shared::Shared;
use crate::vectors::Neighbour;

/// What [`Store::find`] found.
#[derive(Clone, Debug)]
pub enum Found {
    /// A fresh entry of this very question.
    Hit(Arc<Entry>),
    /// One past its TTL that may be served while it is refreshed, or if no upstream can answer: the entry says which.
    Stale(Arc<Entry>),
    /// Nothing that may be served.
    Miss,
}

/// The embedded store. Shared by all threads.
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    disk: Disk,
    entry_bytes_max: usize,
}

/// Numbers for metrics and the readiness report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Entries in memory.
    pub entries: usize,
    /// Bytes charged for them.
    pub bytes: u64,
    /// Vectors.
    pub vectors: usize,
    /// Bytes of vectors.
    pub vector_bytes: usize,
    /// Entries that left memory for want of room.
    pub evictions: u64,
    /// Entries whose vector was refused for want of room: they are found by their exact key only.
    pub vectors_refused: u64,
    /// On disk; none if there is no disk tier, or if it failed.
    pub disk: Option<DiskStats>,
}

/// Numbers of the disk tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Entries on disk.
    pub entries: usize,
    /// Bytes of their records.
    pub bytes: u64,
    /// Bytes of the files at the last sweep, with what compaction will free.
    pub file_bytes: u64,
    /// Writes that wait.
    pub queued: usize,
    /// Entries removed for want of room.
    pub evictions: u64,
    /// Records that were damaged and set aside.
    pub quarantined: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Reads that were given up: queue full, too slow or failed.
    pub read_errors: u64,
    /// Vectors found at start.
    pub vectors_rebuilt: usize,
}

impl Store {
    /// Opens the store. `embedder` names the model that vectors come from: those of another are not used. Blocks while it
    /// reads the index of what is on disk (about a second for 200,000 entries).
    ///
    /// # Errors
    /// See [`StoreError`]. A directory that is damaged is no error: it is set aside and a new one made.
    pub fn open(
        settings: &EmbeddedStore,
        secret: &Arc<KeySecret>,
        embedder: Option<[u8; 32]>,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::new(settings));
        let disk = match &settings.dir {
            None => Disk::none(&shared)?,
            Some(dir) => {
                let options = DiskOptions { dir, bytes_max: settings.disk_bytes_max, secret, embedder };
                Disk::open(&shared, &options)?
            }
        };
        Ok(Self { shared, disk, entry_bytes_max: settings.entry_bytes_max })
    }

    /// The entry of a key, fresh or within a stale window. Suspends only to read from disk, and for a quarter of a second
    /// at most.
    ///
    /// # Cancel safety
    /// Safe: a read from disk that was begun ends in memory.
    pub async fn find(&self, key: &CacheKey, now_ms: u64) -> Found {
        let known = self.shared.find(key, now_ms);
        let found = match known {
            Some(entry) => Some(entry),
            None => self.read(&key.key, now_ms).await.filter(|entry| entry.answers(key)),
        };
        match found.and_then(|entry| self.shared.standing(entry, now_ms)) {
            Some(entry) if entry.is_fresh(now_ms) => Found::Hit(entry),
            Some(entry) => Found::Stale(entry),
            None => Found::Miss,
        }
    }

    /// Fresh entries of the partition whose questions are most like the vector's, best first; at most `k`. Suspends only
    /// to read from disk.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn nearest(
        &self,
        partition: &[u8; 32],
        vector: &Embedding,
        k: usize,
        now_ms: u64,
    ) -> Vec<Candidate> {
        // Some may lead to what is stale, or waits for the sweep.
        let neighbours = self.shared.vectors.nearest(partition, vector, k.saturating_mul(2));
        let mut candidates = Vec::with_capacity(neighbours.len());
        for Neighbour { id, similarity } in neighbours {
            if candidates.len() == k {
                break;
            }
            let entry = match self.shared.memory.find(&id) {
                Some(entry) => Some(entry),
                None => self.read(&id, now_ms).await,
            };
            let Some(entry) = entry.filter(|entry| entry.key.partition == *partition) else {
                self.shared.forget_vector(partition, &id);
                continue;
            };
            match self.shared.standing(entry.clone(), now_ms) {
                Some(entry) if entry.is_similar_candidate(now_ms) => {
                    candidates.push(Candidate { similarity, entry });
                }
                Some(expired) => self.shared.retire_vector(&expired),
                None => self.shared.retire_vector(&entry),
            }
        }
        candidates
    }

    /// Stores an entry, and the vector that leads to it unless it is for exact look-up only. Never blocks. The disk follows
    /// within milliseconds.
    ///
    /// # Errors
    /// Why nothing was stored: [`Skip::TooLarge`] (tags and labels over their bounds included), [`Skip::Purged`] (a purge
    /// since [`EntryMeta::seen`](crate::EntryMeta::seen) is about it) or [`Skip::StoreBusy`].
    pub fn insert(&self, entry: Entry, vector: Option<Embedding>) -> Result<Arc<Entry>, Skip> {
        if entry.record_bytes() > self.entry_bytes_max || !entry.meta.is_bounded() {
            return Err(Skip::TooLarge);
        }
        let vector = vector.filter(|_| !entry.meta.exact_only);
        let entry = Arc::new(entry);
        if !self.shared.is_disk_up() && entry.charge() as u64 > self.shared.memory.entry_charge_max() {
            return Err(Skip::TooLarge);
        }
        let _fill = self.shared.fills.read();
        if !self.admits(&entry) {
            return Err(Skip::Purged);
        }
        self.disk.put(&entry, vector.as_ref())?;
        self.shared.put(&entry, vector.as_ref());
        Ok(entry)
    }

    /// The newest purge: whoever begins to generate an answer notes it as the entry's
    /// [`seen`](crate::EntryMeta::seen).
    pub fn epoch(&self) -> Epoch {
        self.shared.bans.latest()
    }

    /// Whether no purge is about an entry that isn't in the store, or was taken from it some time ago.
    pub fn admits(&self, entry: &Entry) -> bool {
        self.shared.bans.verdict_outside(&entry.key, &entry.meta) == Verdict::Clear
    }

    /// Purges, or counts what would be. A purge is in force when it begins: nothing of it is served, stored or joined from
    /// then on; when it ends, it has left memory and, for good, the disk. Takes as long as reading all records does.
    ///
    /// # Errors
    /// See [`PurgeError`].
    ///
    /// # Cancel safety
    /// Safe: what was begun comes to its end.
    pub async fn purge(&self, purge: &Purge, mode: PurgeMode) -> Result<PurgeReport, PurgeError> {
        let (reply, report) = oneshot::channel();
        match mode {
            PurgeMode::DryRun => self.shared.purges.push(Job::new(purge.clone(), None, reply))?,
            PurgeMode::Real => {
                let _no_fill = self.shared.fills.write();
                let epoch = self.epoch().next(unix_ms());
                self.shared.purges.push(Job::new(purge.clone(), Some(epoch), reply))?;
                self.shared.bans.append(epoch, purge.clone());
            }
        }
        self.disk.wake();
        report.await.map_err(|_| PurgeError::Closed)?
    }

    /// Removes an entry and its vector: nobody finds them from now on.
    ///
    /// # Errors
    /// [`Skip::StoreBusy`] if too many removals wait for the disk: after a restart it would be found again. Ask again.
    pub fn remove(&self, key: &CacheKey) -> Result<(), Skip> {
        let removed = self.shared.remove(key);
        self.disk.wake();
        if removed { Ok(()) } else { Err(Skip::StoreBusy) }
    }

    /// The body for a client; kept with the entry, within its memory bound, for the next one.
    ///
    /// # Errors
    /// See [`Entry::answer`].
    pub fn render(&self, entry: &Arc<Entry>, rendering: Rendering) -> Result<Bytes, DecodeError> {
        if let Some(body) = entry.kept(rendering) {
            return Ok(body.clone());
        }
        let body = entry.answer()?.render(rendering);
        self.shared.keep(entry, rendering, &body);
        Ok(body)
    }

    /// Waits until everything inserted so far would survive a power failure.
    ///
    /// # Errors
    /// [`Skip::StoreBusy`] or [`Skip::StoreDown`].
    ///
    /// # Cancel safety
    /// Safe: what is queued is written nevertheless.
    pub async fn flush(&self) -> Result<(), Skip> {
        self.disk.flush().await
    }

    /// Writes what waits, closes the files and ends the threads. Blocks; call it off the reactor. Afterwards the store
    /// is in memory only. Without it, what was inserted in the last moments may be lost.
    pub fn close(&self) {
        self.disk.close();
    }

    /// Numbers for metrics and the readiness report.
    pub fn stats(&self) -> StoreStats {
        let Shared { memory, vectors, counts, .. } = &*self.shared;
        StoreStats {
            entries: memory.len(),
            bytes: memory.bytes(),
            vectors: vectors.len(),
            vector_bytes: vectors.bytes(),
            evictions: memory.evictions(),
            vectors_refused: counts.vectors_refused.load(Ordering::Relaxed),
            disk: self.shared.is_disk_up().then(|| self.disk_stats()),
        }
    }

    fn disk_stats(&self) -> DiskStats {
        let Shared { places, counts, .. } = &*self.shared;
        DiskStats {
            entries: places.len(),
            bytes: places.bytes(),
            file_bytes: counts.file_bytes.load(Ordering::Relaxed),
            queued: counts.queued.load(Ordering::Relaxed),
            evictions: counts.disk_evictions.load(Ordering::Relaxed),
            quarantined: counts.quarantined.load(Ordering::Relaxed),
            write_errors: counts.write_errors.load(Ordering::Relaxed),
            read_errors: counts.read_errors.load(Ordering::Relaxed),
            vectors_rebuilt: counts.vectors_rebuilt.load(Ordering::Relaxed),
        }
    }

    /// What is on disk under a key and is of use still.
    async fn read(&self, key: &[u8; 32], now_ms: u64) -> Option<Arc<Entry>> {
        let place = self.shared.places.find(key)?;
        if place.retained_until_ms <= now_ms {
            return None;
        }
        self.disk.read(*key).await.filter(|entry| entry.is_retained(now_ms))
    }
}

/// Milliseconds since the Unix epoch.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
