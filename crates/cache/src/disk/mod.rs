//! Entries on disk: what survives a restart, and a killed process.
//!
//! One thread writes, a few read, a table in memory says what is there. Callers never wait for a write; a read is awaited
//! for a quarter of a second at most. If the disk fails, the store goes on in memory.

mod places;
mod purge;
mod reader;
mod rebuild;
mod tables;
mod waiting;
mod writer;

use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use refrain_core::Skip;
use refrain_core::settings::WhenLocked;
use tokio::sync::oneshot;

use crate::embedder::Embedding;
use crate::entry::Entry;
use crate::error::StoreError;
use crate::secret::KeySecret;
use crate::shared::{Counts, Shared};
use crate::store::unix_ms;
pub(crate) use places::{Place, Places};
use reader::{READ_BUDGET, READ_QUEUE_MAX, READERS, ReadOp, Reader};
use tables::Tables;
use waiting::Waiting;
use writer::{WRITE_QUEUE_BYTES_MAX, WRITE_QUEUE_MAX, WriteOp, Writer};

/// Where a disk tier is and what bounds it.
pub(crate) struct DiskOptions<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) bytes_max: u64,
    pub(crate) secret: &'a Arc<KeySecret>,
    /// Names the model of the vectors.
    pub(crate) embedder: Option<[u8; 32]>,
    pub(crate) when_locked: WhenLocked,
}

/// The store's threads. Without a directory there is the writer alone, which then only sweeps.
pub(crate) struct Disk {
    shared: Arc<Shared>,
    writes: SyncSender<WriteOp>,
    reads: Option<SyncSender<ReadOp>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Disk {
    /// Starts the sweeping thread of a store in memory.
    pub(crate) fn none(shared: &Arc<Shared>) -> Result<Self, StoreError> {
        Self::start(shared, None, Writer::sweeper)
    }

    /// Opens the files, rebuilds what memory must know of them, and starts the threads. A directory that another process has
    /// may be waited for.
    pub(crate) fn open(shared: &Arc<Shared>, options: &DiskOptions<'_>) -> Result<Self, StoreError> {
        let DiskOptions { dir, bytes_max, secret, embedder, when_locked } = *options;
        std::fs::create_dir_all(dir).map_err(|source| StoreError::Directory { dir: dir.into(), source })?;
        let known = Arc::new(OnceLock::new());
        let tables = match Tables::open(dir, secret) {
            Err(StoreError::Locked { .. }) if when_locked == WhenLocked::Wait => {
                tracing::warn!(dir = %dir.display(), "another process has the store's directory; in memory until it ends");
                shared.disk_waits();
                let (dir, secret, since_ms) = (dir.to_owned(), secret.clone(), unix_ms());
                let waiting = Waiting { dir, bytes_max, secret, embedder, tables: known.clone(), since_ms };
                return Self::start(shared, Some(known), |shared, queue| {
                    Writer::waiting(shared, queue, waiting)
                });
            }
            opened => Arc::new(opened?),
        };
        shared.bans.settle(tables.epoch());
        let front = rebuild::rebuild(shared, &tables, embedder);
        _ = known.set(tables.clone());
        Self::start(shared, Some(known), move |shared, queue| {
            Writer::new(shared, queue, tables, writer::Bounds { bytes_max }, embedder, front)
        })
    }

    fn start(
        shared: &Arc<Shared>,
        tables: Option<Arc<OnceLock<Arc<Tables>>>>,
        writer: impl FnOnce(Arc<Shared>, std::sync::mpsc::Receiver<WriteOp>) -> Writer,
    ) -> Result<Self, StoreError> {
        let (writes, queue) = sync_channel(WRITE_QUEUE_MAX);
        let writer = writer(shared.clone(), queue);
        let mut threads = vec![spawn("refrain-store-write", move || writer.run())?];
        let reads = match tables {
            Some(tables) => Some(start_readers(shared, &tables, &mut threads)?),
            None => None,
        };
        Ok(Self { shared: shared.clone(), writes, reads, threads: Mutex::new(threads) })
    }

    /// Queues an entry for the disk. `Ok` also without a disk, or with one that failed.
    pub(crate) fn put(&self, entry: &Arc<Entry>, vector: Option<&Embedding>) -> Result<(), Skip> {
        if !self.shared.is_disk_up() {
            return Ok(());
        }
        let bytes = entry.record_bytes() as u64;
        if !self.shared.counts.enqueue(bytes, WRITE_QUEUE_BYTES_MAX) {
            return Err(Skip::StoreBusy);
        }
        let put =
            WriteOp::Put { entry: entry.clone(), vector: vector.cloned(), moment: self.shared.moment() };
        match self.writes.try_send(put) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => {
                self.shared.counts.dequeue(bytes);
                Err(Skip::StoreBusy)
            }
            Err(TrySendError::Disconnected(_)) => {
                self.shared.counts.dequeue(bytes);
                Ok(())
            }
        }
    }

    /// Lets the writer see to what was removed, if it isn't at work already.
    pub(crate) fn wake(&self) {
        _ = self.writes.try_send(WriteOp::Wake);
    }

    /// Reads an entry that is known to be on disk; `None` also if that takes too long.
    pub(crate) async fn read(&self, key: [u8; 32]) -> Option<Arc<Entry>> {
        let reads = self.reads.as_ref()?;
        let (reply, answer) = oneshot::channel();
        if reads.try_send(ReadOp::Read { key, reply }).is_err() {
            Counts::add(&self.shared.counts.read_errors);
            return None;
        }
        match tokio::time::timeout(READ_BUDGET, answer).await {
            Ok(Ok(entry)) => entry,
            Ok(Err(_)) | Err(_) => {
                Counts::add(&self.shared.counts.read_errors);
                None
            }
        }
    }

    /// Waits until everything queued so far is synced.
    pub(crate) async fn flush(&self) -> Result<(), Skip> {
        let (reply, done) = oneshot::channel();
        self.writes.try_send(WriteOp::Flush(reply)).map_err(|error| match error {
            TrySendError::Full(_) => Skip::StoreBusy,
            TrySendError::Disconnected(_) => Skip::StoreDown,
        })?;
        done.await.map_err(|_| Skip::StoreDown)
    }

    /// Ends the threads, writing what waits. Blocks.
    pub(crate) fn close(&self) {
        // Each waits for room in the queue; an error means that the thread has ended already.
        if let Some(reads) = &self.reads {
            (0..READERS).for_each(|_| _ = reads.send(ReadOp::Close));
        }
        _ = self.writes.send(WriteOp::Close);
        for thread in self.threads.lock().drain(..) {
            _ = thread.join();
        }
    }
}

fn start_readers(
    shared: &Arc<Shared>,
    tables: &Arc<OnceLock<Arc<Tables>>>,
    threads: &mut Vec<JoinHandle<()>>,
) -> Result<SyncSender<ReadOp>, StoreError> {
    let (reads, queue) = sync_channel(READ_QUEUE_MAX);
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..READERS {
        let reader = Reader { shared: shared.clone(), tables: tables.clone(), queue: queue.clone() };
        threads.push(spawn("refrain-store-read", move || reader.run())?);
    }
    Ok(reads)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new().name(name.into()).spawn(run).map_err(StoreError::Thread)
}
