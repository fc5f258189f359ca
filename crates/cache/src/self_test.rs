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

impl<H: Clone> Cache<H> {
    /// Stores a probe for a user that no caller can be, reads it in every way, and removes it.
    ///
    /// # Cancel safety
    /// Safe: a probe that was left expires within seconds.
    pub async fn self_test(&self, vectors: Option<ProbeVectors>) -> SelfTest {
        let nonce = rand::random();
        let part = Scope::UserPart("self-test".to_owned());
        let keys = (
            self.probe_key(&Scope::User, "a", &nonce),
            self.probe_key(&Scope::User, "b", &nonce),
            self.probe_key(&part, "a", &nonce),
        );
        let ((Some(mine), Some(theirs), Some(part)), Some(answer)) = (keys, probe_answer()) else {
            return SelfTest::default();
        };
        let entry = Entry::new(mine, probe_meta(self.store.epoch()), &answer);
        let question = vectors.as_ref().map(|vectors| vectors.question.clone());
        let mut report =
            SelfTest { write: self.store.insert(entry, question).is_ok(), ..SelfTest::default() };
        report.exact_read = self.finds(&mine, &answer).await;
        let paraphrase = vectors.map(|vectors| vectors.paraphrase);
        if let Some(paraphrase) = &paraphrase {
            report.paraphrase_read = Some(self.is_near(&mine, paraphrase).await);
        }
        let reached = self.is_reached(&theirs, &answer, paraphrase.as_ref()).await
            || self.is_reached(&part, &answer, paraphrase.as_ref()).await;
        report.other_user_misses = !reached;
        let removed = self.store.remove(&mine).is_ok();
        report.removed = removed && !self.is_reached(&mine, &answer, paraphrase.as_ref()).await;
        report
    }

    async fn is_reached(&self, key: &CacheKey, answer: &Answer, vector: Option<&Embedding>) -> bool {
        let near = match vector {
            Some(vector) => self.is_near(key, vector).await,
            None => false,
        };
        near || self.finds(key, answer).await
    }

    async fn finds(&self, key: &CacheKey, answer: &Answer) -> bool {
        matches!(self.store.find(key, unix_ms()).await, Found::Hit(entry) if entry.answer().as_ref() == Ok(answer))
    }

    async fn is_near(&self, key: &CacheKey, vector: &Embedding) -> bool {
        !self.store.nearest(&key.partition, vector, 1, unix_ms()).await.is_empty()
    }

    /// A key in a namespace of a tenant that config can't name: they begin with a NUL.
    fn probe_key(&self, scope: &Scope, user: &str, nonce: &[u8; 16]) -> Option<CacheKey> {
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
        Some(self.key(&parts))
    }
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
