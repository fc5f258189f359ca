//! Nearest neighbours in process: every vector of a partition is compared, none is skipped by an index structure.
//!
//! Sign bits (48 bytes a vector) are scanned by Hamming distance; the best few are rescored in int8. On MiniLM's
//! vectors this finds what a full f32 scan finds, at 1/16 of its memory traffic, with cheap inserts and removals.
//! What this does not do: persistence, expiry, and any comparison across partitions.

mod code;
mod partition;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::embedder::DIMENSIONS;
use code::Query;
use partition::Partition;

/// Most neighbours one look-up returns.
pub const NEIGHBOURS_MAX: usize = 64;

/// Locks. Partitions are spread by their first byte, which is that of a keyed hash.
const SHARDS: usize = 64;

/// Bytes counted for a partition's place in its shard.
const PARTITION_OVERHEAD_BYTES: usize = 64 + size_of::<Partition>();

/// One stored vector close to the question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// What was given at insertion.
    pub id: [u8; 32],
    /// Cosine similarity, -1 to 1; off by less than 0.005.
    pub similarity: f32,
}

/// Why a vector was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VectorError {
    /// The index holds as many bytes as it may.
    #[error("the vector index is full; raise [store] memory_bytes_max or shorten TTLs")]
    Full,
    /// Not a unit vector of [`DIMENSIONS`] finite numbers.
    #[error("not a unit vector of {DIMENSIONS} dimensions")]
    Malformed,
}

/// Vectors by partition. Shared by all threads; locks are short and never held over an await.
#[derive(Debug)]
pub struct VectorIndex {
    shards: Vec<RwLock<HashMap<[u8; 32], Partition>>>,
    bytes: AtomicUsize,
    entries: AtomicUsize,
    bytes_max: usize,
}

impl VectorIndex {
    /// An empty index that refuses what would take it over `bytes_max` bytes (about 480 a vector).
    pub fn new(bytes_max: usize) -> Self {
        Self {
            shards: std::iter::repeat_with(RwLock::default).take(SHARDS).collect(),
            bytes: AtomicUsize::new(0),
            entries: AtomicUsize::new(0),
            bytes_max,
        }
    }

    /// Stores `vector` (unit length) under `id`; replaces what that id held in this partition.
    pub fn insert(&self, partition: [u8; 32], id: [u8; 32], vector: &[f32]) -> Result<(), VectorError> {
        let code = code::encode(vector).ok_or(VectorError::Malformed)?;
        let mut shard = self.shard(&partition).write();
        let known = shard.get(&partition);
        let before = known.map_or(0, Self::partition_bytes);
        let after = known.map_or(PARTITION_OVERHEAD_BYTES + Partition::BYTES_FIRST, |p| {
            PARTITION_OVERHEAD_BYTES + p.bytes_after_push()
        });
        // Other shards grow at the same time, so the bound may be passed by one growth step a shard.
        if self.bytes() + after - before > self.bytes_max {
            return Err(VectorError::Full);
        }
        let entry = shard.entry(partition).or_default();
        let is_new = entry.insert(id, &code);
        self.account(before, Self::partition_bytes(entry));
        if is_new {
            self.entries.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Forgets `id`. Whether it was there.
    pub fn remove(&self, partition: &[u8; 32], id: &[u8; 32]) -> bool {
        let mut shard = self.shard(partition).write();
        let Some(entry) = shard.get_mut(partition) else { return false };
        let before = Self::partition_bytes(entry);
        if !entry.remove(id) {
            return false;
        }
        self.entries.fetch_sub(1, Ordering::Relaxed);
        if entry.is_empty() {
            shard.remove(partition);
            self.account(before, 0);
        } else {
            let after = Self::partition_bytes(entry);
            self.account(before, after);
        }
        true
    }

    /// Forgets a whole partition. How many vectors it held.
    pub fn remove_partition(&self, partition: &[u8; 32]) -> usize {
        let Some(gone) = self.shard(partition).write().remove(partition) else { return 0 };
        self.account(Self::partition_bytes(&gone), 0);
        self.entries.fetch_sub(gone.len(), Ordering::Relaxed);
        gone.len()
    }

    /// The `k` (at most [`NEIGHBOURS_MAX`]) vectors of `partition` most similar to `query` (unit length), best first.
    ///
    /// A malformed query has no neighbours.
    pub fn nearest(&self, partition: &[u8; 32], query: &[f32], k: usize) -> Vec<Neighbour> {
        let Some(query) = Query::new(query) else { return Vec::new() };
        match self.shard(partition).read().get(partition) {
            Some(entry) => entry.nearest(&query, k.min(NEIGHBOURS_MAX)),
            None => Vec::new(),
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for shard in &self.shards {
            let gone = std::mem::take(&mut *shard.write());
            self.account(gone.values().map(Self::partition_bytes).sum(), 0);
            self.entries.fetch_sub(gone.values().map(Partition::len).sum(), Ordering::Relaxed);
        }
    }

    /// Vectors held.
    pub fn len(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory taken, spare capacity included.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn shard(&self, partition: &[u8; 32]) -> &RwLock<HashMap<[u8; 32], Partition>> {
        &self.shards[usize::from(partition[0]) % SHARDS]
    }

    fn partition_bytes(partition: &Partition) -> usize {
        PARTITION_OVERHEAD_BYTES + partition.bytes()
    }

    fn account(&self, before: usize, after: usize) {
        if after >= before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
