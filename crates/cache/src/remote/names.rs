//! Names of keys in Redis. They begin with the configured prefix and the layout's version, so that another layout is never
//! read wrongly, and each group that a script or a pipeline touches shares one hash tag, and so one slot of a cluster.
//!
//! ```text
//! {refrain:1}:meta      {refrain:1}:purges   {refrain:1}:changes   {refrain:1}:vectors     what proxies tell each other
//! {refrain:1}:proxies       stream    who is there
//! {refrain:1:l:SUBJECT}:meters, :leases      a subject's counts of a limit
//! refrain:1:{PART}:e:KEY    hash      an entry: record, partition and vector
//! refrain:1:{PART}:s:MODEL  vector set, with refrain:1:{PART}:x:MODEL, when its members expire
//! refrain:1:{PART}:c:KEY    string    who generates the answer
//! ```
//!
//! PART is the first half of the partition's digest, KEY the whole of the key's: neither tells anything of a prompt.

use refrain_core::{hex, unhex};

/// Raised when what stands under the names changes its meaning.
pub(super) const LAYOUT: u32 = 1;

/// Bytes of a partition's digest that names use: enough that no two ever meet; where they did, the record would be
/// refused.
const PART_BYTES: usize = 16;

/// Names of one prefix.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// Prefix and layout.
    root: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { root: format!("{prefix}:{LAYOUT}") }
    }

    /// What all entries' names begin with, and nothing else that is a hash.
    pub(super) fn entries(&self) -> String {
        format!("{}:", self.root)
    }

    /// Layout, life and check value of the secret.
    pub(super) fn meta(&self) -> String {
        self.control("meta")
    }

    /// The stream of purges.
    pub(super) fn purges(&self) -> String {
        self.control("purges")
    }

    /// The stream of entries that were replaced.
    pub(super) fn changes(&self) -> String {
        self.control("changes")
    }

    /// The stream of vectors, where the server can't search them.
    pub(super) fn vectors(&self) -> String {
        self.control("vectors")
    }

    /// The stream of who is there.
    pub(super) fn proxies(&self) -> String {
        self.control("proxies")
    }

    /// A stream that is never there, to try what may be done with those that are.
    pub(super) fn trial(&self) -> String {
        self.control("trial")
    }

    fn control(&self, what: &str) -> String {
        format!("{{{}}}:{what}", self.root)
    }

    /// What a subject of a limit has taken, and its requests under way.
    pub(super) fn quota(&self, subject: &[u8; 32]) -> (String, String) {
        let tag = format!("{{{}:l:{}}}", self.root, hex(&subject[..PART_BYTES]));
        (format!("{tag}:meters"), format!("{tag}:leases"))
    }

    pub(super) fn entry(&self, partition: &[u8; 32], key: &[u8; 32]) -> String {
        self.of_part(partition, "e", &hex(key))
    }

    /// The vector set of a partition and a model.
    pub(super) fn set(&self, partition: &[u8; 32], model: &str) -> String {
        self.of_part(partition, "s", model)
    }

    /// When the members of that set expire.
    pub(super) fn expiries(&self, partition: &[u8; 32], model: &str) -> String {
        self.of_part(partition, "x", model)
    }

    /// Who generates an answer.
    pub(super) fn claim(&self, partition: &[u8; 32], key: &[u8; 32]) -> String {
        self.of_part(partition, "c", &hex(key))
    }

    /// The query engine's index of a model's vectors.
    pub(super) fn index(&self, model: &str) -> String {
        format!("{}:i:{model}", self.root)
    }

    fn of_part(&self, partition: &[u8; 32], what: &str, rest: &str) -> String {
        format!("{}:{{{}}}:{what}:{rest}", self.root, hex(&partition[..PART_BYTES]))
    }
}

/// The key that an entry's name ends with.
pub(super) fn key_of(name: &[u8]) -> Option<[u8; 32]> {
    unhex(name.rsplit(|byte| *byte == b':').next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_named_by_partition_and_key_and_read_back() {
        let names = Names::new("refrain");
        let key = std::array::from_fn(|i| i as u8 + 200);
        let name = names.entry(&[0xab; 32], &key);
        assert!(name.starts_with("refrain:1:{abababababababababababababababab}:e:c8c9"), "{name}");
        assert!(name.starts_with(&names.entries()));
        assert_eq!(key_of(name.as_bytes()), Some(key));
        for foreign in [&b"refrain:1:x"[..], b"", b"e:zz", b"c8"] {
            assert_eq!(key_of(foreign), None);
        }
    }

    #[test]
    fn what_one_script_touches_shares_a_hash_tag() {
        let names = Names::new("r");
        let tag = |name: &str| name.split(['{', '}']).nth(1).unwrap().to_owned();
        let of_part = [
            names.entry(&[1; 32], &[2; 32]),
            names.set(&[1; 32], "m"),
            names.expiries(&[1; 32], "m"),
            names.claim(&[1; 32], &[2; 32]),
        ];
        assert!(of_part.iter().all(|name| tag(name) == tag(&of_part[0])));
        let (meters, leases) = names.quota(&[3; 32]);
        assert_eq!(tag(&meters), tag(&leases));
        let control = [names.meta(), names.purges(), names.changes(), names.vectors(), names.proxies()];
        assert!(control.iter().all(|name| tag(name) == tag(&control[0])));
        assert!(control.iter().all(|name| !name.starts_with(&names.entries())));
    }
}
