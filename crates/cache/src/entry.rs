//! One stored answer with what must be known to serve it. Immutable, but for the rendered bodies that it keeps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use refrain_core::{Api, RouteId, TenantId, Usage, UserId};
use refrain_llm::answer::{Answer, DecodeError, Encoded, Rendering, as_it_came};

use crate::key::CacheKey;
use crate::purge::Epoch;

/// Counted for an entry's own fields, its place in the map and allocations that nobody counts.
const OVERHEAD_BYTES: usize = 512;
/// Most tags of an entry: sixteen of policies, and its answer's id.
pub const TAGS_MAX: usize = 17;
/// Longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 128;
/// Most labels of an entry.
pub const LABELS_MAX: usize = 16;
/// Longest label, name and value together, in bytes.
pub const LABEL_BYTES_MAX: usize = 320;

/// The tag by which an entry is found whose answer carries this id: the store gives it beside a policy's own. None for an id
/// that no tag can hold.
pub fn answer_tag(id: &str) -> Option<String> {
    let tag = ["id:", id].concat();
    (!id.is_empty() && tag.len() <= TAG_BYTES_MAX).then_some(tag)
}

/// A stored answer.
///
/// Holds the answer encoded: decoded it takes up to twelve times the memory, and is needed once a rendering only.
#[derive(Debug)]
pub struct Entry {
    /// Where it belongs.
    pub key: CacheKey,
    /// What is known of it.
    pub meta: EntryMeta,
    /// Token counts of the answer.
    pub usage: Usage,
    encoded: Bytes,
    record_bytes: usize,
    rendered: [OnceLock<Bytes>; 3],
    /// Up to which change of its store's list of purges it was found clear.
    cleared: AtomicU64,
}

/// What is known of a stored answer beside its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryMeta {
    /// When it was stored, in ms since the Unix epoch.
    pub stored_at_ms: u64,
    /// When it is no longer fresh, in ms since the Unix epoch. Absolute: a hit never extends it.
    pub expires_at_ms: u64,
    /// Until when it may be served stale while one request refreshes it, in ms since the Unix epoch; not after
    /// `expires_at_ms`: never.
    pub stale_while_revalidate_until_ms: u64,
    /// Until when it may be served stale if no upstream can answer, likewise.
    pub stale_if_error_until_ms: u64,
    /// The newest purge when its generation began: earlier ones can't be about it.
    pub seen: Epoch,
    /// How long the upstream took for it, in ms: what a hit saves.
    pub upstream_ms: u64,
    /// The route that stored it.
    pub route: RouteId,
    /// The tenant of the caller who asked first.
    pub tenant: TenantId,
    /// That caller, if known.
    pub user: Option<UserId>,
    /// The effective model.
    pub model: String,
    /// The API that it came by and renders in.
    pub api: Api,
    /// The question that semantic look-up compares with, if it may.
    pub embed_text: Option<String>,
    /// No candidate for similar questions: no vector leads to it.
    pub exact_only: bool,
    /// Upstream response headers to replay, names in lower case.
    pub replay_headers: Vec<(String, String)>,
    /// What it can be purged by; see [`TAGS_MAX`] and [`TAG_BYTES_MAX`].
    pub tags: Vec<String>,
    /// What policies are told with it, names and values; see [`LABELS_MAX`] and [`LABEL_BYTES_MAX`].
    pub labels: Vec<(String, String)>,
}

impl Entry {
    /// Puts an answer under its key.
    pub fn new(key: CacheKey, meta: EntryMeta, answer: impl Into<Encoded>) -> Self {
        let answer = answer.into();
        let record_bytes = answer.bytes().len() + meta.bytes();
        Self {
            key,
            meta,
            usage: answer.usage(),
            encoded: answer.into_bytes(),
            record_bytes,
            rendered: Default::default(),
            cleared: AtomicU64::new(0),
        }
    }

