//! The last so many of something: noted without a lock by those who serve, read now and then by those who ask.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use parking_lot::Mutex;

/// The last items.
#[derive(Debug)]
pub struct Ring<T> {
    /// What was noted since somebody last read.
    noted: ArrayQueue<Arc<T>>,
    kept: Mutex<VecDeque<Arc<T>>>,
}

impl<T> Ring<T> {
    /// Of at most so many, one at least.
    pub(crate) fn new(items_max: usize) -> Self {
        Self { noted: ArrayQueue::new(items_max.max(1)), kept: Mutex::default() }
    }

    /// Notes an item; the oldest is forgotten if there is no room.
    pub fn note(&self, item: T) {
        drop(self.noted.force_push(Arc::new(item)));
    }

    /// All that is remembered, the oldest first.
    pub fn read(&self) -> Vec<Arc<T>> {
        let mut kept = self.kept.lock();
        // So many at most, or notes that come meanwhile would never let it end.
        for item in std::iter::from_fn(|| self.noted.pop()).take(self.noted.capacity()) {
            if kept.len() == self.noted.capacity() {
                kept.pop_front();
            }
            kept.push_back(item);
        }
        kept.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(ring: &Ring<u32>) -> Vec<u32> {
        ring.read().iter().map(|item| **item).collect()
    }

    #[test]
    fn the_last_ones_are_remembered_whenever_somebody_reads() {
        let ring = Ring::new(3);
        assert!(read(&ring).is_empty());
        (1..=2).for_each(|item| ring.note(item));
        assert_eq!(read(&ring), [1, 2]);
        ring.note(3);
        ring.note(4);
        assert_eq!(read(&ring), [2, 3, 4]);
        (5..=10).for_each(|item| ring.note(item));
        assert_eq!(read(&ring), [8, 9, 10]);
        assert_eq!(read(&ring), [8, 9, 10]);
    }
}
