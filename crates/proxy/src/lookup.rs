//! Seventh stage: is the answer known? First by the question itself, then by its meaning.

use std::sync::Arc;
use std::time::Duration;

use refrain_cache::{
    Candidate, CandidateView, Decision, Embedding, Entry, Found, Passed, Place, Refusal, decide, passing,
    unix_ms,
};
use refrain_core::{ExactOnly, Plan, SemanticPlan};

use crate::cache_status::{CacheStatus, Staleness, Tier};
use crate::key::Keyed;
use crate::note::Note;
use crate::policy::{Choice, Seen, choose, choose_exact};
use crate::snapshot::AnswerCache;

/// What the look-up found.
pub(crate) enum Lookup {
    /// A stored answer that may be served.
    Hit(Hit),
    /// One past its time that may be served while it is refreshed.
    Stale(Hit, Box<Miss>),
    /// None: it must be generated.
    Miss(Box<Miss>),
    /// None, and nobody wants one that isn't stored.
    NotCached,
}

/// A stored answer that this caller may have.
#[derive(Clone)]
pub(crate) struct Hit {
    /// The entry.
    pub(crate) entry: Arc<Entry>,
    /// Which tier found it.
    pub(crate) tier: Tier,
    /// In which store.
    pub(crate) place: Place,
    /// Whether its time is over.
    pub(crate) staleness: Staleness,
}

/// Proof that nothing stored may be served at once: what is needed to generate, share and store the answer.
pub(crate) struct Miss {
    /// The request.
    pub(crate) keyed: Keyed,
    /// The question's vector, if one was made.
    pub(crate) embedding: Option<Embedding>,
    /// Why it is forwarded.
    pub(crate) status: CacheStatus,
    /// What may be served if it turns up meanwhile.
    pub(crate) takes: Takes,
    /// What may be served if no upstream can answer.
    pub(crate) fallback: Option<Hit>,
}

/// What is stored for this very question.
enum Exact {
    Fresh(Arc<Entry>, Place),
    WhileRevalidating(Arc<Entry>, Place),
    IfError(Arc<Entry>, Place),
    /// Past its time, and must not be served.
    Stale,
    /// Fresh, and the client wants none that is stored.
    Kept,
    None,
}

/// Looks for an answer.
///
/// # Cancel safety
/// Safe: nothing is changed but counters.
pub(crate) async fn find(cache: &AnswerCache, keyed: Keyed, note: &mut Note) -> Lookup {
    let exact = within_policies(exact(cache, &keyed).await, &keyed, note).await;
    if let Some(hit) = exact.hit() {
        match judged(&keyed, hit.entry.clone(), note).await {
            // Who wants nothing but what is stored has the upstream asked for nothing either.
            Judged::Serve if hit.staleness == Staleness::Fresh || keyed.plan.directives.only_if_cached => {
                return Lookup::Hit(hit);
            }
            Judged::Serve => return Lookup::Stale(hit, miss(keyed, &exact, None, Takes::Stored)),
            Judged::Keep => return generate(keyed, &exact, None, Takes::Nothing),
        }
    }
    let Some(semantic) = keyed.plan.semantic.clone() else {
        return generate(keyed, &exact, None, Takes::Stored);
    };
    let (embedding, similar) = similar(cache, &keyed, &semantic, note).await;
    match similar {
        Some((entry, place)) => {
            Lookup::Hit(Hit { entry, tier: Tier::Semantic, place, staleness: Staleness::Fresh })
        }
        None => generate(keyed, &exact, embedding, Takes::Stored),
    }
}

/// Policies are asked about a fall-back before it is needed: what they are against is never served. Shadow mode serves none.
async fn within_policies(exact: Exact, keyed: &Keyed, note: &mut Note) -> Exact {
    let Exact::IfError(entry, place) = exact else { return exact };
    let policed = keyed.planned.policed.as_deref();
    if keyed.plan.shadow || choose_exact(policed, &entry, note).await == Choice::Miss {
        return Exact::Stale;
    }
    Exact::IfError(entry, place)
}

/// Whether the answer to this very question is served.
enum Judged {
    Serve,
    /// A policy is against it, or it is only reported.
    Keep,
}

