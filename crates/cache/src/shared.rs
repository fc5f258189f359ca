//! What the store's callers and its threads share: memory, vectors, the keys on disk, and the order of changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use refrain_core::settings::EmbeddedStore;
use refrain_llm::answer::Rendering;

use crate::disk::{Place, Places};
use crate::embedder::Embedding;
use crate::entry::Entry;
use crate::key::CacheKey;
use crate::memory::Memory;
use crate::purge::{Bans, Epoch, Jobs, Verdict};
use crate::vectors::VectorIndex;

/// Share of the memory bound that vectors may take: one part in this many.
const VECTOR_SHARE: usize = 4;
/// Rendered bodies up to this size are kept with their entry.
const KEPT_BODY_BYTES_MAX: usize = 256 << 10;
/// Removals that may wait for the writer.
const REMOVALS_MAX: usize = 1 << 16;
/// Locks that order changes of one key.
const CHANGE_SHARDS: usize = 64;

pub(crate) struct Shared {
    pub(crate) memory: Memory,
    pub(crate) vectors: VectorIndex,
    pub(crate) places: Places,
    pub(crate) counts: Counts,
    pub(crate) bans: Bans,
    /// Held shared by an insertion from its look at the bans to its end, and alone for the moment in which a purge begins:
    /// so a sweep finds whatever was let in before.
    pub(crate) fills: RwLock<()>,
    pub(crate) purges: Jobs,
    disk_up: AtomicBool,
    /// Another process has the directory still.
    waiting: AtomicBool,
    /// Vectors stay when their entries leave memory: they lead to the shared store.
    keeps_vectors: AtomicBool,
    /// Keys that the writer has yet to remove from disk, with the moment of their removal: beside the write queue, so that
    /// a purge is never lost to a full one.
    removals: Mutex<HashMap<[u8; 32], Moment>>,
    moments: AtomicU64,
    /// Counts changes of the keys of a shard, so that what was read before a change is not put in after it. Taken by
    /// whoever changes a key, never by reads from memory.
    changes: [Mutex<u64>; CHANGE_SHARDS],
}

/// A place in the order of writes and removals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

/// Numbers that only grow, but for `queued`.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) vectors_refused: AtomicU64,
    pub(crate) vectors_rebuilt: AtomicUsize,
    pub(crate) queued: AtomicUsize,
    pub(crate) queued_bytes: AtomicU64,
    pub(crate) disk_evictions: AtomicU64,
    pub(crate) quarantined: AtomicU64,
    pub(crate) write_errors: AtomicU64,
    pub(crate) read_errors: AtomicU64,
    pub(crate) file_bytes: AtomicU64,
}

impl Shared {
    pub(crate) fn new(settings: &EmbeddedStore) -> Self {
        let vector_bytes = settings.memory_bytes_max / VECTOR_SHARE;
        Self {
            memory: Memory::new((settings.memory_bytes_max - vector_bytes) as u64),
            vectors: VectorIndex::new(vector_bytes),
            places: Places::new(),
            counts: Counts::default(),
            bans: Bans::new(Epoch::ZERO),
            fills: RwLock::new(()),
            purges: Jobs::new(),
            disk_up: AtomicBool::new(settings.dir.is_some()),
            waiting: AtomicBool::new(false),
            keeps_vectors: AtomicBool::new(false),
            removals: Mutex::new(HashMap::new()),
            moments: AtomicU64::new(0),
            changes: std::array::from_fn(|_| Mutex::new(0)),
        }
    }

    pub(crate) fn find(&self, key: &CacheKey, now_ms: u64) -> Option<Arc<Entry>> {
        self.memory.find(&key.key).filter(|entry| entry.answers(key) && entry.is_retained(now_ms))
    }

    /// The entry as the purges leave it; none if it may not be served at all.
    pub(crate) fn standing(&self, entry: Arc<Entry>, now_ms: u64) -> Option<Arc<Entry>> {
        match self.bans.verdict(&entry) {
            Verdict::Clear => Some(entry),
            Verdict::Gone => None,
            // Whoever purged may have another clock: it takes effect now.
            Verdict::Stale { since_ms } => {
                let expired = self.replace(&entry, entry.expired_at(since_ms.min(now_ms)));
                Some(expired).filter(|entry| entry.is_retained(now_ms))
            }
        }
    }

    /// Puts another state of an entry into its place in memory, if it is there still.
    pub(crate) fn replace(&self, entry: &Arc<Entry>, by: Entry) -> Arc<Entry> {
        let by = Arc::new(by);
        let mut changes = self.changes(&entry.key.key).lock();
        if self.memory.holds(entry) {
            *changes += 1;
            let evicted = self.memory.insert(by.clone());
            drop(changes);
            self.forget_vectors(&evicted, None);
        }
        by
    }

