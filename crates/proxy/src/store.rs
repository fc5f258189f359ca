//! Last stage: may a generated answer be stored, and as what.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use refrain_cache::{Entry, EntryMeta, unix_ms};
use refrain_core::{EndpointId, Identity, Skip, Usage};
use refrain_llm::answer::Answer;

use crate::ask::Asked;
use crate::generate::FlightHead;
use crate::lookup::Miss;
use crate::route::RouteState;
use crate::snapshot::AnswerCache;
use crate::upstream_headers;

/// How long an answer that could not be stored keeps identical requests from waiting for each other.
const HIT_FOR_PASS: Duration = Duration::from_secs(60);

/// Decides what becomes of one generated answer, with no tie to the client that caused it.
pub(crate) struct Keeper {
    /// The route.
    pub(crate) state: Arc<RouteState>,
    /// Where the entry goes.
    pub(crate) cache: Arc<AnswerCache>,
    /// What was asked.
    pub(crate) asked: Arc<Asked>,
    /// By whom.
    pub(crate) identity: Arc<Identity>,
    /// Proof that nothing stored may be served.
    pub(crate) miss: Arc<Miss>,
    /// Whether it is decided: what the clients do from then on changes nothing.
    pub(crate) is_settled: AtomicBool,
}

/// How an answer came.
pub(crate) struct Provenance {
    /// What its readers were told first.
    pub(crate) head: Arc<FlightHead>,
    /// Who gave it.
    pub(crate) endpoint: EndpointId,
}

impl Keeper {
    /// Stores the answer if it may be; counts what became of it. `took`: how long the upstream took.
    pub(crate) fn settle(&self, answer: Result<Answer, Skip>, from: &Provenance, took: Duration) {
        self.is_settled.store(true, Ordering::Relaxed);
        let kept = answer.and_then(|answer| {
            self.judge(&answer, from)?;
            let entry = self.entry(&answer, from, took);
            let usage: Usage = entry.usage;
            self.cache.store.insert(entry, self.miss.embedding.clone())?;
            Ok(usage)
        });
        match kept {
            Ok(usage) => self.state.metrics.stored(usage),
            Err(skip) => self.skipped(skip, from),
        }
    }

    /// Everybody left. SDKs close a stream at its terminator: by then it is settled, and nothing is lost.
    pub(crate) fn abandoned(&self) {
        if !self.is_settled.load(Ordering::Relaxed) {
            self.state.metrics.skip(Skip::Cancelled);
        }
    }

    fn judge(&self, answer: &Answer, from: &Provenance) -> Result<(), Skip> {
        let (plan, prompt) = (&self.miss.plan, &self.asked.request.prompt);
        if plan.directives.no_store {
            return Err(Skip::NoStore);
        }
        if prompt.offers_tools && !plan.store_tool_offers {
            return Err(Skip::ToolsOffered);
        }
        let model_there = self.state.pool.model_identity_at(&from.endpoint, &self.asked.model);
        if model_there.as_deref() != Some(&*self.miss.model_identity) {
            return Err(Skip::ModelChanged);
        }
        answer.storable()
    }

    fn skipped(&self, skip: Skip, from: &Provenance) {
        self.state.metrics.skip(skip);
        // An error will be another answer next time, and who forbids storing speaks for itself.
        if from.head.status == StatusCode::OK && skip != Skip::NoStore {
            let until = tokio::time::Instant::now() + HIT_FOR_PASS;
            self.cache.flights.mark_uncacheable(self.miss.key.key, until);
        }
    }

    fn entry(&self, answer: &Answer, from: &Provenance, took: Duration) -> Entry {
        let Self { state, asked, identity, miss, cache: _, is_settled: _ } = self;
        let prompt = &asked.request.prompt;
        let now = unix_ms();
        let ttl = u64::try_from(miss.plan.freshness.ttl.as_millis()).unwrap_or(u64::MAX);
        let meta = EntryMeta {
            stored_at_ms: now,
            expires_at_ms: now.saturating_add(ttl),
            upstream_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            route: state.route.id.clone(),
            tenant: identity.tenant.clone(),
            user: identity.user.clone(),
            model: asked.model.clone(),
            api: prompt.api,
            embed_text: prompt.embed_text.as_ref().ok().cloned(),
            replay_headers: upstream_headers::replayed(&from.head.headers, &state.route.cache.replay_headers),
        };
        Entry::new(miss.key, meta, answer)
    }
}