async fn judged(keyed: &Keyed, entry: Arc<Entry>, note: &mut Note) -> Judged {
    if choose_exact(keyed.planned.policed.as_deref(), &entry, note).await == Choice::Miss {
        return Judged::Keep;
    }
    if keyed.plan.shadow {
        report_shadow(keyed, 1.0);
        return Judged::Keep;
    }
    Judged::Serve
}

/// What a generation may take from the store if it turns up meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// The entry under its key.
    Stored,
    /// Nothing: a policy or shadow mode is against it.
    Nothing,
}

fn generate(keyed: Keyed, exact: &Exact, embedding: Option<Embedding>, takes: Takes) -> Lookup {
    if keyed.plan.directives.only_if_cached {
        return Lookup::NotCached;
    }
    let takes = if keyed.plan.shadow { Takes::Nothing } else { takes };
    Lookup::Miss(miss(keyed, exact, embedding, takes))
}

fn miss(keyed: Keyed, exact: &Exact, embedding: Option<Embedding>, takes: Takes) -> Box<Miss> {
    let (status, fallback) = match exact {
        Exact::Kept => (CacheStatus::Request, None),
        Exact::None => (CacheStatus::Miss, None),
        Exact::Fresh(..) => (CacheStatus::Refused, None),
        Exact::WhileRevalidating(..) | Exact::Stale => (CacheStatus::Stale, None),
        Exact::IfError(entry, place) => {
            (CacheStatus::Stale, Some(Hit::exact(entry, *place, Staleness::IfError)))
        }
    };
    Box::new(Miss { keyed, embedding, status, takes, fallback })
}

impl Hit {
    fn exact(entry: &Arc<Entry>, place: Place, staleness: Staleness) -> Self {
        Self { entry: entry.clone(), tier: Tier::Exact, place, staleness }
    }
}

impl Exact {
    /// What may be served at once.
    fn hit(&self) -> Option<Hit> {
        match self {
            Self::Fresh(entry, place) => Some(Hit::exact(entry, *place, Staleness::Fresh)),
            Self::WhileRevalidating(entry, place) => {
                Some(Hit::exact(entry, *place, Staleness::WhileRevalidating))
            }
            Self::IfError(..) | Self::Stale | Self::Kept | Self::None => None,
        }
    }
}

/// The entry of this very question: under the plan's scope, else under the user alone.
async fn exact(cache: &AnswerCache, keyed: &Keyed) -> Exact {
    let now = unix_ms();
    let mut found = cache.store.find(&keyed.key, now).await;
    if let (Found::Miss, Some(narrow)) = (&found, &keyed.narrow) {
        found = cache.store.find(narrow, now).await;
    }
    match found {
        Found::Miss => Exact::None,
        Found::Hit(entry, _) if !may_serve(&entry, &keyed.plan) => Exact::Kept,
        Found::Stale(entry, _) if !may_serve(&entry, &keyed.plan) => Exact::Stale,
        Found::Hit(entry, place) => Exact::Fresh(entry, place),
        Found::Stale(entry, place) if entry.may_serve_while_revalidating(now) => {
            Exact::WhileRevalidating(entry, place)
        }
        Found::Stale(entry, place) if entry.may_serve_if_error(now) => Exact::IfError(entry, place),
        Found::Stale(..) => Exact::None,
    }
}

/// Whether the client's directives allow an entry.
pub(crate) fn may_serve(entry: &Entry, plan: &Plan) -> bool {
    let age = Duration::from_millis(entry.age_ms(unix_ms()));
    !plan.directives.no_cache && plan.directives.max_age.is_none_or(|max_age| age <= max_age)
}

