//! A route's policies without a network: what they would decide about a request, for the command line and for tests of
//! policies. Nothing is looked up, sent or stored; all else is as when serving.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Version};
use refrain_cache::{CacheError, Evidence, Lexical, compare};
use refrain_core::settings::{EmbeddedStore, Endpoint, Limits, Pool, Priority, Route, Store};
use refrain_core::{Code, Identity, ListenerId, PoolId};
use refrain_plugin::verdict::{Candidate, Decision, Failed, Outcome, Planned as Said, Verdict};
use refrain_plugin::{
    CandidatesView, Chain, PluginError, PluginHost, RequestView, ResponseSummary, ResponseView,
};
use refrain_upstream::Upstreams;

use crate::ask::{self, Asked};
use crate::auth::Caller;
use crate::failure::Failure;
use crate::ingest::Whole;
use crate::key::Keyed;
use crate::metrics::RouteMetrics;
use crate::outgoing::{self, Usage};
use crate::paths::PathClass;
use crate::plan::Planned;
use crate::policy::{Call, Decided};
use crate::repeats::Repeats;
use crate::request::Admitted;
use crate::route::{RouteState, Routed};
use crate::snapshot::AnswerCache;
use crate::tenancy::Salts;
use crate::{head, key, plan};

/// A route whose policies are asked about requests that nobody made.
pub struct Rehearsal {
    chain: Arc<Chain>,
    route: Arc<Route>,
    limits: Limits,
    cache: Arc<AnswerCache>,
}

/// Why nothing can be rehearsed.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// A policy can't be loaded.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// There is nothing to key with.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The route has no policies.
    #[error("the route has no policies")]
    NoPolicy,
    /// The request would be answered with an error before policies see it.
    #[error("the request is refused before policies see it: {code}: {message}", code = .code.as_str())]
    Refused {
        /// Which error.
        code: Code,
        /// What the client would read.
        message: String,
    },
    /// Its path is none of an inference API.
    #[error("policies are asked about inference APIs only, such as POST /v1/chat/completions")]
    NotAnApi,
}

/// A request to be rehearsed.
#[derive(Clone, Debug)]
pub struct RehearsedRequest {
    /// HTTP method.
    pub method: Method,
    /// Path, perhaps with a query.
    pub path: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Who asks, as if verified.
    pub identity: Identity,
    /// Body.
    pub body: Bytes,
}

/// What became of a request.
pub struct Rehearsed {
    /// What the policies decided.
    pub decision: Result<Decision, Failed>,
    /// How long that took them.
    pub took: Duration,
    /// What follows from a plan, or why it can't be followed.
    pub followed: Option<Result<Followed, RehearsalError>>,
    /// The request's name in the cache, if it has one.
    keyed: Option<Keyed>,
    cache: Arc<AnswerCache>,
    call: Arc<dyn RequestView>,
    chain: Arc<Chain>,
}

/// What follows from a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The exact key; none: the caller lacks what the scope needs, so nothing is cached. Keyed by a secret of this rehearsal.
    pub key: Option<[u8; 32]>,
    /// What semantic look-up may not cross.
    pub partition: Option<[u8; 32]>,
    /// Same key, same endpoint.
    pub routing_key: Option<[u8; 32]>,
    /// Where a miss goes.
    pub pool: PoolId,
    /// What it is asked for.
    pub model: String,
    /// What is compared with other questions; none: nothing.
    pub embed_text: Option<String>,
    /// The body that the upstream is sent.
    pub upstream_body: Bytes,
}

/// A stored answer to be rehearsed with.
#[derive(Clone, Debug)]
pub struct RehearsedCandidate {
    /// What policies are told by value.
    pub seen: Candidate,
    /// The answer's text.
    pub answer: String,
}

/// An upstream's answer to be rehearsed with.
#[derive(Clone, Debug)]
pub struct RehearsedResponse {
    /// What policies are told by value.
    pub summary: ResponseSummary,
    /// Headers.
    pub headers: BTreeMap<String, String>,
    /// The answer's text.
    pub text: String,
}

impl Rehearsal {
    /// Loads the route's policies.
    ///
    /// # Errors
    /// See [`RehearsalError`].
    pub async fn new(host: &Arc<PluginHost>, route: Route) -> Result<Self, RehearsalError> {
        let chain = host.chain(&route).await?.ok_or(RehearsalError::NoPolicy)?;
        let limits = Limits::default();
        let cache = AnswerCache::with_store(&EmbeddedStore::default(), None, limits.waiters_max)?;
        Ok(Self { chain, route: Arc::new(route), limits, cache: Arc::new(cache) })
    }

