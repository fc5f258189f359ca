//! Vectors in this process, where the server can't search them: read once from all entries, then told by other proxies.
//!
//! The near cache's index holds them; here is only what Redis does elsewhere: when they expire.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use parking_lot::Mutex;
use redis::pipe;

use super::Inner;
use super::names;
use super::news::Pointer;
use super::scan::Scan;
use super::trouble::StoreTrouble;
use crate::embedder::Embedding;
use refrain_core::unhex;

/// Entries that are read at start, at most: about a minute's work.
const REBUILD_MAX: usize = 1_000_000;
/// Expired vectors that one sweep forgets.
const SWEPT_MAX: usize = 10_000;

/// When vectors expire.
#[derive(Default)]
pub(super) struct Expiries(Mutex<BinaryHeap<Reverse<Expiry>>>);

/// End in ms, partition, key.
type Expiry = (u64, [u8; 32], [u8; 32]);
/// What is read of an entry: partition, vector, and what is left of its time in ms.
type Learned = ((Option<Vec<u8>>, Option<Vec<u8>>), i64);

impl Expiries {
    fn add(&self, ends_ms: u64, partition: [u8; 32], key: [u8; 32]) {
        self.0.lock().push(Reverse((ends_ms, partition, key)));
    }

    /// Vectors whose entries have expired; each once.
    fn expired(&self, now_ms: u64) -> Vec<([u8; 32], [u8; 32])> {
        let mut heap = self.0.lock();
        let mut gone = Vec::new();
        while gone.len() < SWEPT_MAX
            && let Some(Reverse((ends_ms, partition, key))) = heap.peek().copied()
            && ends_ms <= now_ms
        {
            heap.pop();
            gone.push((partition, key));
        }
        gone
    }

    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

impl Inner {
    /// Reads the vectors of all entries. Takes as long as it takes: look-ups find what was read so far.
    pub(super) async fn rebuild_vectors(&self) -> Result<usize, StoreTrouble> {
        let Some(field) = self.entries.field() else { return Ok(0) };
        let pattern = format!("{}*:e:*", self.entries.names.entries());
        let mut scan = Scan::begin(&self.link, pattern).await?;
        let (mut seen, mut found) = (0, 0);
        while let Some(entries) = scan.next(&self.link).await? {
            seen += entries.len();
            let read = entries.iter().map(|name| self.learn(name, &field));
            for learned in futures_util::future::join_all(read).await {
                found += usize::from(learned?);
            }
            if seen >= REBUILD_MAX {
                tracing::warn!(
                    entries = seen,
                    "too many entries: the vectors of the rest are learned as they are used"
                );
                break;
            }
        }
        Ok(found)
    }

    /// Reads vectors that other proxies wrote.
    pub(super) async fn learn_vectors(&self, pointers: &[Pointer]) -> Result<(), StoreTrouble> {
        let Some(field) = self.entries.field() else { return Ok(()) };
        let names: Vec<String> =
            pointers.iter().map(|at| self.entries.names.entry(&at.partition, &at.key)).collect();
        let learned = names.iter().map(|name| self.learn(name.as_bytes(), &field));
        futures_util::future::join_all(learned).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(())
    }

    /// Takes an entry's vector into the index; whether it has one of our model.
    async fn learn(&self, name: &[u8], field: &str) -> Result<bool, StoreTrouble> {
        let mut both = pipe();
        both.cmd("HMGET").arg(name).arg(super::entries::PARTITION).arg(field);
        both.cmd("PTTL").arg(name);
        let ((partition, vector), left_ms): Learned = self.link.ask_all(&both).await?;
        let known = (|| {
            let partition = unhex(&partition?)?;
            Some((
                partition,
                names::key_of(name)?,
                Embedding::from_bytes(&vector?)?,
                u64::try_from(left_ms).ok()?,
            ))
        })();
        let Some((partition, key, vector, left_ms)) = known else { return Ok(false) };
        self.keep_vector(partition, key, &vector, crate::store::unix_ms().saturating_add(left_ms));
        Ok(true)
    }

    /// Keeps a vector until its entry expires.
    pub(super) fn keep_vector(&self, partition: [u8; 32], key: [u8; 32], vector: &Embedding, ends_ms: u64) {
        if self.near.vectors.insert(partition, key, vector).is_ok() {
            self.expiries.add(ends_ms, partition, key);
        }
    }

    /// Forgets vectors whose entries have expired.
    pub(super) fn sweep_vectors(&self, now_ms: u64) {
        for (partition, key) in self.expiries.expired(now_ms) {
            // A newer entry of the key keeps its own, if this process knows it; else it is learned again.
            if self.near.memory.peek(&key).is_none_or(|entry| !entry.is_retained(now_ms)) {
                self.near.vectors.remove(&partition, &key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_expires_first_is_forgotten_first() {
        let expiries = Expiries::default();
        expiries.add(30, [0; 32], [3; 32]);
        expiries.add(10, [0; 32], [1; 32]);
        expiries.add(20, [0; 32], [2; 32]);
        assert!(expiries.expired(9).is_empty());
        let keys: Vec<u8> = expiries.expired(20).iter().map(|(_, key)| key[0]).collect();
        assert_eq!(keys, [1, 2]);
        assert_eq!(expiries.expired(99).len(), 1);
    }
}