    /// Puts an answer that was encoded before under its key.
    ///
    /// # Errors
    /// It is not an answer of this version.
    pub(crate) fn decode(key: CacheKey, meta: EntryMeta, encoded: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self::new(key, meta, Encoded::decode(encoded)?))
    }

    /// The answer.
    ///
    /// # Errors
    /// None in an entry that was made by this process or read from a record whose digest was right.
    pub fn answer(&self) -> Result<Answer, DecodeError> {
        Answer::decode(&self.encoded)
    }

    /// The answer as the record holds it.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Whether it may be served as it is.
    pub fn is_fresh(&self, now_ms: u64) -> bool {
        now_ms < self.meta.expires_at_ms
    }

    /// Whether it is past its TTL, and may be served while one request refreshes it.
    pub fn may_serve_while_revalidating(&self, now_ms: u64) -> bool {
        !self.is_fresh(now_ms) && now_ms < self.meta.stale_while_revalidate_until_ms
    }

    /// Whether it is past its TTL, and may be served if no upstream can answer.
    pub fn may_serve_if_error(&self, now_ms: u64) -> bool {
        !self.is_fresh(now_ms) && now_ms < self.meta.stale_if_error_until_ms
    }

    /// Whether it may be served to a similar question.
    pub(crate) fn is_similar_candidate(&self, now_ms: u64) -> bool {
        self.is_fresh(now_ms) && !self.meta.exact_only
    }

    /// Whether it may be served in any way: what may not is of no more use.
    pub(crate) fn is_retained(&self, now_ms: u64) -> bool {
        now_ms < self.meta.retained_until_ms()
    }

    /// The same answer, expired from a moment on.
    pub(crate) fn expired_at(&self, at_ms: u64) -> Self {
        let Self { key, meta, usage, encoded, record_bytes, rendered, cleared: _ } = self;
        Self {
            key: *key,
            meta: meta.expired_at(at_ms),
            usage: *usage,
            encoded: encoded.clone(),
            record_bytes: *record_bytes,
            rendered: rendered.clone(),
            cleared: AtomicU64::new(0),
        }
    }

    /// Up to which change of the list of purges it was found clear.
    pub(crate) fn cleared(&self) -> u64 {
        self.cleared.load(Ordering::Relaxed)
    }

    /// Marks it as clear up to a change.
    pub(crate) fn clear(&self, serial: u64) {
        self.cleared.fetch_max(serial, Ordering::Relaxed);
    }

    /// How old it is, in ms.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.meta.stored_at_ms)
    }

    /// Bytes of its record before compression: what `entry_bytes_max` bounds.
    pub fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// A body that is there: one that was kept, or the answer as it came.
    pub(crate) fn body(&self, rendering: Rendering) -> Option<Bytes> {
        let kept = || self.rendered[form(rendering)].get().cloned();
        as_it_came(&self.encoded, rendering).or_else(kept)
    }

    /// Keeps a rendered body. The caller accounts for its bytes: see [`Entry::charge`].
    pub(crate) fn keep(&self, rendering: Rendering, body: Bytes) {
        let _ = self.rendered[form(rendering)].set(body);
    }

    /// Bytes of memory that it takes now, kept bodies included.
    pub(crate) fn charge(&self) -> usize {
        let kept: usize = self.rendered.iter().filter_map(OnceLock::get).map(Bytes::len).sum();
        OVERHEAD_BYTES + self.record_bytes + kept
    }

    /// Whether it is the entry of this very question: the key was found, the second digest must agree.
    pub(crate) fn answers(&self, key: &CacheKey) -> bool {
        let CacheKey { partition, key: exact, fingerprint } = key;
        self.key.fingerprint == *fingerprint && self.key.key == *exact && self.key.partition == *partition
    }
}

impl EntryMeta {
    /// The end of its TTL and of its stale windows, whichever is last, in ms since the Unix epoch.
    pub fn retained_until_ms(&self) -> u64 {
        self.expires_at_ms.max(self.stale_while_revalidate_until_ms).max(self.stale_if_error_until_ms)
    }

    /// The same, expired from `at_ms` on, if that is earlier. A stale window ends when it would have, and where there was
    /// none there is none.
    pub(crate) fn expired_at(&self, at_ms: u64) -> Self {
        let window = |until_ms: u64| if until_ms > self.expires_at_ms { until_ms } else { 0 };
        Self {
            expires_at_ms: self.expires_at_ms.min(at_ms),
            stale_while_revalidate_until_ms: window(self.stale_while_revalidate_until_ms),
            stale_if_error_until_ms: window(self.stale_if_error_until_ms),
            ..self.clone()
        }
    }

    /// Whether tags and labels are within their bounds.
    pub(crate) fn is_bounded(&self) -> bool {
        let label_fits = |(name, value): &(String, String)| name.len() + value.len() <= LABEL_BYTES_MAX;
        self.tags.len() <= TAGS_MAX
            && self.labels.len() <= LABELS_MAX
            && self.tags.iter().all(|tag| tag.len() <= TAG_BYTES_MAX)
            && self.labels.iter().all(label_fits)
    }

    fn bytes(&self) -> usize {
        let Self { route, tenant, user, model, embed_text, replay_headers, tags, labels, .. } = self;
        let names = route.as_str().len() + tenant.as_str().len() + model.len();
        let optional =
            user.as_ref().map_or(0, |user| user.as_str().len()) + embed_text.as_ref().map_or(0, String::len);
        let pairs = replay_headers.iter().chain(labels).map(|(name, value)| name.len() + value.len());
        names + optional + pairs.sum::<usize>() + tags.iter().map(String::len).sum::<usize>()
    }
}

fn form(rendering: Rendering) -> usize {
    match rendering {
        Rendering::Whole => 0,
        Rendering::Stream { include_usage: true } => 1,
        Rendering::Stream { include_usage: false } => 2,
    }
}

/// A stored answer to a similar question.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Cosine similarity of the questions.
    pub similarity: f32,
    /// The entry, of the same partition and fresh.
    pub entry: Arc<Entry>,
}
