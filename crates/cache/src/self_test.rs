//! Whether the cache does what it should: run at start and on demand, shown by the readiness report.

use std::collections::BTreeMap;

use refrain_core::{Api, Identity, Role, RouteId, Scope, TenantId, UserId};
use refrain_llm::answer::{Answer, AnswerReader, Form};

use crate::cache::Cache;
use crate::embedder::Embedding;
use crate::entry::{Entry, EntryMeta};
use crate::key::{CacheKey, KeyParts};
use crate::purge::Epoch;
use crate::scope::ScopeId;
use crate::secret::KeySecret;
use crate::store::{Found, unix_ms};

/// How long a probe lives if it can't be removed.
const PROBE_TTL_MS: u64 = 10_000;
const PROBE: &[u8] = br#"{"id":"self-test","object":"chat.completion","created":0,"model":"self-test","choices":[{"index":0,"message":{"role":"assistant","content":"ready"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;

/// What the self-test found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SelfTest {
    /// A probe could be stored.
    pub write: bool,
    /// It was found by its own key.
    pub exact_read: bool,
    /// It was found by a similar question; `None` if no vectors were given.
    pub paraphrase_read: Option<bool>,
    /// Another user did not find it, neither by key nor by similarity; nor did its own within a part that a policy names.
    pub other_user_misses: bool,
    /// After its removal nobody found it.
    pub removed: bool,
}

impl SelfTest {
    /// Whether every step that was tried went well.
    pub fn passed(&self) -> bool {
        let Self { write, exact_read, paraphrase_read, other_user_misses, removed } = *self;
        write && exact_read && paraphrase_read.unwrap_or(true) && other_user_misses && removed
    }
}

/// Vectors of a question and of a paraphrase of it.
#[derive(Clone, Debug)]
pub struct ProbeVectors {
    /// Of the question that the probe answers.
    pub question: Embedding,
    /// Of the question that should find it.
    pub paraphrase: Embedding,
}

/// An entry for a user that no caller can be, and keys that must not lead to it.
pub(crate) struct Probe {
    pub(crate) mine: CacheKey,
    /// Another user's, and one's own within a part that a policy names.
    pub(crate) others: [CacheKey; 2],
    answer: Answer,
    meta: EntryMeta,
}

impl Probe {
    /// One that no other process makes. `seen`: the newest purge.
    pub(crate) fn new(secret: &KeySecret, seen: Epoch) -> Option<Self> {
        let nonce = rand::random();
        let part = Scope::UserPart("self-test".to_owned());
        let mine = probe_key(secret, &Scope::User, "a", &nonce)?;
        let others = [probe_key(secret, &Scope::User, "b", &nonce)?, probe_key(secret, &part, "a", &nonce)?];
        Some(Self { mine, others, answer: probe_answer()?, meta: probe_meta(seen) })
    }

    pub(crate) fn entry(&self) -> Entry {
        Entry::new(self.mine, self.meta.clone(), &self.answer)
    }

    /// Whether this is what was stored.
    pub(crate) fn is(&self, entry: &Entry) -> bool {
        entry.answer().as_ref() == Ok(&self.answer)
    }
}

impl<H: Clone> Cache<H> {
    /// Stores a probe, reads it in every way, and removes it. A shared store does so itself, each time that it is joined:
    /// then this waits for the first time.
    ///
    /// # Cancel safety
    /// Safe: a probe that was left expires within seconds.
    pub async fn self_test(&self, vectors: Option<ProbeVectors>) -> SelfTest {
        if let Some(joined) = self.store.joined().await {
            return joined.unwrap_or_default();
        }
        let Some(probe) = Probe::new(&self.secret, self.store.epoch()) else { return SelfTest::default() };
        let Probe { mine, others, .. } = &probe;
        let question = vectors.as_ref().map(|vectors| vectors.question.clone());
        let write = self.store.insert(probe.entry(), question).is_ok();
        let mut report = SelfTest { write, ..SelfTest::default() };
        report.exact_read = self.finds(mine, &probe).await;
        let paraphrase = vectors.map(|vectors| vectors.paraphrase);
        if let Some(paraphrase) = &paraphrase {
            report.paraphrase_read = Some(self.is_near(mine, paraphrase).await);
        }
        let reached = self.is_reached(&others[0], &probe, paraphrase.as_ref()).await
            || self.is_reached(&others[1], &probe, paraphrase.as_ref()).await;
        report.other_user_misses = !reached;
        let removed = self.store.remove(mine).is_ok();
        report.removed = removed && !self.is_reached(mine, &probe, paraphrase.as_ref()).await;
        *self.tested.get_or_init(|| report)
    }

