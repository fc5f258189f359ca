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
    /// Hashes the parts under the secret.
    pub fn new(secret: &KeySecret, parts: &KeyParts<'_>) -> Self {
        let mut partition = PartHasher::new(secret.partition_key());
        partition.all_but_text(parts);
        let partition = partition.finish();

        let mut key = PartHasher::new(secret.exact_key());
        key.part(Tag::Partition, &partition);
        key.optional(Tag::Text, parts.excised.map(str::as_bytes));

        let mut fingerprint = PartHasher::new(secret.fingerprint_key());
        fingerprint.all_but_text(parts);
        fingerprint.optional(Tag::Text, parts.excised.map(str::as_bytes));

        Self { partition, key: key.finish(), fingerprint: fingerprint.finish() }
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
pub(crate) struct PartHasher(Hasher);

impl PartHasher {
    fn new(key: &[u8; 32]) -> Self {
        Self(Hasher::new_keyed(key))
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
        self.0.update(bytes);
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

    pub(crate) fn number(&mut self, tag: Tag, number: usize) {
        self.0.update(&[tag as u8]);
        self.0.update(&(number as u64).to_le_bytes());
    }

    fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