    /// Asks the policies about a request.
    ///
    /// # Errors
    /// It doesn't come so far.
    pub async fn request(&self, request: RehearsedRequest) -> Result<Rehearsed, RehearsalError> {
        let (admitted, asked) = self.understood(request)?;
        let store = Store::Embedded(EmbeddedStore::default());
        let defaults = plan::of_route(&self.route, &store, &admitted.routed.head.parts.headers);
        let call: Arc<dyn RequestView> =
            Arc::new(Call::new(admitted.clone(), asked.clone(), defaults, Some(self.cache.clone())));
        let started = Instant::now();
        let decision = self.chain.on_request(&call).await;
        let took = started.elapsed();
        let mut keyed = None;
        let followed = match &decision {
            Ok(Decision::Cache(said)) => {
                let followed = self.followed(&admitted, (&asked, &call), said.as_ref().clone());
                Some(followed.map(|(followed, found)| {
                    keyed = found;
                    followed
                }))
            }
            Ok(Decision::Bypass(_) | Decision::Refuse(_)) | Err(_) => None,
        };
        let (cache, chain) = (self.cache.clone(), self.chain.clone());
        Ok(Rehearsed { decision, took, followed, keyed, cache, call, chain })
    }

    fn understood(&self, request: RehearsedRequest) -> Result<(Arc<Admitted>, Arc<Asked>), RehearsalError> {
        let RehearsedRequest { method, path, headers, identity, body } = request;
        let mut http = Request::new(());
        // It names no host where nobody does.
        *http.version_mut() = Version::HTTP_10;
        *http.method_mut() = method;
        *http.headers_mut() = headers;
        *http.uri_mut() = path.parse().map_err(|_| RehearsalError::NotAnApi)?;
        let head = head::check(&ListenerId::new("rehearsal"), &self.limits, http.into_parts().0)?;
        let PathClass::Api(api) = head.class else { return Err(RehearsalError::NotAnApi) };
        let pool = upstreams([&self.route.pool])?.pool(&self.route.pool).cloned();
        let pool = pool.ok_or(RehearsalError::NoPolicy)?;
        let state = RouteState {
            identity_headers: Arc::default(),
            route: self.route.clone(),
            pool,
            chain: Some(self.chain.clone()),
            repeats: Repeats::new(self.route.cache.regenerate),
            limits: Vec::new(),
            redaction: None,
            crowds: Arc::default(),
            salts: Salts::new(Some(self.cache.salt_key())),
            metrics: RouteMetrics::new(&self.route.id, None),
        };
        let caller = Caller::of(identity);
        let admitted = Admitted {
            routed: Routed { head, state: Arc::new(state) },
            caller,
            priority: Priority::default(),
        };
        let (asked, _) = ask::understand(api, Whole::of(body), &admitted, &self.limits)?;
        Ok((Arc::new(admitted), Arc::new(asked)))
    }

    fn followed(
        &self,
        admitted: &Arc<Admitted>,
        (asked, call): (&Arc<Asked>, &Arc<dyn RequestView>),
        said: Said,
    ) -> Result<(Followed, Option<Keyed>), RehearsalError> {
        let upstreams = upstreams(said.upstream.pool.iter().chain([&self.route.pool]))?;
        let decided = Decided { upstreams: &upstreams, limits: &self.limits, admitted, asked, call };
        let (planned, plan) = decided.cached(&self.chain, said)?;
        let target = &planned.target;
        let mut followed = Followed {
            key: None,
            partition: None,
            routing_key: target.routing_key,
            pool: target.pool.id().clone(),
            model: target.model.clone(),
            embed_text: None,
            upstream_body: sent_body(admitted, &planned),
        };
        let is_semantic = plan.semantic.is_some();
        let keyed = key::name(&self.cache, admitted.clone(), Arc::new(planned), plan).ok();
        if let Some(keyed) = &keyed {
            followed.key = Some(keyed.key.key);
            followed.partition = Some(keyed.key.partition);
            followed.embed_text = keyed.embed_text().ok().filter(|_| is_semantic).map(str::to_owned);
        }
        Ok((followed, keyed))
    }
}

fn sent_body(admitted: &Admitted, planned: &Planned) -> Bytes {
    let rewrite = outgoing::rewrite(admitted, planned, Usage::AsAsked);
    planned.sent.request.upstream_body(&rewrite)
}