    async fn is_reached(&self, key: &CacheKey, probe: &Probe, vector: Option<&Embedding>) -> bool {
        let near = match vector {
            Some(vector) => self.is_near(key, vector).await,
            None => false,
        };
        near || self.finds(key, probe).await
    }

    async fn finds(&self, key: &CacheKey, probe: &Probe) -> bool {
        matches!(self.store.find(key, unix_ms()).await, Found::Hit(entry, _) if probe.is(&entry))
    }

    async fn is_near(&self, key: &CacheKey, vector: &Embedding) -> bool {
        !self.store.nearest(&key.partition, vector, 1, unix_ms()).await.is_empty()
    }
}

/// A key in a namespace of a tenant that config can't name: they begin with a NUL.
fn probe_key(secret: &KeySecret, scope: &Scope, user: &str, nonce: &[u8; 16]) -> Option<CacheKey> {
    let identity = Identity {
        tenant: TenantId::new("\0self-test"),
        user: Some(UserId::new(user)),
        claims: BTreeMap::new(),
        role: Role::Caller,
    };
    let parts = KeyParts {
        api: Api::ChatCompletions,
        model: "self-test",
        model_identity: "",
        namespace: "\0self-test",
        scope: ScopeId::of(scope, &identity).ok()?,
        policy: &[],
        pool: "",
        query: "",
        headers: &[],
        partition_body: nonce,
        excised: Some("ready?"),
        extra: &[],
    };
    Some(CacheKey::new(secret, &parts))
}

fn probe_meta(seen: Epoch) -> EntryMeta {
    let now_ms = unix_ms();
    EntryMeta {
        stored_at_ms: now_ms,
        expires_at_ms: now_ms + PROBE_TTL_MS,
        stale_while_revalidate_until_ms: 0,
        stale_if_error_until_ms: 0,
        seen,
        upstream_ms: 0,
        route: RouteId::new("self-test"),
        tenant: TenantId::new("\0self-test"),
        user: Some(UserId::new("a")),
        model: "self-test".to_owned(),
        api: Api::ChatCompletions,
        embed_text: Some("ready?".to_owned()),
        exact_only: false,
        replay_headers: Vec::new(),
        tags: Vec::new(),
        labels: Vec::new(),
    }
}

fn probe_answer() -> Option<Answer> {
    let mut reader = AnswerReader::new(Api::ChatCompletions, Form::Whole, 2 * PROBE.len());
    reader.feed(PROBE).ok()?;
    reader.finish().ok()
}

#[cfg(test)]
mod tests {
    use refrain_core::settings::EmbeddedStore;

    use super::*;
    use crate::test_support::vector;

    fn cache(dir: Option<&std::path::Path>) -> Cache<u16> {
        let store = EmbeddedStore { dir: dir.map(Into::into), ..EmbeddedStore::default() };
        Cache::with_store(&store, None, 8).unwrap()
    }

    #[tokio::test]
    async fn the_self_test_passes_in_memory_and_on_disk_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for cache in [cache(None), cache(Some(dir.path()))] {
            let vectors = ProbeVectors { question: vector(1), paraphrase: vector(2) };
            let report = cache.self_test(Some(vectors)).await;
            assert!(report.passed() && report.paraphrase_read == Some(true), "{report:?}");
            assert!(cache.self_test(None).await.passed());
            let stats = cache.store.stats();
            assert_eq!((stats.entries, stats.vectors), (0, 0));
            cache.store.close();
        }
    }
}
