//! What names a request's entry: every part of the request, as digests.

use std::sync::Arc;

use http::HeaderMap;
use refrain_cache::{CacheKey, KeyParts, PartName, ScopeId};
use refrain_core::{Bypass, EmbedSource, ExactOnly, Plan, Scope};
use refrain_llm::request::Compared;

use crate::plan::Planned;
use crate::request::Admitted;
use crate::snapshot::AnswerCache;

/// Request headers that can change an answer.
const KEYED_HEADERS: [&str; 2] = ["anthropic-beta", "anthropic-version"];
/// Where they are passed on, the upstream may answer by whom it sees.
const FORWARDED_CREDENTIALS: [&str; 3] = ["authorization", "cookie", "x-api-key"];

/// A request that has a name in the cache: all that later stages need of it.
pub(crate) struct Keyed {
    /// Who asks, and by which route.
    pub(crate) admitted: Arc<Admitted>,
    /// What was asked, and where a miss goes.
    pub(crate) planned: Arc<Planned>,
    /// The plan, which a client's wish to regenerate may have narrowed.
    pub(crate) plan: Plan,
    /// The request's digests.
    pub(crate) key: CacheKey,
    /// The same under the user alone: policies may have kept an answer there for what it says.
    pub(crate) narrow: Option<CacheKey>,
    /// Which build of the model the key names.
    pub(crate) model_identity: Arc<str>,
    /// What is compared where it isn't the last user message, or why nothing is.
    pub(crate) compared: Option<Result<Compared, ExactOnly>>,
}

/// Names a request, or says why it has no name.
pub(crate) fn name(
    cache: &AnswerCache,
    admitted: Arc<Admitted>,
    planned: Arc<Planned>,
    plan: Plan,
) -> Result<Keyed, Bypass> {
    let target = &planned.target;
    let model_identity = target.pool.model_identity(&target.model).ok_or(Bypass::ModelUnknown)?;
    let compared = compared(&planned, &plan);
    let mut keyed = Keyed {
        admitted,
        planned,
        plan,
        key: CacheKey { partition: [0; 32], key: [0; 32], fingerprint: [0; 32] },
        narrow: None,
        model_identity,
        compared,
    };
    keyed.key = keyed.under(cache, &keyed.plan.scope)?;
    let policed = keyed.planned.policed.as_deref();
    if policed.is_some_and(|policed| policed.chain.judges()) && keyed.plan.scope.is_wider_than(&Scope::User) {
        keyed.narrow = keyed.under(cache, &Scope::User).ok();
    }
    Ok(keyed)
}

/// Only another source than the usual needs a reading of its own. Where it can't be had, only exact hits count, under the
/// usual key.
fn compared(planned: &Planned, plan: &Plan) -> Option<Result<Compared, ExactOnly>> {
    let source = &plan.semantic.as_ref()?.source;
    let is_usual = *source == EmbedSource::LastUserMessage;
    (!is_usual).then(|| planned.asked.request.compared(source))
}

impl Keyed {
    /// The digests of this request under a scope.
    ///
    /// # Errors
    /// The caller lacks what the scope needs.
    pub(crate) fn under(&self, cache: &AnswerCache, scope: &Scope) -> Result<CacheKey, Bypass> {
        self.with_parts(scope, |parts| cache.key(parts))
    }

    /// Gives each part of the key to `take`, with what it holds.
    ///
    /// # Errors
    /// The caller lacks what the scope needs.
    pub(crate) fn dissect(
        &self,
        cache: &AnswerCache,
        take: &mut dyn FnMut(PartName, &[u8]),
    ) -> Result<(), Bypass> {
        let compared = self.plan.semantic.as_ref().filter(|_| matches!(self.compared, Some(Ok(_))));
        let source = compared.map(|semantic| format!("{:?}", semantic.source));
        let request = &self.planned.asked.request;
        self.with_parts(&self.plan.scope, |parts| cache.dissect((parts, request, source.as_deref()), take))
    }

    fn with_parts<T>(&self, scope: &Scope, told: impl FnOnce(&KeyParts<'_>) -> T) -> Result<T, Bypass> {
        let (state, head) = (self.admitted.state(), &self.admitted.routed.head.parts);
        let prompt = &self.planned.asked.request.prompt;
        let target = &self.planned.target;
        let usual = prompt.embed_text.as_deref().ok();
        let (partition_body, excised) = match &self.compared {
            Some(Ok(compared)) => (&compared.partition_body, Some(compared.excised.as_str())),
            Some(Err(_)) | None => (&prompt.partition_body, usual),
        };
        let policed = self.planned.policed.as_deref();
        let extra = policed.map_or(&[][..], |policed| &policed.key);
        let extra: Vec<(&str, Option<&[u8]>)> =
            extra.iter().map(|part| (part.name.as_str(), part.value.as_deref())).collect();
        Ok(told(&KeyParts {
            api: prompt.api,
            model: &target.model,
            model_identity: &self.model_identity,
            namespace: &state.route.cache.namespace,
            scope: ScopeId::of(scope, &self.admitted.caller.identity)?,
            policy: policed.map_or(&[], |policed| policed.chain.identity()),
            pool: target.pool.id().as_str(),
            query: head.uri.query().unwrap_or_default(),
            headers: &keyed_headers(&head.headers, state.route.forward_credentials),
            partition_body,
            excised,
            extra: &extra,
        }))
    }

    /// The text that is embedded, and that evidence is taken from.
    pub(crate) fn embed_text(&self) -> Result<&str, ExactOnly> {
        match &self.compared {
            Some(Ok(compared)) => Ok(&compared.embed_text),
            Some(Err(reason)) => Err(*reason),
            None => self.planned.asked.request.prompt.embed_text.as_deref().map_err(|reason| *reason),
        }
    }
}

/// Every field of the keyed headers. Most requests have none: then nothing is allocated.
fn keyed_headers(headers: &HeaderMap, forward_credentials: bool) -> Vec<(&'static str, &[u8])> {
    let credentials: &[&'static str] = if forward_credentials { &FORWARDED_CREDENTIALS } else { &[] };
    let names = KEYED_HEADERS.iter().chain(credentials);
    names.flat_map(|&name| headers.get_all(name).iter().map(move |value| (name, value.as_bytes()))).collect()
}
