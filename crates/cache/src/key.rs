//! Cache keys: one function turns everything that makes a question what it is into three digests.
//!
//! Knows nothing of HTTP or of wire formats: the caller says which parts there are, the types say that none is forgotten.

use blake3::Hasher;
use refrain_core::Api;

use crate::scope::ScopeId;
use crate::secret::KeySecret;

/// Everything that two requests must share to have one answer.
///
/// Destructured without `..` where it is hashed: a new field can't compile until someone decided about it.
#[derive(Clone, Copy, Debug)]
pub struct KeyParts<'a> {
    /// The endpoint: no hits across APIs.
    pub api: Api,
    /// The effective model: what the upstream is asked for, after every override.
    pub model: &'a str,
    /// Which build of it (digest or configured revision).
    pub model_identity: &'a str,
    /// The route's `cache.namespace`.
    pub namespace: &'a str,
    /// Who shares the entry.
    pub scope: ScopeId<'a>,
    /// Hash of the policies and their configuration; empty without any.
    pub policy: &'a [u8],
    /// The pool that answers: equal names of models don't make equal models.
    pub pool: &'a str,
    /// The query of the request's target, as the upstream is sent it.
    pub query: &'a str,
    /// Every field of the request headers that change the answer (`anthropic-beta`, forwarded credentials, ...), by name
    /// in a fixed order, values in theirs.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Canonical body without the excised text: [`refrain_core::Prompt::partition_body`].
    pub partition_body: &'a [u8],
    /// All text that was cut out of the body for semantic look-up, exactly; none: the body holds everything.
    pub excised: Option<&'a str>,
    /// Named parts that policies add, in the order of the policies. An absent one is not the same as an empty one.
    pub extra: &'a [(&'a str, Option<&'a [u8]>)],
}

/// The digests of one request.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey {
    /// All parts but the excised text: what semantic look-up may never cross.
    pub partition: [u8; 32],
    /// The partition and the excised text: the exact entry.
    pub key: [u8; 32],
    /// A second digest of all parts under an independent context: stored, and compared on read.
    pub fingerprint: [u8; 32],
}

impl CacheKey {
    /// Hashes the parts under the secret: what may be long once only, with a digest of twice the length, one half of which
    /// leads to the key and the other to the fingerprint.
    pub fn new(secret: &KeySecret, parts: &KeyParts<'_>) -> Self {
        let mut all_but_text = PartHasher::new(secret.partition_key());
        all_but_text.all_but_text(parts);
        let (partition, other_half) = all_but_text.finish_twice();
        let with_text = |key: &[u8; 32], half: &[u8; 32]| {
            let mut hasher = PartHasher::new(key);
            hasher.part(Tag::Partition, half);
            hasher.optional(Tag::Text, parts.excised.map(str::as_bytes));
            hasher.finish()
        };
        Self {
            partition,
            key: with_text(secret.exact_key(), &partition),
            fingerprint: with_text(secret.fingerprint_key(), &other_half),
        }
    }
}

impl std::fmt::Debug for CacheKey {
    /// The start of the key only: enough to tell entries apart in a trace.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, ..] = self.key;
        write!(f, "CacheKey({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

/// What a hashed part is. Part of the key format: never reuse a number.
#[derive(Clone, Copy)]
pub(crate) enum Tag {
    Api = 1,
    Model = 2,
    ModelIdentity = 3,
    Namespace = 4,
    Scope = 5,
    Policy = 6,
    Headers = 7,
    Body = 8,
    Extra = 9,
    Partition = 10,
    Text = 11,
    Name = 12,
    Value = 13,
    Pool = 14,
    Query = 15,
}

/// Hashes parts so that none can run into its neighbour: each as tag, length, bytes; each list with its count in front.
///
/// Short ones are gathered: a call of the hasher costs more than their bytes.
pub(crate) struct PartHasher {
    hasher: Hasher,
    gathered: [u8; GATHERED_MAX],
    length: usize,
}

/// Of a number in LEB128: seven bits a byte.
const NUMBER_BYTES_MAX: usize = 10;
/// Bytes that wait for the hasher.
const GATHERED_MAX: usize = 256;

impl PartHasher {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self { hasher: Hasher::new_keyed(key), gathered: [0; GATHERED_MAX], length: 0 }
    }

    fn all_but_text(&mut self, parts: &KeyParts<'_>) {
        let KeyParts {
            api,
            model,
            model_identity,
            namespace,
            scope,
            policy,
            pool,
            query,
            headers,
            partition_body,
            excised: _, // The caller adds it, or leaves it out for the partition.
            extra,
        } = *parts;
        self.part(Tag::Api, api.as_str().as_bytes());
        self.part(Tag::Model, model.as_bytes());
        self.part(Tag::ModelIdentity, model_identity.as_bytes());
        self.part(Tag::Namespace, namespace.as_bytes());
        scope.hash_into(self);
        self.part(Tag::Policy, policy);
        self.part(Tag::Pool, pool.as_bytes());
        self.part(Tag::Query, query.as_bytes());
        self.list(Tag::Headers, headers.iter().copied());
        self.part(Tag::Body, partition_body);
        self.number(Tag::Extra, extra.len());
        for (name, value) in extra {
            self.part(Tag::Name, name.as_bytes());
            self.optional(Tag::Value, *value);
        }
    }

    pub(crate) fn part(&mut self, tag: Tag, bytes: &[u8]) {
        self.number(tag, bytes.len());
        self.bytes(bytes);
    }

    fn optional(&mut self, tag: Tag, bytes: Option<&[u8]>) {
        self.number(tag, usize::from(bytes.is_some()));
        if let Some(bytes) = bytes {
            self.part(tag, bytes);
        }
    }

    fn list<'a>(&mut self, tag: Tag, items: impl ExactSizeIterator<Item = (&'a str, &'a [u8])>) {
        self.number(tag, items.len());
        for (name, value) in items {
            self.part(Tag::Name, name.as_bytes());
            self.part(Tag::Value, value);
        }
    }

    /// The number in LEB128: most are below 128, and each byte is hashed twice.
    pub(crate) fn number(&mut self, tag: Tag, number: usize) {
        let mut encoded = [tag as u8; 1 + NUMBER_BYTES_MAX];
        let (mut rest, mut length) = (number as u64, 1);
        while rest >= 0x80 {
            encoded[length] = rest as u8 | 0x80;
            rest >>= 7;
            length += 1;
        }
        encoded[length] = rest as u8;
        self.bytes(&encoded[..=length]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if bytes.len() > GATHERED_MAX - self.length {
            self.flush();
        }
        match self.gathered.get_mut(self.length..self.length + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.length += bytes.len();
            }
            None => _ = self.hasher.update(bytes),
        }
    }

    fn flush(&mut self) {
        self.hasher.update(&self.gathered[..self.length]);
        self.length = 0;
    }

    pub(crate) fn finish(mut self) -> [u8; 32] {
        self.flush();
        self.hasher.finalize().into()
    }

    /// A digest of twice the length, in halves; the first is what [`PartHasher::finish`] gives.
    fn finish_twice(mut self) -> ([u8; 32], [u8; 32]) {
        self.flush();
        let mut halves = [[0; 32]; 2];
        self.hasher.finalize_xof().fill(halves.as_flattened_mut());
        let [first, second] = halves;
        (first, second)
    }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
