//! Credentials that were verified, by a digest: a bounded map that many threads read.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use parking_lot::RwLock;

/// Parts with a lock each, so that threads seldom touch the same one.
const SHARDS: usize = 16;

/// Digest of a credential under a key that is random in each process, so that the map's timing tells nothing and nobody
/// can aim at a place in it.
pub(super) type Digest = [u8; 32];

/// What was verified, by digest. Holds no credential.
pub(super) struct Verified<V> {
    key: [u8; 32],
    shards: [RwLock<Shard<V>>; SHARDS],
    /// Entries of one shard.
    entries_max: usize,
}

type Shard<V> = HashMap<Digest, V, BuildHasherDefault<FirstBytes>>;

impl<V: Clone> Verified<V> {
    /// Of at most about this many.
    pub(super) fn new(entries_max: usize) -> Self {
        Self {
            key: rand::random(),
            shards: std::array::from_fn(|_| RwLock::default()),
            entries_max: entries_max.div_ceil(SHARDS),
        }
    }

    /// Names a credential; `owner` says beside whose other credential it stands.
    pub(super) fn digest(&self, owner: &str, credential: &str) -> Digest {
        if owner.is_empty() {
            return *blake3::keyed_hash(&self.key, credential.as_bytes()).as_bytes();
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        // A credential holds no zero byte, so that no other pair has the same bytes.
        hasher.update(credential.as_bytes()).update(&[0]).update(owner.as_bytes());
        *hasher.finalize().as_bytes()
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<V> {
        self.shard(digest).read().get(digest).cloned()
    }

    /// Adds one; makes room by forgetting those that `is_dead` gives up, or else a whole shard: they are verified again.
    pub(super) fn insert(&self, digest: Digest, value: V, is_dead: impl Fn(&V) -> bool) {
        let mut shard = self.shard(&digest).write();
        if shard.len() >= self.entries_max {
            shard.retain(|_, value| !is_dead(value));
        }
        if shard.len() >= self.entries_max {
            shard.clear();
        }
        shard.insert(digest, value);
    }

    fn shard(&self, digest: &Digest) -> &RwLock<Shard<V>> {
        &self.shards[usize::from(digest[31]) % SHARDS]
    }
}

/// A digest is random already.
#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// The length of the array comes first.
    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_verified_is_bounded_and_the_dead_go_first() {
        let verified = Verified::new(SHARDS);
        for number in 0..1000_u32 {
            verified.insert(verified.digest("", &number.to_string()), number, |other| other % 2 == 0);
        }
        let held =
            (0..1000).filter(|number| verified.get(&verified.digest("", &number.to_string())).is_some());
        assert!(held.count() <= SHARDS);
        let last = verified.digest("", "999");
        assert_eq!(verified.get(&last), Some(999));
    }

    #[test]
    fn a_digest_knows_owner_and_credential_apart() {
        let verified = Verified::<()>::new(1);
        let digests = [("", "ab"), ("a", "b"), ("b", "a"), ("", "ba")].map(|(o, c)| verified.digest(o, c));
        assert!(digests.iter().enumerate().all(|(at, one)| !digests[..at].contains(one)));
    }
}
