//! The one thread that changes the files, and sweeps what has expired.
//!
//! It commits what has come up to a batch, and syncs about each second: a power failure loses that second, and a killed
//! process nothing that was committed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::purge::{Rest, Walk};
use super::tables::{IndexKey, Tables};
use super::waiting::{TakenOver, Waiting};
use crate::embedder::Embedding;
use crate::entry::Entry;
use crate::error::PurgeError;
use crate::shared::{Counts, Moment, Shared};
use crate::store::unix_ms;

/// Writes that may wait.
pub(super) const WRITE_QUEUE_MAX: usize = 1024;
/// Bytes of entries that may wait.
pub(super) const WRITE_QUEUE_BYTES_MAX: u64 = 64 << 20;
/// Writes that one commit takes at most.
const BATCH_MAX: usize = 128;
/// How often commits are synced.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// How often what has expired is removed.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Entries that one commit removes at most.
const SWEEP_BATCH_MAX: usize = 512;
/// Room made at once when the disk is full, in percent of the bound: eviction in single steps would cost a scan each.
const EVICT_PERCENT: u64 = 2;

/// What the writer is asked to do.
pub(super) enum WriteOp {
    Put {
        entry: Arc<Entry>,
        vector: Option<Embedding>,
        moment: Moment,
    },
    /// There are removals.
    Wake,
    Flush(oneshot::Sender<()>),
    Close,
}

/// The writing thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    queue: Receiver<WriteOp>,
    disk: Option<Files>,
    /// Files that another process has still.
    waiting: Option<Waiting>,
    /// A purge under way.
    purge: Option<Walk>,
    /// The disk did not take something that it should have: it may hold what was purged.
    lost: bool,
    /// Somebody asked it to end.
    closed: bool,
}

/// What the writer needs of the disk.
struct Files {
    tables: Arc<Tables>,
    bounds: Bounds,
    /// Names the model of the vectors that are stored.
    embedder: Option<[u8; 32]>,
    /// Nothing in the index lies before it, so that scans don't walk over what they removed.
    front: Option<IndexKey>,
}

/// Bounds of the files.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Of all records.
    pub(super) bytes_max: u64,
}

impl Writer {
    /// One that only sweeps memory.
    pub(super) fn sweeper(shared: Arc<Shared>, queue: Receiver<WriteOp>) -> Self {
        Self { shared, queue, disk: None, waiting: None, purge: None, lost: false, closed: false }
    }

    /// One that takes files over as soon as another process lets go of them.
    pub(super) fn waiting(shared: Arc<Shared>, queue: Receiver<WriteOp>, waiting: Waiting) -> Self {
        Self { waiting: Some(waiting), ..Self::sweeper(shared, queue) }
    }

    pub(super) fn new(
        shared: Arc<Shared>,
        queue: Receiver<WriteOp>,
        tables: Arc<Tables>,
        bounds: Bounds,
        embedder: Option<[u8; 32]>,
        front: Option<IndexKey>,
    ) -> Self {
        let disk = Some(Files { tables, bounds, embedder, front });
        Self { disk, ..Self::sweeper(shared, queue) }
    }

    pub(super) fn run(mut self) {
        // However it ends, nobody shall look for entries that nobody writes or removes.
        let _down = Down(self.shared.clone());
        let (mut synced, mut swept) = (Instant::now(), Instant::now());
        let mut dirty = false;
        self.sweep();
        loop {
            self.take_over();
            self.begin_purge();
            let patience = if self.purge.is_some() { Duration::ZERO } else { SYNC_EVERY };
            let ops = self.gather(patience.saturating_sub(synced.elapsed()));
            dirty |= self.apply(ops);
            dirty |= self.purge_some();
            if self.closed || synced.elapsed() >= SYNC_EVERY {
                self.sync(dirty);
                (synced, dirty) = (Instant::now(), false);
            }
            if self.closed {
                return;
            }
            if swept.elapsed() >= SWEEP_EVERY {
                self.sweep();
                swept = Instant::now();
            }
        }
    }

    /// Looks whether the other process has let go of the files.
    fn take_over(&mut self) {
        let Some(waiting) = &self.waiting else { return };
        match waiting.look(&self.shared) {
            Ok(None) => return,
            Ok(Some(TakenOver { tables, front })) => {
                let (bounds, embedder) = (Bounds { bytes_max: waiting.bytes_max }, waiting.embedder);
                self.disk = Some(Files { tables, bounds, embedder, front });
                self.write_memory();
            }
            Err(error) => {
                tracing::error!(%error, "the store's directory can't be taken over; it goes on in memory");
                self.shared.disk_waits_no_more();
            }
        }
        self.waiting = None;
    }

