//! Last stage: may a generated answer be stored, and as what.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use refrain_cache::{CacheKey, ClaimGuard, Entry, EntryMeta, Epoch, NotedMiss, answer_tag, unix_ms};
use refrain_core::{EndpointId, Freshness, Skip, Usage};
use refrain_llm::answer::Encoded;
use refrain_plugin::ResponseView;
use refrain_plugin::verdict::{Keep, Outcome};
use refrain_upstream::{Charge, Purpose};

use crate::audit::Audited;
use crate::generate::FlightHead;
use crate::insight;
use crate::lookup::Miss;
use crate::policy::{Answered, Policed};
use crate::route::RouteState;
use crate::snapshot::AnswerCache;
use crate::upstream_headers;

/// How long an answer that could not be stored keeps identical requests from waiting for each other.
const HIT_FOR_PASS: Duration = Duration::from_secs(60);

/// Decides what becomes of one generated answer, with no tie to the client that caused it.
pub(crate) struct Keeper {
    /// Where the entry goes.
    cache: Arc<AnswerCache>,
    /// Proof that nothing stored may be served.
    pub(crate) miss: Arc<Miss>,
    /// The newest purge when the generation began.
    seen: Epoch,
    /// Why it is generated, and where its cost is put down.
    charge: Charge,
    /// Other proxies wait a moment for the answer while it is there.
    _claim: Option<ClaimGuard>,
    /// What doesn't depend on the answer. Boxed, as keepers are moved.
    ahead: OnceLock<Box<Ahead>>,
    /// Whether it is decided: what the clients do from then on changes nothing.
    is_settled: AtomicBool,
    /// An answer that waits for the policies' word.
    pending: Mutex<Option<Arc<Answered>>>,
}

/// What keeping an answer takes, and what was known before it came.
struct Ahead {
    /// What the request was, for those who ask why it missed.
    missed: Mutex<Option<NotedMiss>>,
    /// Stands for what is asked.
    question: u64,
}

/// How an answer came.
#[derive(Clone)]
pub(crate) struct Provenance {
    /// What its readers were told first.
    pub(crate) head: Arc<FlightHead>,
    /// Who gave it.
    pub(crate) endpoint: EndpointId,
}

impl Keeper {
    /// A keeper of the answer to a miss, whose generation begins now.
    pub(crate) fn new(
        cache: Arc<AnswerCache>,
        miss: Arc<Miss>,
        (charge, claim): (Charge, Option<ClaimGuard>),
    ) -> Self {
        let seen = cache.store.epoch();
        Self {
            cache,
            miss,
            seen,
            charge,
            _claim: claim,
            ahead: OnceLock::new(),
            is_settled: AtomicBool::new(false),
            pending: Mutex::new(None),
        }
    }

    /// The route.
    pub(crate) fn state(&self) -> &Arc<RouteState> {
        self.miss.keyed.admitted.state()
    }

    /// Does what can be done before the answer is there: while a server thinks, it costs its client no time.
    pub(crate) fn look_ahead(&self) {
        self.ahead();
    }

    fn ahead(&self) -> &Ahead {
        self.ahead.get_or_init(|| {
            // Once a request, whichever pool answers it: who joined has missed nothing.
            let is_miss = self.charge.purpose == Purpose::Miss;
            let missed = is_miss.then(|| insight::miss(&self.cache, &self.miss)).flatten();
            let question = insight::question(&self.cache, &self.miss.keyed);
            Box::new(Ahead { missed: Mutex::new(missed), question })
        })
    }

