//! The embedded store: entries in memory, on disk if a directory is given, and the vectors that lead to them.
//!
//! Decides nothing about whose answer may be served: the key does. What it promises: an entry is found by its own three
//! digests only, never after its expiry, and a vector leads to an entry of its own partition or to nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use refrain_core::Skip;
use refrain_core::settings::EmbeddedStore;
use refrain_llm::answer::Rendering;

use crate::embedder::Embedding;
use crate::entry::{Candidate, Entry};
use crate::error::StoreError;
use crate::key::CacheKey;
use crate::memory::Memory;
use crate::secret::KeySecret;
use crate::vectors::VectorIndex;

/// Share of the memory bound that vectors may take: one part in this many.
const VECTOR_SHARE: usize = 4;
/// Rendered bodies up to this size are kept with their entry.
const KEPT_BODY_BYTES_MAX: usize = 256 << 10;
/// Locks that order changes of one key.
const CHANGE_SHARDS: usize = 64;

/// What [`Store::find`] found.
#[derive(Clone, Debug)]
pub enum Found {
    /// A fresh entry of this very question.
    Hit(Arc<Entry>),
    /// Nothing that may be served.
    Miss,
}

/// The embedded store. Shared by all threads.
pub struct Store {
    shared: Arc<Shared>,
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
    /// On disk, if there is one.
    pub disk: Option<DiskStats>,
}

/// Numbers of the disk tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Entries on disk.
    pub entries: usize,
    /// Bytes of their records.
    pub bytes: u64,
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

/// What the store's threads and the callers share.
pub(crate) struct Shared {
    pub(crate) memory: Memory,
    pub(crate) vectors: VectorIndex,
    /// Counts changes of the keys of a shard, so that what was read before a change is not put in after it.
    changes: [Mutex<u64>; CHANGE_SHARDS],
    entry_bytes_max: usize,
    vectors_refused: AtomicU64,
}

impl Store {
    /// Opens the store. `embedder` names the model that vectors come from: those of another are not used.
    ///
    /// # Errors
    /// See [`StoreError`]. A directory that is damaged is no error: it is set aside and a new one made.
    pub fn open(
        settings: &EmbeddedStore,
        secret: &Arc<KeySecret>,
        embedder: Option<[u8; 32]>,
    ) -> Result<Self, StoreError> {
        let _ = (secret, embedder);
        let vector_bytes = settings.memory_bytes_max / VECTOR_SHARE;
        let shared = Arc::new(Shared {
            memory: Memory::new((settings.memory_bytes_max - vector_bytes) as u64),
            vectors: VectorIndex::new(vector_bytes),
            changes: std::array::from_fn(|_| Mutex::new(0)),
            entry_bytes_max: settings.entry_bytes_max,
            vectors_refused: AtomicU64::new(0),
        });
        Ok(Self { shared })
    }

    /// The fresh entry of a key. Suspends only to read from disk.
    ///
    /// # Cancel safety
    /// Safe: a read from disk that was begun ends in memory.
    #[expect(clippy::unused_async, reason = "reads from disk")]
    pub async fn find(&self, key: &CacheKey, now_ms: u64) -> Found {
        match self.shared.find_in_memory(key, now_ms) {
            Some(entry) => Found::Hit(entry),
            None => Found::Miss,
        }
    }

    /// Fresh entries of the partition whose questions are most like the vector's, best first; at most `k`.
    ///
    /// # Cancel safety
    /// Safe.
    #[expect(clippy::unused_async, reason = "reads from disk")]
    pub async fn nearest(
        &self,
        partition: &[u8; 32],
        vector: &Embedding,
        k: usize,
        now_ms: u64,
    ) -> Vec<Candidate> {
        let neighbours = self.shared.vectors.nearest(partition, vector, k);
        let mut candidates = Vec::with_capacity(neighbours.len());
        for neighbour in neighbours {
            let entry = self.shared.memory.find(&neighbour.id);
            if let Some(entry) =
                entry.filter(|entry| entry.is_fresh(now_ms) && entry.key.partition == *partition)
            {
                candidates.push(Candidate { similarity: neighbour.similarity, entry });
            }
        }
        candidates
    }