    /// Puts on disk what was stored before there was one; without vectors: after a restart it answers exact repeats.
    fn write_memory(&mut self) {
        let moment = self.shared.moment();
        let entries = self.shared.memory.collect(|entry| self.shared.places.find(&entry.key.key).is_none());
        let count = entries.len();
        for entries in entries.chunks(BATCH_MAX) {
            let put = |entry: &Arc<Entry>| Change { moment, put: Some((entry.clone(), None)) };
            self.commit(entries.iter().map(|entry| (entry.key.key, put(entry))).collect());
        }
        tracing::info!(entries = count, "what was stored while waiting is on disk");
    }

    /// What has come, or comes within `patience`.
    fn gather(&mut self, patience: Duration) -> Vec<WriteOp> {
        match self.queue.recv_timeout(patience) {
            Ok(first) => std::iter::once(first).chain(self.queue.try_iter().take(BATCH_MAX - 1)).collect(),
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => {
                self.closed = true;
                Vec::new()
            }
        }
    }

    /// Commits a batch; whether there was anything to write.
    fn apply(&mut self, mut ops: Vec<WriteOp>) -> bool {
        let removals = self.shared.removals();
        if !removals.is_empty() || self.purge.as_ref().is_some_and(Walk::begins) {
            // What was inserted before a removal or a purge is in the queue: it must not come after it.
            ops.extend(self.queue.try_iter().take(WRITE_QUEUE_MAX));
        }
        let mut changes = HashMap::new();
        for (key, moment) in removals {
            changes.insert(key, Change { moment, put: None });
        }
        let mut flushes = Vec::new();
        for op in ops {
            match op {
                WriteOp::Put { entry, vector, moment } => {
                    self.shared.counts.dequeue(entry.record_bytes() as u64);
                    let (key, change) = (entry.key.key, Change { moment, put: Some((entry, vector)) });
                    Change::add(&mut changes, key, change);
                }
                WriteOp::Flush(reply) => flushes.push(reply),
                WriteOp::Wake => {}
                WriteOp::Close => self.closed = true,
            }
        }
        let dirty = !changes.is_empty() && self.commit(changes);
        if !flushes.is_empty() {
            self.sync(true);
            flushes.into_iter().for_each(|reply| _ = reply.send(()));
        }
        dirty
    }