    /// Removes this very entry from memory, and the vector that leads nowhere then.
    pub(crate) fn let_go(&self, entry: &Arc<Entry>) {
        let CacheKey { partition, key, fingerprint: _ } = entry.key;
        self.memory.remove_entry(entry);
        self.forget_vector(&partition, &key);
    }

    /// A purge has removed an entry from disk: it leaves memory too, unless a newer one stands there.
    pub(crate) fn purged(&self, key: &CacheKey, is_about: impl Fn(&Entry) -> bool) {
        let CacheKey { partition, key, fingerprint: _ } = key;
        let mut changes = self.changes(key).lock();
        *changes += 1;
        self.places.remove(key);
        if let Some(known) = self.memory.peek(key).filter(|known| is_about(known)) {
            self.memory.remove_entry(&known);
        }
        drop(changes);
        self.forget_vector(partition, key);
    }

    /// A record has changed in its place: what was read before is out of date.
    pub(crate) fn rewritten(&self, key: &[u8; 32]) {
        *self.changes(key).lock() += 1;
    }

    /// Puts an entry into memory, and then its vector, so that whoever finds the vector finds the entry.
    pub(crate) fn put(&self, entry: &Arc<Entry>, vector: Option<&Embedding>) {
        let CacheKey { partition, key, fingerprint: _ } = entry.key;
        let mut changes = self.changes(&key).lock();
        *changes += 1;
        let evicted = self.memory.insert(entry.clone());
        match vector.map(|vector| self.vectors.insert(partition, key, vector)) {
            Some(Ok(())) => {}
            Some(Err(_)) => Counts::add(&self.counts.vectors_refused),
            None => _ = self.vectors.remove(&partition, &key),
        }
        drop(changes);
        self.forget_vectors(&evicted, Some(entry));
    }

    /// Removes an entry from memory, its vector, and the knowledge of it on disk. False if too many removals wait for the
    /// disk: then it is there again after a restart.
    pub(crate) fn remove(&self, key: &CacheKey) -> bool {
        let mut changes = self.changes(&key.key).lock();
        *changes += 1;
        self.vectors.remove(&key.partition, &key.key);
        self.memory.remove(&key.key);
        self.remove_from_disk(&key.key)
    }

    /// Removes a place that leads to nothing, unless its key has got another one meanwhile; whether it did.
    pub(crate) fn forget_place(&self, key: &[u8; 32], place: Place) -> bool {
        let _changes = self.changes(key).lock();
        self.places.find(key) == Some(place) && self.remove_from_disk(key)
    }

    fn remove_from_disk(&self, key: &[u8; 32]) -> bool {
        self.places.hide(key);
        let mut removals = self.removals.lock();
        let has_room = !self.is_disk_up() || removals.len() < REMOVALS_MAX;
        if has_room && self.is_disk_up() {
            removals.insert(*key, self.moment());
        }
        has_room
    }

    /// The next moment.
    pub(crate) fn moment(&self) -> Moment {
        Moment(self.moments.fetch_add(1, Ordering::Relaxed))
    }

    /// Removals that wait for the writer.
    pub(crate) fn removals(&self) -> Vec<([u8; 32], Moment)> {
        self.removals.lock().iter().map(|(key, moment)| (*key, *moment)).collect()
    }

    /// The writer has removed a key, as of that moment.
    pub(crate) fn removed(&self, key: &[u8; 32], moment: Moment) {
        let _changes = self.changes(key).lock();
        self.places.remove(key);
        let mut removals = self.removals.lock();
        if removals.get(key) == Some(&moment) {
            removals.remove(key);
        }
    }

    /// The number of changes so far of the keys that share this one's lock.
    pub(crate) fn change(&self, key: &[u8; 32]) -> u64 {
        *self.changes(key).lock()
    }

    /// Puts into memory what was read from disk, unless something of its shard has changed since; whether it may be
    /// served.
    pub(crate) fn promote(&self, entry: &Arc<Entry>, change: u64) -> bool {
        let changes = self.changes(&entry.key.key).lock();
        if *changes != change {
            // Perhaps another key of the shard: then this one is still known, and can be served without being kept.
            return self
                .places
                .find(&entry.key.key)
                .is_some_and(|place| place.retained_until_ms == entry.meta.retained_until_ms());
        }
        let evicted = self.memory.insert(entry.clone());
        drop(changes);
        self.forget_vectors(&evicted, Some(entry));
        true
    }

    /// Puts into memory what was read from the shared store, unless something of its shard has changed since.
    pub(crate) fn adopt(&self, entry: &Arc<Entry>, change: u64) {
        let changes = self.changes(&entry.key.key).lock();
        if *changes == change {
            let evicted = self.memory.insert(entry.clone());
            drop(changes);
            self.forget_vectors(&evicted, None);
        }
    }

    /// Keeps what was found by its vector in the shared store, with that vector, unless an entry of its key is known.
    pub(crate) fn put_if_absent(&self, entry: &Arc<Entry>, vector: &Embedding) {
        if !self.memory.contains(&entry.key.key) {
            self.put(entry, Some(vector));
        }
    }