    /// Stores an entry, and the vector that leads to it. Never blocks.
    ///
    /// # Errors
    /// Why it was not stored: [`Skip::TooLarge`], [`Skip::StoreBusy`] or [`Skip::StoreDown`].
    pub fn insert(&self, entry: Entry, vector: Option<Embedding>) -> Result<Arc<Entry>, Skip> {
        if entry.record_bytes() > self.shared.entry_bytes_max {
            return Err(Skip::TooLarge);
        }
        let entry = Arc::new(entry);
        self.shared.put(&entry, vector.as_ref());
        Ok(entry)
    }

    /// Removes an entry and its vector.
    pub fn remove(&self, key: &CacheKey) {
        self.shared.remove(key);
    }

    /// The body for a client; kept with the entry, within its memory bound, for the next one.
    pub fn render(&self, entry: &Arc<Entry>, rendering: Rendering) -> Bytes {
        if let Some(body) = entry.kept(rendering) {
            return body.clone();
        }
        let body = entry.answer.render(rendering);
        self.shared.keep(entry, rendering, &body);
        body
    }

    /// Waits until everything inserted so far would survive a power failure.
    #[expect(clippy::unused_async, reason = "waits for the disk")]
    pub async fn flush(&self) {}

    /// Writes what waits, closes the files and ends the threads. Blocks; call it off the reactor. Afterwards the store
    /// is in memory only.
    pub fn close(&self) {}

    /// Numbers for metrics and the readiness report.
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            entries: self.shared.memory.len(),
            bytes: self.shared.memory.bytes(),
            vectors: self.shared.vectors.len(),
            vector_bytes: self.shared.vectors.bytes(),
            evictions: self.shared.memory.evictions(),
            vectors_refused: self.shared.vectors_refused.load(Ordering::Relaxed),
            disk: None,
        }
    }
}

impl Shared {
    fn find_in_memory(&self, key: &CacheKey, now_ms: u64) -> Option<Arc<Entry>> {
        self.memory.find(&key.key).filter(|entry| entry.answers(key) && entry.is_fresh(now_ms))
    }

    fn put(&self, entry: &Arc<Entry>, vector: Option<&Embedding>) {
        let CacheKey { partition, key, fingerprint: _ } = entry.key;
        let mut changes = self.changes(&key).lock();
        *changes += 1;
        let evicted = self.memory.insert(entry.clone());
        if let Some(vector) = vector {
            // After the entry, so that whoever finds the vector finds the entry.
            if self.vectors.insert(partition, key, vector).is_err() {
                self.vectors_refused.fetch_add(1, Ordering::Relaxed);
            }
        } else {
            self.vectors.remove(&partition, &key);
        }
        drop(changes);
        self.forget_vectors(&evicted);
    }

    fn remove(&self, key: &CacheKey) {
        let mut changes = self.changes(&key.key).lock();
        *changes += 1;
        self.vectors.remove(&key.partition, &key.key);
        self.memory.remove(&key.key);
    }

    /// Keeps a body if its entry is still in memory; the entry is charged anew.
    fn keep(&self, entry: &Arc<Entry>, rendering: Rendering, body: &Bytes) {
        if body.len() > KEPT_BODY_BYTES_MAX {
            return;
        }
        let changes = self.changes(&entry.key.key).lock();
        if !self.memory.holds(entry) {
            return;
        }
        entry.keep(rendering, body.clone());
        let evicted = self.memory.insert(entry.clone());
        drop(changes);
        self.forget_vectors(&evicted);
    }

    /// Removes the vectors of entries that are nowhere any more.
    fn forget_vectors(&self, evicted: &[Arc<Entry>]) {
        for entry in evicted {
            let CacheKey { partition, key, fingerprint: _ } = entry.key;
            let _changes = self.changes(&key).lock();
            if !self.memory.contains(&key) {
                self.vectors.remove(&partition, &key);
            }
        }
    }

    fn changes(&self, key: &[u8; 32]) -> &Mutex<u64> {
        &self.changes[usize::from(key[1]) % CHANGE_SHARDS]
    }
}

/// Milliseconds since the Unix epoch.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
