//! Which keys are on disk, in memory: a miss never touches the disk.
//!
//! Compact: eight bytes of a key stand for it. Keys are keyed digests, so two that agree in them are not to be expected
//! (1e-7 among two million); should it happen, one of the two is read in vain or not found, and nothing wrong is served.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::memory::KeyHasher;

const SHARDS: usize = 64;

type Shard = HashMap<u64, Place, BuildHasherDefault<KeyHasher>>;

/// The keys on disk.
pub(crate) struct Places {
    shards: Box<[RwLock<Shard>]>,
    bytes: AtomicU64,
    entries: AtomicUsize,
}

/// What is known of a key on disk without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) retained_until_ms: u64,
    /// Of its records.
    pub(crate) bytes: u32,
    /// Removed for readers; the writer has yet to come to it.
    pub(crate) hidden: bool,
}

impl Places {
    pub(crate) fn new() -> Self {
        Self {
            shards: std::iter::repeat_with(RwLock::default).take(SHARDS).collect(),
            bytes: AtomicU64::new(0),
            entries: AtomicUsize::new(0),
        }
    }

    /// Where a reader finds the key.
    pub(crate) fn find(&self, key: &[u8; 32]) -> Option<Place> {
        self.on_disk(key).filter(|place| !place.hidden)
    }

    /// Where the key stands, even if it is hidden.
    pub(crate) fn on_disk(&self, key: &[u8; 32]) -> Option<Place> {
        self.shard(key).read().get(&short(key)).copied()
    }

    /// Hides the key from readers until the writer has removed it.
    pub(crate) fn hide(&self, key: &[u8; 32]) {
        if let Some(place) = self.shard(key).write().get_mut(&short(key)) {
            place.hidden = true;
        }
    }

    /// Notes a place; the one that it replaces.
    pub(crate) fn insert(&self, key: &[u8; 32], place: Place) -> Option<Place> {
        let replaced = self.shard(key).write().insert(short(key), place);
        self.bytes.fetch_add(u64::from(place.bytes), Ordering::Relaxed);
        match replaced {
            Some(replaced) => self.subtract(replaced),
            None => _ = self.entries.fetch_add(1, Ordering::Relaxed),
        }
        replaced
    }

    pub(crate) fn remove(&self, key: &[u8; 32]) -> Option<Place> {
        let removed = self.shard(key).write().remove(&short(key))?;
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.subtract(removed);
        Some(removed)
    }

    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            for (_, place) in shard.write().drain() {
                self.entries.fetch_sub(1, Ordering::Relaxed);
                self.subtract(place);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Bytes of all records.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn subtract(&self, place: Place) {
        self.bytes.fetch_sub(u64::from(place.bytes), Ordering::Relaxed);
    }

    fn shard(&self, key: &[u8; 32]) -> &RwLock<Shard> {
        &self.shards[usize::from(key[31]) % SHARDS]
    }
}

fn short(key: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *key;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
