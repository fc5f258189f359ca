//! Seventh stage: is the answer known? First by the question itself, then by its meaning.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use refrain_cache::{
    CacheKey, CandidateView, Decision, Embedding, Entry, Found, KeyParts, ScopeId, decide, unix_ms,
};
use refrain_core::{Bypass, ExactOnly, Plan, Prompt, SemanticPlan};

use crate::auth::Caller;
use crate::cache_status::{CacheStatus, Tier};
use crate::head::Head;
use crate::request::Note;
use crate::route::RouteState;
use crate::snapshot::AnswerCache;

/// Request headers that can change an answer.
const KEYED_HEADERS: [&str; 2] = ["anthropic-beta", "anthropic-version"];
/// Where they are passed on, the upstream may answer by whom it sees.
const FORWARDED_CREDENTIALS: [&str; 3] = ["authorization", "cookie", "x-api-key"];

/// What names a request's entry, and what may be done with it.
pub(crate) struct Keyed {
    /// The request's digests.
    pub(crate) key: CacheKey,
    /// Which build of the model the key names.
    pub(crate) model_identity: Arc<str>,
    /// The plan.
    pub(crate) plan: Plan,
}

/// What the look-up found.
pub(crate) enum Lookup {
    /// A stored answer that may be served.
    Hit(Hit),
    /// None: it must be generated.
    Miss(Box<Miss>),
    /// None, and the client wants none that isn't stored.
    NotCached,
}

/// A stored answer that this caller may have.
pub(crate) struct Hit {
    /// The entry.
    pub(crate) entry: Arc<Entry>,
    /// Which tier found it.
    pub(crate) tier: Tier,
}

/// Proof that nothing stored may be served: what is needed to generate, share and store the answer.
pub(crate) struct Miss {
    /// The request's digests.
    pub(crate) key: CacheKey,
    /// Which build of the model the key names.
    pub(crate) model_identity: Arc<str>,
    /// The plan.
    pub(crate) plan: Plan,
    /// The question's vector, if one was made.
    pub(crate) embedding: Option<Embedding>,
    /// `Miss`, or `Request` if the client refused a stored answer.
    pub(crate) status: CacheStatus,
}

/// The digests of a request, or why it has none.
pub(crate) fn key(
    cache: &AnswerCache,
    state: &RouteState,
    caller: &Caller,
    head: &Head,
    prompt: &Prompt,
    (model, plan): (&str, Plan),
) -> Result<Keyed, Bypass> {
    let identity = state.pool.model_identity(model).ok_or(Bypass::ModelUnknown)?;
    let head = &head.parts;
    let key = cache.key(&KeyParts {
        api: prompt.api,
        model,
        model_identity: &identity,
        namespace: &state.route.cache.namespace,
        scope: ScopeId::of(&plan.scope, &caller.identity)?,
        policy: &[],
        pool: state.pool.id().as_str(),
        query: head.uri.query().unwrap_or_default(),
        headers: &keyed_headers(&head.headers, state.route.forward_credentials),
        partition_body: &prompt.partition_body,
        embed_text: prompt.embed_text.as_deref().ok(),
        extra: &[],
    });
    Ok(Keyed { key, model_identity: identity, plan })
}

/// Every field of the keyed headers. Most requests have none: then nothing is allocated.
fn keyed_headers(headers: &HeaderMap, forward_credentials: bool) -> Vec<(&'static str, &[u8])> {
    let credentials: &[&'static str] = if forward_credentials { &FORWARDED_CREDENTIALS } else { &[] };
    let names = KEYED_HEADERS.iter().chain(credentials);
    names.flat_map(|&name| headers.get_all(name).iter().map(move |value| (name, value.as_bytes()))).collect()
}

/// Looks for an answer.
///
/// # Cancel safety
/// Safe: nothing is changed but counters.
pub(crate) async fn find(
    cache: &AnswerCache,
    state: &RouteState,
    prompt: &Prompt,
    keyed: Keyed,
    note: &mut Note,
) -> Lookup {
    let Keyed { key, model_identity, plan } = keyed;
    let status = match cache.store.find(&key, unix_ms()).await {
        Found::Hit(entry) if may_serve(&entry, &plan) => {
            return Lookup::Hit(Hit { entry, tier: Tier::Exact });
        }
        Found::Hit(_) => CacheStatus::Request,
        Found::Miss => CacheStatus::Miss,
    };
    let (embedding, similar) = match &plan.semantic {
        Some(semantic) => similar(cache, state, prompt, (&key, &plan, semantic), note).await,
        _ => (None, None),
    };
    if let Some(entry) = similar {
        return Lookup::Hit(Hit { entry, tier: Tier::Semantic });
    }
    if plan.directives.only_if_cached {
        return Lookup::NotCached;
    }
    Lookup::Miss(Box::new(Miss { key, model_identity, plan, embedding, status }))
}

/// Whether the client's directives allow a fresh entry.
pub(crate) fn may_serve(entry: &Entry, plan: &Plan) -> bool {
    let age = Duration::from_millis(entry.age_ms(unix_ms()));
    !plan.directives.no_cache && plan.directives.max_age.is_none_or(|max_age| age <= max_age)
}

/// The vector of the question, and the entry of a question with the same meaning.
async fn similar(
    cache: &AnswerCache,
    state: &RouteState,
    prompt: &Prompt,
    (key, plan, semantic): (&CacheKey, &Plan, &SemanticPlan),
    note: &mut Note,
) -> (Option<Embedding>, Option<Arc<Entry>>) {
    let embedding = match embed(cache, prompt).await {
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
    let question = prompt.embed_text.as_deref().unwrap_or_default();
    let candidates = cache.store.nearest(&key.partition, &embedding, semantic.candidates, unix_ms()).await;
    let usable: Vec<_> = candidates.iter().filter(|candidate| may_serve(&candidate.entry, plan)).collect();
    let views: Vec<CandidateView<'_>> = usable
        .iter()
        .map(|candidate| CandidateView {
            similarity: candidate.similarity,
            text: candidate.entry.meta.embed_text.as_deref().unwrap_or_default(),
        })
        .collect();
    let decision = decide(question, &views, semantic);
    note.similarity = views.first().map(|view| view.similarity);
    match decision {
        Decision::Serve { index, .. } if semantic.shadow => {
            let similarity = views[index].similarity;
            state.metrics.shadow();
            tracing::info!(route = %state.route.id, similarity, "shadow: a stored answer would have been served");
            (Some(embedding), None)
        }
        Decision::Serve { index, .. } => (Some(embedding), Some(usable[index].entry.clone())),
        Decision::Refuse { reason, .. } => {
            note.refusal = Some(reason);
            state.metrics.refusal(reason);
            (Some(embedding), None)
        }
    }
}

async fn embed(cache: &AnswerCache, prompt: &Prompt) -> Result<Embedding, ExactOnly> {
    let text = prompt.embed_text.as_deref().map_err(|reason| *reason)?;
    let embedder = cache.embedder.as_ref().ok_or(ExactOnly::EmbedderDown)?;
    embedder.embed(text.to_owned()).await
}