/// The vector of the question, and the entry of a question with the same meaning.
async fn similar(
    cache: &AnswerCache,
    keyed: &Keyed,
    semantic: &SemanticPlan,
    note: &mut Note,
) -> (Option<Embedding>, Option<(Arc<Entry>, Place)>) {
    let (state, plan) = (keyed.admitted.state(), &keyed.plan);
    let embedding = match embed(cache, keyed).await {
        Ok(embedding) => embedding,
        Err(reason) => {
            state.metrics.exact_only(reason);
            return (None, None);
        }
    };
    // The vector is still needed: the fresh answer replaces the entry, and similar questions must find it.
    if plan.directives.no_cache {
        return (Some(embedding), None);
    }
    let (store, partition, k) = (&cache.store, &keyed.key.partition, semantic.candidates);
    let near = store.nearest(partition, &embedding, k, unix_ms()).await;
    let mut judged = accepted(keyed, semantic, near, note).await.map(|entry| (entry, Place::Near));
    if judged.is_err() && store.has_shared_vectors() {
        let shared = store.nearest_shared(partition, &embedding, k, unix_ms()).await;
        judged = accepted(keyed, semantic, shared, note).await.map(|entry| (entry, Place::Shared));
    }
    let served = match judged {
        Ok((accepted, place)) => {
            let Accepted { entry, similarity } = accepted;
            let shadow = plan.shadow || semantic.shadow;
            if shadow {
                report_shadow(keyed, similarity);
            }
            (!shadow).then_some((entry, place))
        }
        Err(reason) => {
            note.refusal = Some(reason);
            state.metrics.refusal(reason);
            None
        }
    };
    (Some(embedding), served)
}

/// A candidate that may be served.
struct Accepted {
    entry: Arc<Entry>,
    similarity: f32,
}

/// The candidate that evidence and policies accept.
async fn accepted(
    keyed: &Keyed,
    semantic: &SemanticPlan,
    near: Vec<Candidate>,
    note: &mut Note,
) -> Result<Accepted, Refusal> {
    let usable: Vec<_> = near.iter().filter(|candidate| may_serve(&candidate.entry, &keyed.plan)).collect();
    note.similarity = usable.first().map(|candidate| candidate.similarity);
    let passed = acceptable(keyed, semantic, &usable)?;
    let Passed { index, evidence } = chosen(keyed, &usable, &passed, note).await?;
    Ok(Accepted { entry: usable[index].entry.clone(), similarity: evidence.cosine })
}

/// The candidates that may be served, best first: one at least. More than the best only where policies choose.
fn acceptable(keyed: &Keyed, semantic: &SemanticPlan, usable: &[&Candidate]) -> Result<Vec<Passed>, Refusal> {
    let question = keyed.embed_text().unwrap_or_default();
    let views: Vec<CandidateView<'_>> = usable
        .iter()
        .map(|candidate| CandidateView {
            similarity: candidate.similarity,
            text: candidate.entry.meta.embed_text.as_deref().unwrap_or_default(),
        })
        .collect();
    let policed = keyed.planned.policed.as_deref();
    if policed.is_some_and(|policed| policed.chain.validates()) {
        passing(question, &views, semantic)
    } else {
        match decide(question, &views, semantic) {
            Decision::Serve { index, evidence } => Ok(vec![Passed { index, evidence }]),
            Decision::Refuse { reason, .. } => Err(reason),
        }
    }
}

/// The candidate that policies choose.
async fn chosen(
    keyed: &Keyed,
    usable: &[&Candidate],
    passed: &[Passed],
    note: &mut Note,
) -> Result<Passed, Refusal> {
    let seen = || {
        let seen = |passed: &Passed| Seen {
            entry: usable[passed.index].entry.clone(),
            evidence: Some(passed.evidence),
        };
        passed.iter().map(seen).collect()
    };
    match choose(keyed.planned.policed.as_deref(), seen, note).await {
        Choice::Serve(index) => passed.get(index).copied().ok_or(Refusal::Policy),
        Choice::Miss => Err(Refusal::Policy),
    }
}

/// Shadow mode: tells what would have been served.
fn report_shadow(keyed: &Keyed, similarity: f32) {
    let state = keyed.admitted.state();
    state.metrics.shadow();
    tracing::info!(route = %state.route.id, similarity, "shadow: a stored answer would have been served");
}

/// The vector of what is compared, or why nothing is.
pub(crate) async fn embed(cache: &AnswerCache, keyed: &Keyed) -> Result<Embedding, ExactOnly> {
    let text = keyed.embed_text()?;
    let embedder = cache.embedder.as_ref().ok_or(ExactOnly::EmbedderDown)?;
    embedder.embed(text.to_owned()).await
}
