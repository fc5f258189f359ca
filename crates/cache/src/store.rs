//! The store: entries in memory, on disk if a directory is given or in Redis if proxies share it, and the vectors that lead
//! to them.
//!
//! Decides nothing about whose answer may be served: the key does. What it promises: an entry is found by its own three
//! digests only, fresh or marked as stale and never after its last window, and a vector leads to a fresh entry of its own
//! partition or to nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::FutureExt;
use refrain_core::Skip;
use refrain_core::settings::{EmbeddedStore, RedisStore};
use refrain_llm::answer::{DecodeError, Rendering};
use tokio::sync::oneshot;

use crate::disk::{Disk, DiskOptions};
use crate::embedder::Embedding;
use crate::entry::{Candidate, Entry};
use crate::error::{PurgeError, StoreError};
use crate::key::CacheKey;
use crate::purge::{Epoch, Job, Purge, PurgeMode, PurgeReport, Verdict};
use crate::remote::{Claim, LookupEnd, Quotas, Remote, RemoteStats, StoreTrouble};
use crate::secret::KeySecret;
use crate::self_test::SelfTest;
use crate::shared::Shared;
use crate::vectors::Neighbour;

/// What [`Store::find`] found.
#[derive(Clone, Debug)]
pub enum Found {
    /// A fresh entry of this very question.
    Hit(Arc<Entry>, Place),
    /// One past its TTL that may be served while it is refreshed, or if no upstream can answer: the entry says which.
    Stale(Arc<Entry>, Place),
    /// Nothing that may be served.
    Miss,
}

/// Where an entry was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this process, or on its disk.
    Near,
    /// In the store that proxies share.
    Shared,
}

/// The store. Shared by all threads.
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    behind: Behind,
    entry_bytes_max: usize,
}

/// What is behind the entries in memory.
enum Behind {
    Disk(Disk),
    Redis(Box<Remote>),
}

