//! Entries in memory, bounded by bytes.
//!
//! `quick_cache` decides what stays: its Clock-PRO (like S3-FIFO) admits by frequency, so a burst of questions that are
//! asked once does not flush those asked daily, and a read takes a shared lock of one shard and sets a bit. `moka`'s
//! TinyLFU was the other choice: it queues every read for later bookkeeping and needs maintenance calls.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use crate::entry::Entry;

/// What one shard must at least hold, so that a large entry fits.
const SHARD_BYTES_MIN: u64 = 8 << 20;
const SHARDS_MAX: usize = 64;
/// A guess that only sizes the first table.
const ENTRY_BYTES_GUESS: u64 = 16 << 10;

/// The entries in memory.
pub(crate) struct Memory {
    cache: Cache<[u8; 32], Slot, Charge, BuildHasherDefault<KeyHasher>, Evictions>,
    evictions: AtomicU64,
}

/// An entry with what it was charged when it was put here: the cache must never see a weight change by itself.
#[derive(Clone)]
struct Slot {
    entry: Arc<Entry>,
    charge: u64,
}

impl Memory {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let shards = usize::try_from(bytes_max / SHARD_BYTES_MIN).unwrap_or(SHARDS_MAX).clamp(1, SHARDS_MAX);
        // Rounded down to a power of two: the cache would round up, and halve what a shard holds.
        let shards = 1 << shards.ilog2();
        let items = usize::try_from(bytes_max / ENTRY_BYTES_GUESS).unwrap_or(usize::MAX).max(16);
        let cache = match OptionsBuilder::new()
            .shards(shards)
            .estimated_items_capacity(items)
            .weight_capacity(bytes_max)
            .build()
        {
            Ok(options) => Cache::with_options(options, Charge, BuildHasherDefault::default(), Evictions),
            Err(_) => Cache::with(items, bytes_max, Charge, BuildHasherDefault::default(), Evictions),
        };
        Self { cache, evictions: AtomicU64::new(0) }
    }

    pub(crate) fn find(&self, key: &[u8; 32]) -> Option<Arc<Entry>> {
        self.cache.get(key).map(|slot| slot.entry)
    }

    pub(crate) fn contains(&self, key: &[u8; 32]) -> bool {
        self.cache.contains_key(key)
    }

    /// The entry of a key. Does not count as a use.
    pub(crate) fn peek(&self, key: &[u8; 32]) -> Option<Arc<Entry>> {
        self.cache.peek(key).map(|slot| slot.entry)
    }

    /// Whether this very entry is the one in memory. Does not count as a use.
    pub(crate) fn holds(&self, entry: &Arc<Entry>) -> bool {
        self.peek(&entry.key.key).is_some_and(|known| Arc::ptr_eq(&known, entry))
    }

    /// Puts an entry in, or charges it anew; returns what had to leave, which may be the entry itself.
    pub(crate) fn insert(&self, entry: Arc<Entry>) -> Vec<Arc<Entry>> {
        let mut evicted = Vec::new();
        let slot = Slot { charge: entry.charge() as u64, entry };
        self.cache.insert_with_lifecycle(slot.entry.key.key, slot, &mut evicted);
        self.evictions.fetch_add(evicted.len() as u64, Ordering::Relaxed);
        evicted
    }

    pub(crate) fn remove(&self, key: &[u8; 32]) -> Option<Arc<Entry>> {
        self.cache.remove(key).map(|(_, slot)| slot.entry)
    }

    /// Entries for which `is_dead` holds. Takes each shard's shared lock for a short while only.
    pub(crate) fn collect(&self, is_dead: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        self.cache.iter().map(|(_, slot)| slot.entry).filter(|entry| is_dead(entry)).collect()
    }

    /// Removes this very entry, unless another has taken its place.
    pub(crate) fn remove_entry(&self, entry: &Arc<Entry>) -> bool {
        self.cache.remove_if(&entry.key.key, |slot| Arc::ptr_eq(&slot.entry, entry)).is_some()
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.cache.clear();
    }

    /// Bytes that a single entry may be charged at most.
    pub(crate) fn entry_charge_max(&self) -> u64 {
        self.cache.shard_capacity()
    }

    pub(crate) fn len(&self) -> usize {
        self.cache.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
struct Charge;

impl Weighter<[u8; 32], Slot> for Charge {
    fn weight(&self, _: &[u8; 32], slot: &Slot) -> u64 {
        slot.charge
    }
}

/// Hands evicted entries to the caller of the insertion.
#[derive(Clone)]
struct Evictions;

impl Lifecycle<[u8; 32], Slot> for Evictions {
    type RequestState = Vec<Arc<Entry>>;

    fn on_evict(&self, state: &mut Self::RequestState, _: [u8; 32], slot: Slot) {
        state.push(slot.entry);
    }
}

/// Keys are keyed digests already: eight of their bytes are as good a hash as any.
#[derive(Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// The length of the array, which says nothing.
    fn write_usize(&mut self, _: usize) {}

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