    /// Stores the answer if it may be; counts what became of it. Where policies have a word about it, it waits for
    /// [`Keeper::conclude`]. `took`: how long the upstream took, without the wait for it.
    pub(crate) fn settle(&self, answer: Result<Encoded, Skip>, from: &Provenance, took: Duration) {
        self.is_settled.store(true, Ordering::Relaxed);
        // Errors are never stored: one that comes again has missed nothing.
        if from.head.status.is_success()
            && let Some(missed) = self.ahead().missed.lock().take()
        {
            self.cache.insight.misses.note(missed);
        }
        if let Ok(answer) = &answer {
            from.head.dispatched.used(answer.usage());
            from.head.dispatched.took(took);
            self.note_usage(answer.usage());
        }
        let alike = self.compared(answer.as_ref());
        if self.is_audit() {
            // Who asked was served: a hit by meaning stores nothing.
            return self.state().metrics.audited(Audited::of(alike));
        }
        match answer {
            Err(skip) => self.skipped(skip, from),
            Ok(encoded) if self.judging().is_some() => self.wait(encoded, from.clone(), took),
            Ok(encoded) => self.keep(encoded, from, took, None),
        }
    }

    /// How alike the answer is to a stored one that it is compared with, if it is.
    fn compared(&self, answer: Result<&Encoded, &Skip>) -> Result<f32, Skip> {
        let answer = answer.map_err(|skip| *skip)?;
        let in_shadow = self.miss.in_shadow.as_ref().ok_or(Skip::NoStore)?;
        answer.storable()?;
        insight::note_shadowed(&self.cache, &self.miss.keyed, (in_shadow, answer)).ok_or(Skip::Malformed)
    }

    fn note_usage(&self, usage: Usage) {
        self.miss.keyed.planned.target.pool.add_output_tokens(usage.output_tokens.unwrap_or_default());
        self.state().metrics.generated(usage);
        self.charge.account.note_answer(usage);
    }

    /// Has an answer wait for the policies' word.
    fn wait(&self, encoded: Encoded, from: Provenance, took: Duration) {
        match encoded.answer() {
            Ok(answer) => *self.pending.lock() = Some(Arc::new(Answered { answer, encoded, from, took })),
            Err(error) => {
                tracing::error!(%error, "an answer that was judged can't be read");
                self.skipped(Skip::Malformed, &from);
            }
        }
    }

    /// Asks the policies about an answer that is complete, and follows them.
    pub(crate) async fn conclude(&self) {
        let (Some(answered), Some(policed)) = (self.pending.lock().take(), self.judging()) else { return };
        let view: Arc<dyn ResponseView> = answered.clone();
        let plan = &self.miss.keyed.plan;
        let Answered { answer: _, encoded, from, took } = &*answered;
        // Boxed: most generations have no policy to ask, and are moved all the same.
        match Box::pin(policed.chain.on_response(&policed.call, &policed.contexts, plan, &view)).await {
            Outcome::Keep(keep) => self.keep(encoded.clone(), from, *took, Some(keep)),
            Outcome::Skip { .. } => self.skipped(Skip::Policy, from),
            Outcome::Failed { .. } => self.skipped(Skip::PolicyFailed, from),
        }
    }

    /// The answer broke off: there is nothing to store.
    pub(crate) fn broke_off(&self) {
        self.lost(Skip::Incomplete);
    }

    /// There is no whole answer: nothing to compare with.
    pub(crate) fn failed(&self) {
        if self.is_audit() {
            self.state().metrics.audited(Audited::Failed);
        }
    }

    /// Everybody left. SDKs close a stream at its terminator: by then it is settled, and nothing is lost.
    pub(crate) fn abandoned(&self) {
        if !self.is_settled.load(Ordering::Relaxed) {
            self.failed();
            self.lost(Skip::Cancelled);
        }
    }

    /// Counts why there is nothing to store. An audit would have stored nothing.
    fn lost(&self, skip: Skip) {
        if !self.is_audit() {
            self.state().metrics.skip(skip);
        }
    }

    fn is_audit(&self) -> bool {
        self.charge.purpose == Purpose::Audit
    }

    /// The policies, if they have a word about answers.
    fn judging(&self) -> Option<&Policed> {
        self.miss.keyed.planned.policed.as_deref().filter(|policed| policed.chain.judges())
    }

