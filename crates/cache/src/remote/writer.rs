//! What waits to be written to Redis: bounded in bytes and in time, so that nobody waits for a write and nothing piles up
//! while Redis is away.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use refrain_core::Skip;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::Inner;
use super::probe::VectorMode;
use crate::embedder::Embedding;
use crate::entry::Entry;
use crate::key::CacheKey;

/// Writes that may wait, whatever their size.
const WRITES_MAX: usize = 1 << 15;
/// How long a write waits for Redis to come back.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a waiting write looks whether it has.
const LOOK: Duration = Duration::from_millis(50);
/// Writes under way at a time.
const BATCH: usize = 16;
/// Charged for a write beside its entry's bytes.
const OVERHEAD_BYTES: usize = 1 << 10;
/// An insertion into a vector set holds the server's only thread for milliseconds: after each, a pause this many times as
/// long leaves it to others.
const SET_PAUSE_FACTOR: u32 = 3;
/// The longest such pause.
const SET_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Something to write.
#[derive(Debug)]
enum Write {
    Put {
        entry: Arc<Entry>,
        vector: Option<Embedding>,
        since: Instant,
    },
    Remove {
        partition: [u8; 32],
        key: [u8; 32],
        since: Instant,
    },
    /// A claim is given back.
    Release {
        partition: [u8; 32],
        key: [u8; 32],
    },
    /// Everything before it was written or given up.
    Flush(oneshot::Sender<()>),
}

/// The queue's entrance.
pub(super) struct Queue {
    sender: mpsc::Sender<Write>,
    counts: Arc<Counts>,
    bytes_max: usize,
}

/// Where claims are given back.
#[derive(Clone, Debug)]
pub(super) struct Entrance(mpsc::Sender<Write>);

impl Entrance {
    /// Has a claim given back soon, if there is room.
    pub(super) fn release(&self, key: &CacheKey) {
        // Where there is none it expires.
        let _ = self.0.try_send(Write::Release { partition: key.partition, key: key.key });
    }
}

/// Numbers of the queue.
#[derive(Default)]
pub(super) struct Counts {
    bytes: AtomicUsize,
    pub(super) written: AtomicU64,
    pub(super) dropped: AtomicU64,
}

/// The queue's exit.
pub(super) struct Outlet {
    receiver: mpsc::Receiver<Write>,
    counts: Arc<Counts>,
}

/// An empty queue.
pub(super) fn queue(bytes_max: usize) -> (Queue, Outlet) {
    let (sender, receiver) = mpsc::channel(WRITES_MAX);
    let counts = Arc::new(Counts::default());
    (Queue { sender, counts: counts.clone(), bytes_max }, Outlet { receiver, counts })
}

impl Queue {
    /// Has an entry written soon.
    ///
    /// # Errors
    /// [`Skip::StoreBusy`]: too much waits.
    pub(super) fn put(&self, entry: Arc<Entry>, vector: Option<Embedding>) -> Result<(), Skip> {
        self.add(Write::Put { entry, vector, since: Instant::now() })
    }

    /// Has an entry removed soon.
    ///
    /// # Errors
    /// [`Skip::StoreBusy`]: too much waits.
    pub(super) fn remove(&self, partition: [u8; 32], key: [u8; 32]) -> Result<(), Skip> {
        self.add(Write::Remove { partition, key, since: Instant::now() })
    }

    /// Where claims are given back.
    pub(super) fn entrance(&self) -> Entrance {
        Entrance(self.sender.clone())
    }

    /// Waits until everything before was written or given up; false if the writer has ended.
    pub(super) async fn flush(&self) -> bool {
        let (done, told) = oneshot::channel();
        self.sender.send(Write::Flush(done)).await.is_ok() && told.await.is_ok()
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.counts.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    fn add(&self, write: Write) -> Result<(), Skip> {
        let bytes = write.charge();
        let before = self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        // A single one always fits: how large an entry may be is said elsewhere.
        let fits = before == 0 || before + bytes <= self.bytes_max;
        if fits && self.sender.try_send(write).is_ok() {
            return Ok(());
        }
        self.counts.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        Err(Skip::StoreBusy)
    }
}

impl Write {
    fn charge(&self) -> usize {
        match self {
            Self::Put { entry, .. } => OVERHEAD_BYTES + entry.record_bytes(),
            Self::Remove { .. } => OVERHEAD_BYTES,
            Self::Release { .. } | Self::Flush(_) => 0,
        }
    }

    fn key(&self) -> Option<[u8; 32]> {
        match self {
            Self::Put { entry, .. } => Some(entry.key.key),
            Self::Remove { key, .. } => Some(*key),
            Self::Release { .. } | Self::Flush(_) => None,
        }
    }
}

impl Outlet {
    /// Writes until nobody can add any more.
    pub(super) async fn run(mut self, store: Arc<Inner>) {
        let mut waiting = Vec::with_capacity(BATCH);
        while self.receiver.recv_many(&mut waiting, BATCH).await > 0 {
            let bytes: usize = waiting.iter().map(Write::charge).sum();
            write_batch(&store, &self.counts, std::mem::take(&mut waiting)).await;
            self.counts.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

async fn write_batch(store: &Arc<Inner>, counts: &Counts, batch: Vec<Write>) {
    let mut flushed = Vec::new();
    let mut released = Vec::new();
    // The last word on a key counts.
    let mut latest: HashMap<[u8; 32], Write> = HashMap::new();
    for write in batch {
        match (write.key(), write) {
            (Some(key), write) => _ = latest.insert(key, write),
            (None, Write::Flush(done)) => flushed.push(done),
            (None, Write::Release { partition, key }) => released.push((partition, key)),
            (None, _) => {}
        }
    }
    let is_slow = store.mode() == Some(VectorMode::VectorSets);
    if is_slow {
        for write in latest.into_values() {
            let began = Instant::now();
            let has_vector = matches!(&write, Write::Put { vector: Some(_), .. });
            attempt(store, counts, write).await;
            if has_vector {
                sleep((began.elapsed() * SET_PAUSE_FACTOR).min(SET_PAUSE_MAX)).await;
            }
        }
    } else {
        let writes = latest.into_values().map(|write| attempt(store, counts, write));
        futures_util::future::join_all(writes).await;
    }
    // After the answers: who waits for them looks there first.
    let released = released.iter().map(|(partition, key)| store.release(partition, key));
    futures_util::future::join_all(released).await;
    for done in flushed {
        // Who asked may have gone.
        let _ = done.send(());
    }
}

/// Writes, waiting for Redis if it is away, until patience ends.
async fn attempt(store: &Arc<Inner>, counts: &Counts, write: Write) {
    let since = match &write {
        Write::Put { since, .. } | Write::Remove { since, .. } => *since,
        Write::Release { .. } | Write::Flush(_) => return,
    };
    loop {
        if store.link.is_up() {
            let written = match &write {
                Write::Put { entry, vector, .. } => store.write(entry, vector.as_ref()).await,
                Write::Remove { partition, key, .. } => store.erase(partition, key).await,
                Write::Release { .. } | Write::Flush(_) => Ok(()),
            };
            match written {
                Ok(()) => {
                    counts.written.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                // The server is there and says no: it would again.
                Err(trouble) if trouble.trouble.is_of_one_command() => break,
                Err(_) => {}
            }
        }
        if since.elapsed() > PATIENCE {
            break;
        }
        sleep(LOOK).await;
    }
    counts.dropped.fetch_add(1, Ordering::Relaxed);
}
