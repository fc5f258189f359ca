//! An explanation as JSON: what the admin listener answers and the command reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use refrain_cache::{Evidence, Part, PartName, UnderWay};
use refrain_core::{Plan, Role, TenantId, UserId, Veto, hex};
use refrain_plugin::verdict::{Decision, Planned, Upstream};
use refrain_proxy::explain::{
    ExactFound, ExplainedCaller, ExplainedKey, ExplainedLimit, ExplainedRate, ExplainedUpstream, Explanation,
    Neighbour, Outcome,
};
use refrain_upstream::Preview;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::plugin::decision;

/// What would become of a request, as far as it would come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ExplainAnswer {
    /// The routes that were tried, the one that takes it last.
    pub(crate) routes: Vec<TriedRoute>,
    pub(crate) caller: Option<ToldCaller>,
    /// What its limits have for it now.
    #[serde(default)]
    pub(crate) limits: Vec<ToldLimit>,
    /// What each policy says, on its own.
    pub(crate) policies: Vec<ToldPolicy>,
    /// What is to be done about caching in the end.
    pub(crate) plan: Option<Map<String, Value>>,
    pub(crate) key: Option<ToldKey>,
    pub(crate) exact: Option<ToldExact>,
    /// Why similar questions are not looked for.
    pub(crate) exact_only: Option<String>,
    /// Similar stored questions, best first.
    pub(crate) neighbours: Vec<ToldNeighbour>,
    /// Whether the same is being generated: `no`, `joinable`, or `apart` (too many wait, or it can't be shared); none: it is no
    /// miss, or shares nothing.
    #[serde(default)]
    pub(crate) under_way: Option<String>,
    pub(crate) upstream: Option<ToldUpstream>,
    pub(crate) outcome: ToldOutcome,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TriedRoute {
    pub(crate) route: String,
    /// The condition that the request doesn't meet; none: it takes the request.
    pub(crate) mismatch: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ToldCaller {
    pub(crate) tenant: String,
    pub(crate) user: Option<String>,
    pub(crate) claims: BTreeMap<String, String>,
    pub(crate) role: String,
    /// Its API key's name.
    pub(crate) key: Option<String>,
    /// Empty: all.
    pub(crate) models: Vec<String>,
    /// Empty: all.
    pub(crate) pools: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ToldLimit {
    pub(crate) limit: String,
    /// Whether it would let the request in.
    pub(crate) admits: bool,
    /// Whether its counts could not be asked.
    pub(crate) unavailable: bool,
    pub(crate) rates: Vec<ToldRate>,
    /// Requests under way, where they are limited.
    pub(crate) under_way: Option<u32>,
    pub(crate) under_way_max: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ToldRate {
    pub(crate) name: String,
    pub(crate) limit: u64,
    pub(crate) left: u64,
    /// Until all of it is there again.
    pub(crate) full_in_s: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ToldPolicy {
    pub(crate) policy: String,
    pub(crate) says: Map<String, Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ToldKey {
    pub(crate) key: String,
    pub(crate) partition: String,
    pub(crate) parts: Vec<ToldPart>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToldPart {
    pub(crate) name: String,
    pub(crate) hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ToldExact {
    pub(crate) stored: bool,
    pub(crate) age_s: Option<u64>,
    /// None: its time is over.
    pub(crate) fresh_for_s: Option<u64>,
    /// Whether it is only in the shared store.
    pub(crate) shared: bool,
    /// Whether the client's directives allow it.
    pub(crate) allowed: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ToldNeighbour {
    pub(crate) key: String,
    pub(crate) cosine: f32,
    pub(crate) margin: Option<f32>,
    pub(crate) jaccard: f32,
    /// In what the questions differ, of what may forbid a hit.
    pub(crate) differs: Vec<String>,
    /// Why its answer may not be served; none: it may.
    pub(crate) refusal: Option<String>,
    pub(crate) age_s: u64,
    pub(crate) allowed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ToldUpstream {
    pub(crate) pool: String,
    pub(crate) model: String,
    /// In the order in which they would be tried.
    pub(crate) servers: Vec<ToldServer>,
    pub(crate) fallback: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ToldServer {
    pub(crate) endpoint: String,
    pub(crate) reason: String,
    pub(crate) state: String,
    pub(crate) in_flight: u32,
    pub(crate) tokens: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ToldOutcome {
    /// As the response would have it.
    pub(crate) cache_status: Option<String>,
    pub(crate) bypass: Option<String>,
    pub(crate) refusal: Option<String>,
    /// A policy's reason, and which policy.
    pub(crate) policy: Option<String>,
    /// The error, if it is refused.
    pub(crate) error: Option<String>,
    pub(crate) message: Option<String>,
}

impl From<Explanation> for ExplainAnswer {
    fn from(explanation: Explanation) -> Self {
        let Explanation {
            routes,
            caller,
            limits,
            policies,
            plan,
            key,
            exact,
            exact_only,
            neighbours,
            answer: _, // The outcome says it.
            under_way,
            upstream,
            outcome,
        } = explanation;
        let tried = |(route, mismatch): (refrain_core::RouteId, Option<&str>)| TriedRoute {
            route: route.as_str().to_owned(),
            mismatch: mismatch.map(str::to_owned),
        };
        Self {
            routes: routes.into_iter().map(tried).collect(),
            caller: caller.map(told_caller),
            limits: limits.into_iter().map(told_limit).collect(),
            policies: policies
                .into_iter()
                .map(|(policy, said)| ToldPolicy { policy: policy.to_string(), says: decision::of(&said) })
                .collect(),
            plan: plan.map(told_plan),
            key: key.map(told_key),
            exact: exact.map(told_exact),
            exact_only: exact_only.map(|reason| reason.as_str().to_owned()),
            neighbours: neighbours.into_iter().map(told_neighbour).collect(),
            under_way: under_way.map(|seen| told_under_way(seen).to_owned()),
            upstream: upstream.map(told_upstream),
            outcome: told_outcome(outcome),
        }
    }
}

fn told_caller(caller: ExplainedCaller) -> ToldCaller {
    let ExplainedCaller { identity, key, models, pools } = caller;
    let role = match identity.role {
        Role::Caller => "caller",
        Role::Admin => "admin",
    };
    ToldCaller {
        tenant: TenantId::to_string(&identity.tenant),
        user: identity.user.as_ref().map(UserId::to_string),
        claims: identity.claims,
        role: role.to_owned(),
        key: key.map(|key| key.to_string()),
        models,
        pools: pools.iter().map(ToString::to_string).collect(),
    }
}

fn told_limit(limit: ExplainedLimit) -> ToldLimit {
    let ExplainedLimit { limit, rates, under_way, admits, is_unavailable } = limit;
    let rate = |ExplainedRate { name, limit, left, full_in }: ExplainedRate| {
        let full_in_s = u64::try_from(full_in.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
        ToldRate { name, limit, left, full_in_s }
    };
    ToldLimit {
        limit: limit.to_string(),
        admits,
        unavailable: is_unavailable,
        rates: rates.into_iter().map(rate).collect(),
        under_way: under_way.map(|(now, _)| now),
        under_way_max: under_way.map(|(_, max)| max),
    }
}

fn told_under_way(seen: UnderWay) -> &'static str {
    match seen {
        UnderWay::Nothing => "no",
        UnderWay::Joinable(_) => "joinable",
        UnderWay::Apart => "apart",
    }
}

/// In the words of `refrain plugin run`.
fn told_plan(plan: Plan) -> Map<String, Value> {
    let planned = Planned {
        plan,
        key_add: Vec::new(),
        edits: Vec::new(),
        upstream: Upstream::default(),
        labels: Vec::new(),
        contexts: Arc::default(),
    };
    let mut told = decision::of(&Ok(Decision::Cache(Box::new(planned))));
    told.retain(|name, _| !matches!(name.as_str(), "decision" | "key"));
    told
}

fn told_key(key: ExplainedKey) -> ToldKey {
    let ExplainedKey { key, partition, parts, narrow: _, question: _ } = key;
    let part = |(Part { name, digest }, text): (Part, Option<String>)| ToldPart {
        name: PartName::to_string(&name),
        hash: format!("{digest:016x}"),
        text,
    };
    ToldKey { key: hex(&key), partition: hex(&partition), parts: parts.into_iter().map(part).collect() }
}

fn told_exact(exact: ExactFound) -> ToldExact {
    match exact {
        ExactFound::Nothing => {
            ToldExact { stored: false, age_s: None, fresh_for_s: None, shared: false, allowed: true }
        }
        ExactFound::Stored { age, fresh_for, is_shared, is_allowed } => ToldExact {
            stored: true,
            age_s: Some(age.as_secs()),
            fresh_for_s: fresh_for.map(|left| left.as_secs()),
            shared: is_shared,
            allowed: is_allowed,
        },
    }
}

fn told_neighbour(neighbour: Neighbour) -> ToldNeighbour {
    let Neighbour { key, evidence: Evidence { cosine, margin, lexical }, refusal, age, is_allowed, text } =
        neighbour;
    let differs = Veto::ALL.into_iter().filter(|veto| lexical.speaks_for(*veto));
    ToldNeighbour {
        key: hex(&key),
        cosine,
        margin,
        jaccard: lexical.jaccard,
        differs: differs.map(|veto| veto.as_str().to_owned()).collect(),
        refusal: refusal.map(|refusal| refusal.as_str().to_owned()),
        age_s: age.as_secs(),
        allowed: is_allowed,
        text,
    }
}

fn told_upstream(upstream: ExplainedUpstream) -> ToldUpstream {
    let ExplainedUpstream { pool, model, servers, fallback } = upstream;
    let server = |preview: Preview| ToldServer {
        endpoint: preview.endpoint.to_string(),
        reason: preview.reason.as_str().to_owned(),
        state: preview.condition.as_str().to_owned(),
        in_flight: preview.in_flight,
        tokens: preview.tokens,
    };
    ToldUpstream {
        pool: pool.to_string(),
        model,
        servers: servers.into_iter().map(server).collect(),
        fallback: fallback.map(|pool| pool.to_string()),
    }
}

fn told_outcome(outcome: Outcome) -> ToldOutcome {
    match outcome {
        Outcome::Unknown => ToldOutcome::default(),
        Outcome::Answered { cache_status, bypass, refusal, policy, fresh_for: _ } => ToldOutcome {
            cache_status,
            bypass: bypass.map(|bypass| bypass.as_str().to_owned()),
            refusal: refusal.map(|refusal| refusal.as_str().to_owned()),
            policy: policy.map(|(policy, reason)| format!("{policy}: {reason}")),
            ..ToldOutcome::default()
        },
        Outcome::Refused { code, message } => ToldOutcome {
            error: Some(code.as_str().to_owned()),
            message: Some(message),
            ..ToldOutcome::default()
        },
    }
}
