//! Memory for request bodies under way, over all connections: whoever sends many large ones at once, each slower than the
//! next, must not fill it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use refrain_core::Code;

use crate::failure::Failure;

/// Bodies up to this size take no room: they come in one read, and there are no more of them than connections and streams.
const FREE_BYTES: usize = 16 * 1024;
/// When to come again, in seconds: answers take seconds.
const RETRY_AFTER_S: u32 = 1;

/// Bytes of all bodies under way, over all workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct BodyMemory(Arc<AtomicUsize>);

impl BodyMemory {
    /// Room for one body that has none yet, of so many bytes at most together with all others.
    pub(crate) fn room(&self, bytes_max: usize) -> Room {
        Room { memory: self.clone(), bytes_max, held: 0 }
    }
}

/// What one body holds, until dropped.
#[derive(Debug, Default)]
pub(crate) struct Room {
    memory: BodyMemory,
    bytes_max: usize,
    held: usize,
}

impl Room {
    /// For as long as anybody has it; none if it holds nothing.
    pub(crate) fn kept(self) -> Option<Arc<Self>> {
        (self.held > 0).then(|| Arc::new(self))
    }

    /// Makes it hold this many bytes in all, if there is room for them.
    ///
    /// # Errors
    /// All bodies together would take more than config allows: 503.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), Failure> {
        if bytes <= FREE_BYTES || bytes <= self.held {
            return Ok(());
        }
        let (more, bytes_max) = (bytes - self.held, self.bytes_max);
        let fits = |taken: usize| taken.checked_add(more).filter(|taken| *taken <= bytes_max);
        if self.memory.0.fetch_update(Relaxed, Relaxed, fits).is_err() {
            let message = "too many large requests are under way; send this one again later";
            return Err(Failure {
                retry_after_s: Some(RETRY_AFTER_S),
                ..Failure::new(Code::Overloaded, message)
            });
        }
        self.held = bytes;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.held > 0 {
            self.memory.0.fetch_sub(self.held, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_their_room_and_give_it_back() {
        let memory = BodyMemory::default();
        let (mut one, mut two) = (memory.room(100_000), memory.room(100_000));
        one.hold(60_000).unwrap();
        one.hold(50_000).unwrap();
        two.hold(40_000).unwrap();
        let refused = two.hold(40_001).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_s), (Code::Overloaded, Some(RETRY_AFTER_S)));
        drop(one);
        two.hold(100_000).unwrap();
        drop(two);
        assert_eq!(memory.0.load(Relaxed), 0);
    }

    #[test]
    fn short_bodies_need_no_room() {
        let memory = BodyMemory::default();
        let mut room = memory.room(0);
        room.hold(FREE_BYTES).unwrap();
        room.hold(FREE_BYTES + 1).unwrap_err();
    }
}