    fn commit(&mut self, changes: HashMap<[u8; 32], Change>) -> bool {
        let Some(files) = &mut self.disk else { return false };
        match files.commit(&self.shared, changes).and_then(|()| files.make_room(&self.shared)) {
            Ok(()) => true,
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    /// Takes up the next purge when the last one has ended.
    fn begin_purge(&mut self) {
        if self.purge.is_none() {
            self.purge = self.shared.purges.next().map(Walk::new);
        }
    }

    /// A step of the purge under way; whether there was one.
    fn purge_some(&mut self) -> bool {
        let Some(mut walk) = self.purge.take() else { return false };
        let tables = self.disk.as_ref().map(|files| &*files.tables);
        match walk.step(&self.shared, tables) {
            Ok(Rest::Some) => self.purge = Some(walk),
            Ok(Rest::None) => self.end_purge(walk),
            Err(error) => self.purge_failed(walk, &error),
        }
        true
    }

    /// What was purged has left memory: once it has left the disk for good, it is over.
    fn end_purge(&mut self, walk: Walk) {
        let Some(epoch) = walk.job.epoch else { return walk.job.end(Ok(walk.report)) };
        if let Some(Err(error)) = self.disk.as_ref().map(|files| files.tables.sync()) {
            return self.purge_failed(walk, &error);
        }
        if self.lost {
            return walk.job.end(Err(PurgeError::Disk));
        }
        self.shared.bans.settle(epoch);
        walk.job.end(Ok(walk.report));
    }

    /// It stays in force as long as the process lives.
    fn purge_failed(&mut self, walk: Walk, error: &fjall::Error) {
        self.failed(error);
        self.lost |= walk.job.epoch.is_some();
        walk.job.end(Err(PurgeError::Disk));
    }

    fn sync(&mut self, dirty: bool) {
        let result = self.disk.as_ref().filter(|_| dirty).map(|files| files.tables.sync());
        if let Some(Err(error)) = result {
            self.failed(&error);
        }
    }

    fn sweep(&mut self) {
        let now_ms = unix_ms();
        self.shared.sweep(now_ms);
        let Some(files) = &mut self.disk else { return };
        let result = files.sweep(&self.shared, now_ms);
        self.shared.counts.file_bytes.store(files.tables.file_bytes(), Ordering::Relaxed);
        if let Err(error) = result {
            self.failed(&error);
        }
    }

    /// A failed write loses what it should have written. An engine that takes no more writes ends the disk tier.
    fn failed(&mut self, error: &fjall::Error) {
        Counts::add(&self.shared.counts.write_errors);
        tracing::warn!(%error, "the store could not write to disk");
        if matches!(error, fjall::Error::Poisoned) {
            tracing::error!(
                "the store's files take no more writes; it goes on in memory: check the disk and restart"
            );
            self.shared.disk_down();
            self.disk = None;
            self.lost = true;
        }
    }
}

/// What one batch does to one key: engines give no order to two writes of a key within a batch.
struct Change {
    moment: Moment,
    /// None: the key is removed.
    put: Option<(Arc<Entry>, Option<Embedding>)>,
}

impl Change {
    /// The latest wins.
    fn add(changes: &mut HashMap<[u8; 32], Self>, key: [u8; 32], change: Self) {
        match changes.get(&key) {
            Some(known) if known.moment > change.moment => {}
            _ => _ = changes.insert(key, change),
        }
    }
}

impl Files {
    /// Invariant: each answer has exactly one place in the index, and each place an answer.
    fn commit(&mut self, shared: &Shared, changes: HashMap<[u8; 32], Change>) -> fjall::Result<()> {
        let mut batch = self.tables.batch();
        let (mut written, mut removed) = (Vec::new(), Vec::new());
        for (key, Change { moment, put }) in changes {
            let before = shared.places.on_disk(&key).map(|place| place.retained_until_ms);
            let after = put.as_ref().map(|(entry, _)| entry.meta.retained_until_ms());
            if let Some(retained_until_ms) = before.filter(|_| before != after) {
                batch.remove_place(IndexKey { retained_until_ms, key });
            }
            match put {
                Some((entry, vector)) => {
                    let bytes = batch.put(&entry, self.embedder.zip(vector));
                    written.push((entry, bytes, moment));
                }
                None => {
                    batch.remove_answer(key);
                    removed.push((key, moment));
                }
            }
        }
        batch.commit()?;
        for (entry, bytes, moment) in written {
            let at = IndexKey { retained_until_ms: entry.meta.retained_until_ms(), key: entry.key.key };
            self.front = Some(self.front.map_or(at, |front| front.min(at)));
            shared.written(&entry, bytes, moment);
        }
        removed.iter().for_each(|(key, moment)| shared.removed(key, *moment));
        Ok(())
    }

    /// Evicts what expires first, until the records fit.
    fn make_room(&mut self, shared: &Shared) -> fjall::Result<()> {
        let bytes_max = self.bounds.bytes_max;
        if shared.places.bytes() <= bytes_max {
            return Ok(());
        }
        let target = bytes_max - bytes_max / 100 * EVICT_PERCENT;
        while shared.places.bytes() > target {
            let before = shared.places.len();
            if self.remove_first(shared, u64::MAX, shared.places.bytes() - target)? == 0 {
                break;
            }
            let gone = before.saturating_sub(shared.places.len()) as u64;
            shared.counts.disk_evictions.fetch_add(gone, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Removes what has expired.
    fn sweep(&mut self, shared: &Shared, now_ms: u64) -> fjall::Result<()> {
        while self.remove_first(shared, now_ms, u64::MAX)? == SWEEP_BATCH_MAX {}
        Ok(())
    }

    /// Removes places from the front on, that expire until `until_ms`, until so many bytes are free; how many.
    fn remove_first(&mut self, shared: &Shared, until_ms: u64, bytes: u64) -> fjall::Result<usize> {
        let mut batch = self.tables.batch();
        let (mut gone, mut freed) = (Vec::new(), 0);
        for item in self.tables.places(self.front).take(SWEEP_BATCH_MAX) {
            let (at, record) = item?;
            if at.retained_until_ms > until_ms || freed >= bytes {
                break;
            }
            // A place that its key has left leads to nothing of its own: the answer belongs to the newer place.
            let newer = shared
                .places
                .on_disk(&at.key)
                .is_some_and(|place| place.retained_until_ms != at.retained_until_ms);
            if !newer {
                batch.remove_answer(at.key);
            }
            batch.remove_place(at);
            freed += record.as_ref().map_or(0, |record| u64::from(record.bytes));
            gone.push((at, record.ok().map(|record| record.partition), newer));
        }
        batch.commit()?;
        self.front = gone.last().map(|(at, _, _)| *at).or(self.front);
        for (at, partition, newer) in &gone {
            if !newer {
                shared.places.remove(&at.key);
            }
            if let Some(partition) = partition {
                shared.forget_vector(partition, &at.key);
            }
        }
        Ok(gone.len())
    }
}

/// Turns the disk tier off when the writer ends.
struct Down(Arc<Shared>);

impl Drop for Down {
    fn drop(&mut self) {
        self.0.disk_down();
        self.0.purges.close();
    }
}