/// Numbers for metrics and the readiness report.
#[derive(Clone, Debug, Default)]
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
    /// Another process has the disk's directory still: this one takes it over when that ends.
    pub disk_waits: bool,
    /// In Redis; none if the store is embedded.
    pub remote: Option<RemoteStats>,
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
                let (bytes_max, when_locked) = (settings.disk_bytes_max, settings.when_locked);
                let options = DiskOptions { dir, bytes_max, secret, embedder, when_locked };
                Disk::open(&shared, &options)?
            }
        };
        Ok(Self { shared, behind: Behind::Disk(disk), entry_bytes_max: settings.entry_bytes_max })
    }

    /// Opens a store in Redis, and begins to join it; see [`Store::joined`]. Must be called within the runtime that its tasks
    /// shall run on.
    pub fn open_shared(settings: &RedisStore, secret: &Arc<KeySecret>, embedder: Option<[u8; 32]>) -> Self {
        let near = EmbeddedStore { memory_bytes_max: settings.memory_bytes_max, ..EmbeddedStore::default() };
        let shared = Arc::new(Shared::new(&near));
        let remote = Remote::open(settings, secret, embedder, &shared);
        Self { shared, behind: Behind::Redis(Box::new(remote)), entry_bytes_max: settings.entry_bytes_max }
    }

    /// Waits until a shared store was joined, with the result of its self-test; none: the store is embedded.
    ///
    /// # Errors
    /// Why the attempt failed. It is repeated in the background.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn joined(&self) -> Option<Result<SelfTest, StoreTrouble>> {
        match &self.behind {
            Behind::Disk(_) => None,
            Behind::Redis(remote) => Some(remote.joined().await),
        }
    }

    /// The entry of a key, fresh or within a stale window. Suspends only to read from disk, for a quarter of a second at
    /// most, or to ask Redis, for one command's deadline at most.
    ///
    /// # Cancel safety
    /// Safe: a read that was begun ends in memory.
    pub async fn find(&self, key: &CacheKey, now_ms: u64) -> Found {
        let found = match &self.behind {
            Behind::Disk(disk) => self.find_near(disk, key, now_ms).await.map(|entry| (entry, Place::Near)),
            // Boxed: what asks Redis is large, and most requests never do.
            Behind::Redis(remote) => self.find_shared(remote, key, now_ms).boxed().await,
        };
        match found {
            Some((entry, place)) if entry.is_fresh(now_ms) => Found::Hit(entry, place),
            Some((entry, place)) => Found::Stale(entry, place),
            None => Found::Miss,
        }
    }

    async fn find_near(&self, disk: &Disk, key: &CacheKey, now_ms: u64) -> Option<Arc<Entry>> {
        let found = match self.shared.find(key, now_ms) {
            Some(entry) => Some(entry),
            None => self.read(disk, &key.key, now_ms).await.filter(|entry| entry.answers(key)),
        };
        self.shared.standing(found?, now_ms)
    }

    async fn find_shared(&self, remote: &Remote, key: &CacheKey, now_ms: u64) -> Option<(Arc<Entry>, Place)> {
        if !remote.is_confirmed() {
            remote.count(LookupEnd::Away);
            return None;
        }
        let near = self.shared.find(key, now_ms).and_then(|entry| self.shared.standing(entry, now_ms));
        if let Some(entry) = near {
            remote.count(LookupEnd::Near);
            return Some((entry, Place::Near));
        }
        let change = self.shared.change(&key.key);
        let entry = Arc::new(remote.find(key, now_ms).await?);
        let entry = self.shared.standing(entry, now_ms)?;
        self.shared.adopt(&entry, change);
        Some((entry, Place::Shared))
    }

    /// The same of what is in memory, where whatever this process stored of late is.
    pub fn find_in_memory(&self, key: &CacheKey, now_ms: u64) -> Found {
        if !self.is_confirmed() {
            return Found::Miss;
        }
        match self.shared.find(key, now_ms).and_then(|entry| self.shared.standing(entry, now_ms)) {
            Some(entry) if entry.is_fresh(now_ms) => Found::Hit(entry, Place::Near),
            Some(entry) => Found::Stale(entry, Place::Near),
            None => Found::Miss,
        }
    }

    /// Claims the generation of an answer among the proxies that share the store.
    ///
    /// # Cancel safety
    /// Safe: a claim that nobody holds expires within seconds.
    pub async fn claim(&self, key: &CacheKey) -> Claim {
        match &self.behind {
            Behind::Disk(_) => Claim::Free,
            Behind::Redis(remote) => remote.claim(key).boxed().await,
        }
    }

    /// Fresh entries of the partition whose questions are most like the vector's, best first; at most `k`: of those that this
    /// process knows. Suspends only to read from disk or from Redis what memory has no room for.
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
        if !self.is_confirmed() {
            return Vec::new();
        }
        // Some may lead to what is stale, or waits for the sweep.
        let neighbours = self.shared.vectors.nearest(partition, vector, k.saturating_mul(2));
        let mut candidates = Vec::with_capacity(neighbours.len());
        for Neighbour { id, similarity } in neighbours {
            if candidates.len() == k {
                break;
            }
            let entry = match self.shared.memory.find(&id) {
                Some(entry) => Some(entry),
                None => self.behind(partition, &id, now_ms).await,
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
                None => self.give_up(&entry),
            }
        }
        candidates
    }

    /// Forgets an entry that may not be served any more, with its vector; where proxies share a store, only the entry: the
    /// vector may lead to another's newer one by now, and if it doesn't, the next look-up finds that out.
    fn give_up(&self, entry: &Arc<Entry>) {
        match &self.behind {
            Behind::Disk(_) => self.shared.retire_vector(entry),
            Behind::Redis(_) => _ = self.shared.memory.remove_entry(entry),
        }
    }

    /// The same among those that only the shared store knows; none where this process knows all.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn nearest_shared(
        &self,
        partition: &[u8; 32],
        vector: &Embedding,
        k: usize,
        now_ms: u64,
    ) -> Vec<Candidate> {
        let Behind::Redis(remote) = &self.behind else { return Vec::new() };
        if !remote.is_confirmed() {
            return Vec::new();
        }
        let found = remote.nearest(partition, vector, k).boxed().await;
        let standing = found.into_iter().filter_map(|Candidate { similarity, entry }| {
            let entry = self.shared.standing(entry, now_ms)?;
            entry.is_similar_candidate(now_ms).then_some(Candidate { similarity, entry })
        });
        standing.collect()
    }

    /// Counts that proxies share; none: the store is embedded.
    pub fn quotas(&self) -> Option<&Quotas> {
        match &self.behind {
            Behind::Disk(_) => None,
            Behind::Redis(remote) => Some(remote.quotas()),
        }
    }

    /// Whether only the shared store knows all vectors, so that [`Store::nearest_shared`] is worth asking.
    pub fn has_shared_vectors(&self) -> bool {
        matches!(&self.behind, Behind::Redis(remote) if remote.searches())
    }

    fn is_confirmed(&self) -> bool {
        match &self.behind {
            Behind::Disk(_) => true,
            Behind::Redis(remote) => remote.is_confirmed(),
        }
    }

    /// What a vector leads to and memory doesn't hold.
    async fn behind(&self, partition: &[u8; 32], id: &[u8; 32], now_ms: u64) -> Option<Arc<Entry>> {
        match &self.behind {
            Behind::Disk(disk) => self.read(disk, id, now_ms).await,
            Behind::Redis(remote) => remote.entry_at(partition, id, now_ms).boxed().await.map(Arc::new),
        }
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
        if self.is_in_memory_only() && entry.charge() as u64 > self.shared.memory.entry_charge_max() {
            return Err(Skip::TooLarge);
        }
        let _fill = self.shared.fills.read();
        if !self.admits(&entry) {
            return Err(Skip::Purged);
        }
        if let Behind::Disk(disk) = &self.behind {
            disk.put(&entry, vector.as_ref())?;
        }
        self.shared.put(&entry, vector.as_ref());
        if let Behind::Redis(remote) = &self.behind {
            // Where too much waits it is kept here alone, which is counted.
            let _ = remote.put(&entry, vector);
        }
        Ok(entry)
    }

    fn is_in_memory_only(&self) -> bool {
        match &self.behind {
            Behind::Disk(_) => !self.shared.is_disk_up(),
            Behind::Redis(_) => false,
        }
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
    /// then on (by other proxies that share the store: within a second, or within their lease if they can't be told); when it
    /// ends, it has left memory and, for good, the disk or Redis. Takes as long as reading all records does.
    ///
    /// # Errors
    /// See [`PurgeError`].
    ///
    /// # Cancel safety
    /// Safe: what was begun comes to its end.
    pub async fn purge(&self, purge: &Purge, mode: PurgeMode) -> Result<PurgeReport, PurgeError> {
        match &self.behind {
            Behind::Disk(disk) => self.purge_embedded(disk, purge, mode).await,
            Behind::Redis(remote) => remote.purge(purge, mode).await,
        }
    }

    async fn purge_embedded(
        &self,
        disk: &Disk,
        purge: &Purge,
        mode: PurgeMode,
    ) -> Result<PurgeReport, PurgeError> {
        if self.shared.is_waiting() {
            return Err(PurgeError::Waiting);
        }
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
        disk.wake();
        report.await.map_err(|_| PurgeError::Closed)?
    }

    /// Removes an entry and its vector: nobody finds them from now on.
    ///
    /// # Errors
    /// [`Skip::StoreBusy`] if too many removals wait for the disk: after a restart it would be found again. Ask again.
    pub fn remove(&self, key: &CacheKey) -> Result<(), Skip> {
        let removed = self.shared.remove(key);
        match &self.behind {
            Behind::Disk(disk) => disk.wake(),
            Behind::Redis(remote) => remote.remove(key)?,
        }
        if removed { Ok(()) } else { Err(Skip::StoreBusy) }
    }

    /// The body for a client. What had to be written for it is kept with the entry, within its memory bound, for the next
    /// one.
    ///
    /// # Errors
    /// See [`Entry::answer`].
    pub fn render(&self, entry: &Arc<Entry>, rendering: Rendering) -> Result<Bytes, DecodeError> {
        if let Some(body) = entry.body(rendering) {
            return Ok(body);
        }
        let body = entry.answer()?.render(rendering);
        self.shared.keep(entry, rendering, &body);
        Ok(body)
    }

    /// Waits until everything inserted so far would survive a power failure, or is in Redis.
    ///
    /// # Errors
    /// [`Skip::StoreBusy`] or [`Skip::StoreDown`].
    ///
    /// # Cancel safety
    /// Safe: what is queued is written nevertheless.
    pub async fn flush(&self) -> Result<(), Skip> {
        match &self.behind {
            Behind::Disk(disk) => disk.flush().await,
            Behind::Redis(remote) => remote.flush().await,
        }
    }

    /// How many proxies share the store, this one included; none: it isn't shared, or that isn't known.
    pub fn proxies(&self) -> Option<u32> {
        match &self.behind {
            Behind::Disk(_) => None,
            Behind::Redis(remote) => remote.proxies(),
        }
    }

    /// Tells other proxies that this one stops: the process ends, and not only the store.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn leave(&self) {
        match &self.behind {
            Behind::Disk(_) => {}
            Behind::Redis(remote) => remote.leave().await,
        }
    }

    /// Writes what waits, closes the files and ends the threads. Blocks; call it off the reactor. Afterwards the store
    /// is in memory only. Without it, what was inserted in the last moments may be lost.
    pub fn close(&self) {
        match &self.behind {
            Behind::Disk(disk) => disk.close(),
            Behind::Redis(remote) => remote.close(),
        }
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
            disk_waits: self.shared.is_waiting(),
            remote: match &self.behind {
                Behind::Disk(_) => None,
                Behind::Redis(remote) => Some(remote.stats()),
            },
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
    async fn read(&self, disk: &Disk, key: &[u8; 32], now_ms: u64) -> Option<Arc<Entry>> {
        let place = self.shared.places.find(key)?;
        if place.retained_until_ms <= now_ms {
            return None;
        }
        disk.read(*key).await.filter(|entry| entry.is_retained(now_ms))
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