    /// Forgets an entry that the shared store has replaced or removed. Its vector stays where all are kept: the store has
    /// another one by now, or the sweep forgets it.
    pub(crate) fn forget(&self, partition: &[u8; 32], key: &[u8; 32]) {
        let mut changes = self.changes(key).lock();
        *changes += 1;
        self.memory.remove(key);
        if !self.keeps_vectors.load(Ordering::Relaxed) {
            self.vectors.remove(partition, key);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for lock in &self.changes {
            *lock.lock() += 1;
        }
        self.memory.clear();
        self.vectors.clear();
    }

    /// Whether vectors stay when their entries leave memory.
    pub(crate) fn keep_vectors(&self, keep: bool) {
        self.keeps_vectors.store(keep, Ordering::Relaxed);
    }

    /// Keeps a body if its entry is still in memory; the entry is charged anew.
    pub(crate) fn keep(&self, entry: &Arc<Entry>, rendering: Rendering, body: &Bytes) {
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
        self.forget_vectors(&evicted, None);
    }

    /// Notes that an entry is on disk now; hidden if it has been removed since the moment of its insertion.
    pub(crate) fn written(&self, entry: &Entry, bytes: u32, moment: Moment) {
        let key = &entry.key.key;
        let _changes = self.changes(key).lock();
        let mut removals = self.removals.lock();
        let hidden = removals.get(key).is_some_and(|removal| *removal > moment);
        if !hidden {
            removals.remove(key);
        }
        self.places.insert(key, Place { retained_until_ms: entry.meta.retained_until_ms(), bytes, hidden });
    }

    /// Removes the vector that leads nowhere, if so: neither to memory nor to disk.
    pub(crate) fn forget_vector(&self, partition: &[u8; 32], key: &[u8; 32]) {
        let _changes = self.changes(key).lock();
        if !self.memory.contains(key) && self.places.find(key).is_none() {
            self.vectors.remove(partition, key);
        }
    }

    /// Removes the vector of an entry that is no candidate any more, unless a newer entry has taken its place.
    pub(crate) fn retire_vector(&self, entry: &Arc<Entry>) {
        let CacheKey { partition, key, fingerprint: _ } = &entry.key;
        let _changes = self.changes(key).lock();
        if self.memory.peek(key).is_none_or(|known| Arc::ptr_eq(&known, entry)) {
            self.vectors.remove(partition, key);
        }
    }

    /// Removes entries from memory that may no longer be served, and their vectors.
    pub(crate) fn sweep(&self, now_ms: u64) {
        for entry in self.memory.collect(|entry| !entry.is_retained(now_ms)) {
            self.let_go(&entry);
        }
    }

    pub(crate) fn is_disk_up(&self) -> bool {
        self.disk_up.load(Ordering::Acquire)
    }

    /// Whether another process has the directory still.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// In memory only, until the other process lets go of the directory.
    pub(crate) fn disk_waits(&self) {
        self.waiting.store(true, Ordering::Release);
        self.disk_up.store(false, Ordering::Release);
    }

    /// The directory is this process's: what is stored or removed from now on is noted for it.
    pub(crate) fn disk_up(&self) {
        self.disk_up.store(true, Ordering::Release);
    }

    /// What is in the directory is known.
    pub(crate) fn disk_waits_no_more(&self) {
        self.waiting.store(false, Ordering::Release);
    }

    /// From now on the store is in memory only.
    pub(crate) fn disk_down(&self) {
        self.disk_up.store(false, Ordering::Release);
        self.removals.lock().clear();
        self.places.clear();
    }

    /// Forgets the vectors of what was evicted; an entry that is on its way to disk keeps its own.
    fn forget_vectors(&self, evicted: &[Arc<Entry>], on_its_way: Option<&Arc<Entry>>) {
        if self.keeps_vectors.load(Ordering::Relaxed) {
            return;
        }
        let on_its_way = on_its_way.filter(|_| self.is_disk_up());
        for entry in evicted.iter().filter(|entry| on_its_way.is_none_or(|kept| !Arc::ptr_eq(kept, entry))) {
            self.forget_vector(&entry.key.partition, &entry.key.key);
        }
    }

    fn changes(&self, key: &[u8; 32]) -> &Mutex<u64> {
        &self.changes[usize::from(key[1]) % CHANGE_SHARDS]
    }
}

impl Counts {
    pub(crate) fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Reserves room in the write queue for an entry; false if there is none.
    pub(crate) fn enqueue(&self, bytes: u64, bytes_max: u64) -> bool {
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.queued.fetch_add(1, Ordering::Relaxed);
        // A single entry always fits: what a large one may be is the settings' to say.
        if queued > 0 && queued + bytes > bytes_max {
            self.dequeue(bytes);
            return false;
        }
        true
    }

    pub(crate) fn dequeue(&self, bytes: u64) {
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }
}
