//! Reads from disk, off the reactors: a bounded queue before a few threads.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::places::Place;
use super::tables::{ReadError, Tables};
use crate::entry::Entry;
use crate::shared::{Counts, Shared};

/// Threads that read.
pub(super) const READERS: usize = 2;
/// Reads that may wait.
pub(super) const READ_QUEUE_MAX: usize = 256;
/// Longest that a request waits for the disk: then it goes on as a miss.
pub(super) const READ_BUDGET: Duration = Duration::from_millis(250);

/// A key to read and who waits for it.
pub(super) enum ReadOp {
    Read { key: [u8; 32], reply: oneshot::Sender<Option<Arc<Entry>>> },
    Close,
}

/// One reading thread.
pub(super) struct Reader {
    pub(super) shared: Arc<Shared>,
    /// Not there as long as another process has them.
    pub(super) tables: Arc<OnceLock<Arc<Tables>>>,
    pub(super) queue: Arc<Mutex<Receiver<ReadOp>>>,
}

impl Reader {
    pub(super) fn run(self) {
        loop {
            let next = self.queue.lock().recv();
            match next {
                // Nobody waits any more: the budget is spent.
                Ok(ReadOp::Read { reply, .. }) if reply.is_closed() => {}
                Ok(ReadOp::Read { key, reply }) => _ = reply.send(self.read(&key)),
                Ok(ReadOp::Close) | Err(_) => return,
            }
        }
    }

    /// Reads an entry and puts it into memory, unless its key has changed meanwhile.
    fn read(&self, key: &[u8; 32]) -> Option<Arc<Entry>> {
        let change = self.shared.change(key);
        let place = self.shared.places.find(key)?;
        match self.tables.get()?.read(key) {
            Ok(Some(entry)) => {
                let entry = Arc::new(entry);
                self.shared.promote(&entry, change).then_some(entry)
            }
            Ok(None) => {
                self.shared.forget_place(key, place);
                None
            }
            Err(error) => {
                self.set_aside(key, place, &error);
                None
            }
        }
    }

    /// A damaged record is invisible from now on, and deleted when the writer comes to it, within a second.
    fn set_aside(&self, key: &[u8; 32], place: Place, error: &ReadError) {
        if self.shared.forget_place(key, place) {
            Counts::add(&self.shared.counts.quarantined);
            tracing::warn!(%error, "a damaged record was removed from the store");
        }
    }
}
