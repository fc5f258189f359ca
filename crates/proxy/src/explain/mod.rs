//! Why a request would hit or not: its way through the stages of [`crate::request`] by their own functions, without an upstream.
//!
//! Nothing is sent, stored or noted, and nothing is counted of the route; the store and the embedder are asked as by any
//! request, and count that. Policies are rehearsed. Limits are looked at and not charged; whom they would refuse is explained
//! to the end all the same. What another proxy generates just now is not seen.

mod lookup;
mod stages;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use refrain_cache::{Part, Refusal, UnderWay};
use refrain_core::{Bypass, Code, ExactOnly, Identity, KeyId, ListenerId, Plan, PluginId, PoolId, RouteId};
use refrain_plugin::verdict::{Decision, Failed};
use refrain_upstream::Preview;

use crate::failure::Failure;
use crate::snapshot::Snapshot;

pub use crate::limits::{ExplainedLimit, ExplainedRate};
pub use lookup::{ExactFound, ExplainedAnswer, Neighbour};

/// A request to be explained.
#[derive(Clone, Debug)]
pub struct ExplainedRequest {
    /// HTTP method.
    pub method: Method,
    /// Path, perhaps with a query.
    pub path: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// Who asks.
    pub by: AskedBy,
    /// Where it comes in; none: at the first listener.
    pub listener: Option<ListenerId>,
    /// Whether texts are told, and not only their hashes.
    pub texts: Texts,
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum AskedBy {
    /// Who the headers say, as always.
    Headers,
    /// Who has the API key of this name.
    Key(KeyId),
    /// This caller, as if verified, who may use every model.
    Identity(Identity),
}

/// Whether texts are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Texts {
    /// Hashes only.
    Hidden,
    /// The request's own texts, and those of stored questions that the same user asked.
    Shown,
}

/// What would become of a request, as far as it would come.
#[derive(Debug, Default)]
pub struct Explanation {
    /// The routes in the order in which they are tried, up to the one that takes it, each with the condition that it doesn't
    /// meet.
    pub routes: Vec<(RouteId, Option<&'static str>)>,
    /// Who asks.
    pub caller: Option<ExplainedCaller>,
    /// What its limits have for it now, in the order in which they are asked.
    pub limits: Vec<ExplainedLimit>,
    /// What each policy of the route says, on its own.
    pub policies: Vec<Said>,
    /// What is to be done about caching, policies and client included.
    pub plan: Option<Plan>,
    /// Its name in the cache.
    pub key: Option<ExplainedKey>,
    /// What is stored under that name.
    pub exact: Option<ExactFound>,
    /// Why similar questions are not looked for, where the route would.
    pub exact_only: Option<ExactOnly>,
    /// Stored questions that are most similar, best first.
    pub neighbours: Vec<Neighbour>,
    /// The stored answer that would be served.
    pub answer: Option<ExplainedAnswer>,
    /// Whether the same is being generated; only of what would be a miss that may share.
    pub under_way: Option<UnderWay>,
    /// Where a miss would go.
    pub upstream: Option<ExplainedUpstream>,
    /// How it would end.
    pub outcome: Outcome,
}

/// What a policy says on its own.
pub type Said = (PluginId, Result<Decision, Failed>);

/// A caller with its rights.
#[derive(Clone, Debug)]
pub struct ExplainedCaller {
    /// Who it is.
    pub identity: Identity,
    /// Its API key.
    pub key: Option<KeyId>,
    /// Models that it may ask for; empty: all.
    pub models: Vec<String>,
    /// Pools that a policy may choose for it; empty: all.
    pub pools: Vec<PoolId>,
}

/// A request's name in the cache, taken apart.
#[derive(Clone, Debug)]
pub struct ExplainedKey {
    /// The exact key.
    pub key: [u8; 32],
    /// The same under the user alone, where policies may have kept an answer there.
    pub narrow: Option<[u8; 32]>,
    /// Digest of the question.
    pub question: u64,
    /// What similar questions must share.
    pub partition: [u8; 32],
    /// Its parts; with what they hold, if that is told.
    pub parts: Vec<(Part, Option<String>)>,
}

/// Where a miss would go.
#[derive(Clone, Debug)]
pub struct ExplainedUpstream {
    /// Which pool.
    pub pool: PoolId,
    /// What it is asked for.
    pub model: String,
    /// Its servers in the order in which they would be tried, then those that wouldn't.
    pub servers: Vec<Preview>,
    /// The pool that stands in for it.
    pub fallback: Option<PoolId>,
}

/// How a request would end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Nobody knows yet.
    #[default]
    Unknown,
    /// It is answered, with this `Cache-Status`.
    Answered {
        /// As the response would have it; none: no cache is concerned (`/`, model lists, preflights).
        cache_status: Option<String>,
        /// Why it is past the cache.
        bypass: Option<Bypass>,
        /// Why no similar question's answer is served.
        refusal: Option<Refusal>,
        /// What a policy said for its reason.
        policy: Option<(PluginId, String)>,
        /// How long the served answer stays fresh; none: nothing stored is served, or it is stale.
        fresh_for: Option<Duration>,
    },
    /// It is refused.
    Refused {
        /// The error.
        code: Code,
        /// What the client reads.
        message: String,
    },
}

/// What would become of a request.
///
/// # Cancel safety
/// Safe.
pub async fn explain(snapshot: &Snapshot, request: ExplainedRequest) -> Explanation {
    let mut explanation = Explanation::default();
    let mut refused = None;
    if let Err(failure) = Box::pin(stages::pass(snapshot, request, (&mut explanation, &mut refused))).await {
        explanation.outcome = Outcome::from(failure);
    }
    // Limits are asked before all that may be wrong with a body.
    if let Some(failure) = refused {
        explanation.outcome = Outcome::from(failure);
    }
    explanation
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self::Refused { code: failure.code, message: failure.message.into_owned() }
    }
}