/// Pools of these names that nobody connects to.
fn upstreams<'a>(names: impl IntoIterator<Item = &'a PoolId>) -> Result<Upstreams, RehearsalError> {
    let endpoint = Endpoint::plain("nowhere", "localhost", 9);
    let pool = |id: &PoolId| Pool::new(id.clone(), vec![endpoint.clone()]);
    let pools = names.into_iter().map(|id| (id.clone(), Arc::new(pool(id)))).collect();
    Ok(Upstreams::new(&pools).map_err(Failure::from)?)
}

impl From<Failure> for RehearsalError {
    fn from(failure: Failure) -> Self {
        Self::Refused { code: failure.code, message: failure.message.into_owned() }
    }
}

impl Rehearsed {
    /// Asks the policies about stored answers, best first. None if the request was not planned.
    pub async fn candidates(&self, candidates: Vec<RehearsedCandidate>) -> Option<Verdict> {
        let Ok(Decision::Cache(said)) = &self.decision else { return None };
        let question = match &self.followed {
            Some(Ok(Followed { embed_text: Some(text), .. })) => text.clone(),
            _ => last_message(self.call.as_ref()),
        };
        let view: Arc<dyn CandidatesView> = Arc::new(Candidates::new(&question, candidates));
        Some(self.chain.on_candidates(&self.call, &said.contexts, &view).await)
    }

    /// Asks the policies about an answer. None if the request was not planned.
    pub async fn response(&self, response: RehearsedResponse) -> Option<Outcome> {
        let Ok(Decision::Cache(said)) = &self.decision else { return None };
        let view: Arc<dyn ResponseView> = Arc::new(response);
        Some(self.chain.on_response(&self.call, &said.contexts, &said.plan, &view).await)
    }

    /// The exact key under which an answer is kept if the policies say so of it; none: it is not kept.
    pub fn kept_under(&self, outcome: &Outcome) -> Option<[u8; 32]> {
        let (Some(keyed), Outcome::Keep(keep)) = (&self.keyed, outcome) else { return None };
        let scope = keep.narrow.as_ref().unwrap_or(&keyed.plan.scope);
        Some(keyed.under(&self.cache, scope).ok()?.key)
    }

    /// Every exact key under which the request looks for an answer.
    pub fn looks_under(&self) -> Vec<[u8; 32]> {
        let keys = self.keyed.iter().flat_map(|keyed| [Some(keyed.key), keyed.narrow]);
        keys.flatten().map(|key| key.key).collect()
    }
}

fn last_message(call: &dyn RequestView) -> String {
    let count = call.summary().message_count;
    count.checked_sub(1).and_then(|last| call.message_text(last, u32::MAX)).unwrap_or_default()
}

struct Candidates {
    all: Vec<(RehearsedCandidate, Evidence)>,
}

impl Candidates {
    fn new(question: &str, candidates: Vec<RehearsedCandidate>) -> Self {
        let next: Vec<Option<f32>> =
            candidates.iter().skip(1).map(|next| Some(next.seen.similarity)).chain([None]).collect();
        let all = candidates.into_iter().zip(next).map(|(candidate, next)| {
            let lexical: Lexical = compare(question, &candidate.seen.source_text);
            let cosine = candidate.seen.similarity;
            (candidate, Evidence { cosine, margin: next.map(|next| cosine - next), lexical })
        });
        Self { all: all.collect() }
    }
}

impl CandidatesView for Candidates {
    fn list(&self) -> Vec<Candidate> {
        self.all.iter().map(|(candidate, _)| candidate.seen.clone()).collect()
    }

    fn evidence(&self, index: u32, name: &str) -> Option<f32> {
        let (candidate, evidence) = self.all.get(index as usize)?;
        if candidate.seen.exact { None } else { evidence.measure(name) }
    }

    fn answer(&self, index: u32, max_bytes: u32) -> Option<String> {
        let (candidate, _) = self.all.get(index as usize)?;
        Some(candidate.answer[..candidate.answer.floor_char_boundary(max_bytes as usize)].to_owned())
    }
}

impl ResponseView for RehearsedResponse {
    fn summary(&self) -> ResponseSummary {
        self.summary.clone()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    fn text(&self, max_bytes: u32) -> String {
        self.text[..self.text.floor_char_boundary(max_bytes as usize)].to_owned()
    }
}
