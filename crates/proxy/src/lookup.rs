//! Seventh stage: is the answer known? First by the question itself, then by its meaning.

use std::sync::Arc;
use std::time::{Duration, Instant};

use refrain_cache::{
    Candidate, CandidateView, Decision, Embedding, Entry, Found, Passed, Place, Refusal, decide, passing,
    unix_ms,
};
use refrain_core::{ExactOnly, Plan, SemanticPlan};

use crate::audit;
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
    /// One for a similar question that is served, and compared with what an upstream says.
    Audited(Hit, Box<Miss>),
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
    /// How similar its question is, if it isn't the same, and the digest of the one that was asked.
    pub(crate) similar: Option<(f32, u64)>,
}

/// An answer to a similar question that the fresh one is compared with: it was served and is audited, or might have been
/// served but for shadow mode.
pub(crate) struct InShadow {
    /// The entry.
    pub(crate) entry: Arc<Entry>,
    /// How similar its question is.
    pub(crate) similarity: f32,
    /// How similar it has to be.
    pub(crate) threshold: f32,
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
    /// What shadow mode kept back, or would have if it were similar enough.
    pub(crate) in_shadow: Option<InShadow>,
    /// Why no answer to a similar question was served, where one was looked for.
    pub(crate) refusal: Option<Refusal>,
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
    let Similar { embedding, served, in_shadow } = similar(cache, &keyed, &semantic, note).await;
    match served {
        Some(hit) => serve(keyed, &exact, hit, semantic.threshold),
        None => generate(keyed, &exact, embedding, Takes::Stored).with_shadow(in_shadow),
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
        keyed.admitted.state().metrics.shadow();
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

/// A hit by meaning, perhaps one that is audited. Who wants nothing but what is stored, or nothing stored of its own, has the
/// upstream asked for nothing.
fn serve(keyed: Keyed, exact: &Exact, hit: Hit, threshold: f32) -> Lookup {
    let share = keyed.admitted.state().route.cache.semantic.as_ref().map_or(0.0, |semantic| semantic.audit);
    let directives = &keyed.plan.directives;
    if directives.only_if_cached || directives.no_store || !audit::is_drawn(share) {
        return Lookup::Hit(hit);
    }
    let similarity = hit.similar.map_or(threshold, |(similarity, _)| similarity);
    let mut miss = miss(keyed, exact, None, Takes::Nothing);
    miss.in_shadow = Some(InShadow { entry: hit.entry.clone(), similarity, threshold });
    Lookup::Audited(hit, miss)
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
    Box::new(Miss { keyed, embedding, status, takes, fallback, in_shadow: None, refusal: None })
}

impl Hit {
    fn exact(entry: &Arc<Entry>, place: Place, staleness: Staleness) -> Self {
        Self { entry: entry.clone(), tier: Tier::Exact, place, staleness, similar: None }
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

/// What the look-up by meaning found.
#[derive(Default)]
struct Similar {
    /// The vector of the question.
    embedding: Option<Embedding>,
    /// The answer to a question with the same meaning.
    served: Option<Hit>,
    in_shadow: Option<InShadow>,
}

async fn similar(cache: &AnswerCache, keyed: &Keyed, semantic: &SemanticPlan, note: &mut Note) -> Similar {
    let (state, plan) = (keyed.admitted.state(), &keyed.plan);
    let embedding = match embed(cache, keyed).await {
        Ok(embedding) => embedding,
        Err(reason) => {
            state.metrics.exact_only(reason);
            return Similar::default();
        }
    };
    // The vector is still needed: the fresh answer replaces the entry, and similar questions must find it.
    if plan.directives.no_cache {
        return Similar { embedding: Some(embedding), ..Similar::default() };
    }
    let (store, partition, k) = (&cache.store, &keyed.key.partition, semantic.candidates);
    let mut near = store.nearest(partition, &embedding, k, unix_ms()).await;
    let mut judged = accepted(keyed, semantic, &near, note).await.map(|accepted| (accepted, Place::Near));
    if judged.is_err() && store.has_shared_vectors() {
        near = store.nearest_shared(partition, &embedding, k, unix_ms()).await;
        judged = accepted(keyed, semantic, &near, note).await.map(|accepted| (accepted, Place::Shared));
    }
    let shadow = plan.shadow || semantic.shadow;
    let in_shadow = if shadow { in_shadow(keyed, semantic, &near) } else { None };
    let served = match judged {
        Ok(_) if shadow => {
            state.metrics.shadow();
            None
        }
        Ok((Accepted { entry, similarity }, place)) => {
            state.crowds.served(&entry.key.key, &keyed.key.key, Instant::now());
            let (tier, staleness) = (Tier::Semantic, Staleness::Fresh);
            let question = cache.question(keyed.embed_text().unwrap_or_default().as_bytes());
            Some(Hit { entry, tier, place, staleness, similar: Some((similarity, question)) })
        }
        Err(reason) => {
            note.refusal = Some(reason);
            state.metrics.refusal(reason);
            None
        }
    };
    Similar { embedding: Some(embedding), served, in_shadow }
}

/// The candidate that would be served at some threshold.
fn in_shadow(keyed: &Keyed, semantic: &SemanticPlan, near: &[Candidate]) -> Option<InShadow> {
    let usable: Vec<_> = near.iter().filter(|candidate| may_serve(&candidate.entry, &keyed.plan)).collect();
    let any = SemanticPlan { threshold: f32::MIN, ..semantic.clone() };
    let question = keyed.embed_text().unwrap_or_default();
    let Decision::Serve { index, evidence } = decide(question, &views(&usable), &any) else { return None };
    let (entry, threshold) = (usable[index].entry.clone(), semantic.threshold);
    Some(InShadow { entry, similarity: evidence.cosine, threshold })
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
    near: &[Candidate],
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
    let views = views(usable);
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

/// Candidates as they are decided upon.
pub(crate) fn views<'c>(candidates: &[&'c Candidate]) -> Vec<CandidateView<'c>> {
    let view = |candidate: &&'c Candidate| CandidateView {
        similarity: candidate.similarity,
        text: candidate.entry.meta.embed_text.as_deref().unwrap_or_default(),
    };
    candidates.iter().map(view).collect()
}

impl Lookup {
    fn with_shadow(mut self, in_shadow: Option<InShadow>) -> Self {
        if let Self::Miss(miss) = &mut self {
            miss.in_shadow = in_shadow;
        }
        self
    }
}

/// The vector of what is compared, or why nothing is.
pub(crate) async fn embed(cache: &AnswerCache, keyed: &Keyed) -> Result<Embedding, ExactOnly> {
    let text = keyed.embed_text()?;
    let embedder = cache.embedder.as_ref().ok_or(ExactOnly::EmbedderDown)?;
    embedder.embed(text.to_owned()).await
}