    fn keep(&self, answer: Encoded, from: &Provenance, took: Duration, said: Option<Keep>) {
        let kept = self.judge(&answer, from).and_then(|()| {
            let exact_only = said.as_ref().is_some_and(|said| said.exact_only);
            let id = answer.id().map(str::to_owned);
            let entry = self.entry(answer, (from, took), (said, id.as_deref()))?;
            let key = entry.key.key;
            let embedding = self.miss.embedding.clone().filter(|_| !exact_only);
            self.cache.store.insert(entry, embedding)?;
            let asked = (&*self.miss.keyed.admitted, self.ahead().question);
            insight::note_stored(&self.cache, asked, (key, id.as_deref()));
            Ok(())
        });
        match kept {
            Ok(()) => self.state().metrics.stored(),
            Err(skip) => self.skipped(skip, from),
        }
    }

    fn judge(&self, answer: &Encoded, from: &Provenance) -> Result<(), Skip> {
        let keyed = &self.miss.keyed;
        let prompt = &keyed.planned.asked.request.prompt;
        if keyed.plan.directives.no_store || !keyed.plan.store {
            return Err(Skip::NoStore);
        }
        if prompt.offers_tools && !keyed.plan.store_tool_offers {
            return Err(Skip::ToolsOffered);
        }
        let target = &keyed.planned.target;
        let model_there = target.pool.model_identity_at(&from.endpoint, &target.model);
        if model_there.as_deref() != Some(&*keyed.model_identity) {
            return Err(Skip::ModelChanged);
        }
        answer.storable()
    }

    fn skipped(&self, skip: Skip, from: &Provenance) {
        self.state().metrics.skip(skip);
        // An error will be another answer next time, so will be what was purged, and who forbids storing speaks for itself.
        if from.head.status == StatusCode::OK && !matches!(skip, Skip::NoStore | Skip::Purged) {
            let until = tokio::time::Instant::now() + HIT_FOR_PASS;
            self.cache.flights.mark_uncacheable(self.seen.flight(&self.miss.keyed.key), until);
        }
    }

    fn entry(
        &self,
        answer: Encoded,
        (from, took): (&Provenance, Duration),
        (said, id): (Option<Keep>, Option<&str>),
    ) -> Result<Entry, Skip> {
        let keyed = &self.miss.keyed;
        let target = &keyed.planned.target;
        let (identity, state) = (&keyed.admitted.caller.identity, self.state());
        let said = said.unwrap_or_else(|| as_planned(keyed.plan.freshness));
        let key = self.key(&said)?;
        let now = unix_ms();
        let after = |time: Duration| now.saturating_add(millis(time));
        let Freshness { ttl, stale_while_revalidate, stale_if_error } = said.freshness;
        let meta = EntryMeta {
            stored_at_ms: now,
            expires_at_ms: after(ttl),
            stale_while_revalidate_until_ms: after(ttl.saturating_add(stale_while_revalidate)),
            stale_if_error_until_ms: after(ttl.saturating_add(stale_if_error)),
            seen: self.seen,
            upstream_ms: millis(took),
            route: state.route.id.clone(),
            tenant: identity.tenant.clone(),
            user: identity.user.clone(),
            model: target.model.clone(),
            api: keyed.planned.asked.request.prompt.api,
            embed_text: keyed.embed_text().ok().map(str::to_owned),
            replay_headers: upstream_headers::replayed(&from.head.headers, &state.route.cache.replay_headers),
            exact_only: said.exact_only,
            tags: said.tags.into_iter().chain(id.and_then(answer_tag)).collect(),
            labels: said.labels,
        };
        Ok(Entry::new(key, meta, answer))
    }

    /// The request's own key, or the one under the narrower scope that policies want.
    fn key(&self, said: &Keep) -> Result<CacheKey, Skip> {
        let keyed = &self.miss.keyed;
        match &said.narrow {
            None => Ok(keyed.key),
            Some(scope) => keyed.under(&self.cache, scope).map_err(|_| Skip::Policy),
        }
    }
}

/// What is kept where no policy has a word.
fn as_planned(freshness: Freshness) -> Keep {
    Keep { freshness, narrow: None, exact_only: false, tags: Vec::new(), labels: Vec::new() }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
