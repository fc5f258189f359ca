//! `[route.NAME]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::telemetry::RouteLog;
use super::{Priority, RoutePlugin, Switch, Timeouts};
use crate::text::{
    AuthMethod, CorsOrigin, ExactPath, HostPattern, Method, NonEmpty, ReplayHeader, TimeSpan, UrlPath,
};

/// Which requests are taken and what is done with them. All conditions must hold.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// Path prefix, at segment borders. Default "/": all.
    pub(crate) path: Option<UrlPath>,
    /// Hosts without port; `*.example.com` for one label below. Default: all.
    #[serde(default)]
    pub(crate) hosts: Vec<HostPattern>,
    /// Methods. Default: all.
    #[serde(default)]
    pub(crate) methods: Vec<Method>,
    /// Headers that must have exactly these values.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// Names of listeners. Default: all.
    #[serde(default)]
    pub(crate) listeners: Vec<String>,
    /// The pool that answers.
    #[schemars(required)]
    pub(crate) pool: Option<String>,
    /// Credentials that it takes: "key", "jwt" (or "jwt:NAME"), "mtls", "anonymous". Default: all that are configured, and
    /// none where the listener allows that.
    pub(crate) auth: Option<Vec<AuthMethod>>,
    /// Paths outside the known inference APIs that are passed through, exactly as written. Default: none.
    #[serde(default)]
    pub(crate) extra_paths: Vec<ExactPath>,
    /// Pass the client's own credentials to the upstream. Default false.
    pub(crate) forward_credentials: Option<bool>,
    /// Origins of web pages that may call: "*" alone, or exact ones. Default: none.
    #[serde(default)]
    pub(crate) cors_origins: Vec<CorsOrigin>,
    /// Overrides of the pool's time-outs.
    #[serde(default)]
    pub(crate) timeouts: Timeouts,
    /// Names of limits: all of them hold. Default: none.
    #[serde(default)]
    pub(crate) limits: Vec<String>,
    /// Whose requests go first where model servers are at their limits, unless the key says. Default "normal".
    pub(crate) priority: Option<Priority>,
    /// What its access lines say beside the usual.
    #[serde(default)]
    pub(crate) log: RouteLog,
    /// What is cached: `false` for nothing, `true` for all defaults, or a table. Default true, if there is a store.
    pub(crate) cache: Option<Switch<Cache>>,
    /// Cache policies that decide within those bounds, in this order: names, or tables with a config. Default: none.
    #[serde(default)]
    pub(crate) plugins: Vec<RoutePlugin>,
}

/// What is cached, for whom and for how long.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cache {
    /// Partition of the cache: routes with the same namespace, pool and models share answers. Default: the route's name.
    pub(crate) namespace: Option<NonEmpty>,
    /// Who may share an answer. Default "user".
    pub(crate) scope: Option<Scope>,
    /// How long an answer may be served. Default "1h".
    pub(crate) ttl: Option<TimeSpan>,
    /// The longest that cache policies may choose. Default: ttl.
    pub(crate) ttl_max: Option<TimeSpan>,
    /// After the ttl, serve it for this much longer while one request refreshes it. Default: none.
    pub(crate) stale_while_revalidate: Option<TimeSpan>,
    /// After the ttl, serve it for this much longer if no upstream can answer. Default: none.
    pub(crate) stale_if_error: Option<TimeSpan>,
    /// The longest that cache policies may choose for either. Default: the two as they are.
    pub(crate) stale_max: Option<TimeSpan>,
    /// Whether answers to requests with a temperature above zero are cached. Default "store".
    pub(crate) sampled: Option<Sampled>,
    /// What the same user's same request means. Default "never".
    pub(crate) regenerate: Option<Regenerate>,
    /// How soon a repeated request asks for another answer, with `regenerate = "repeat"`. Default "1m".
    pub(crate) regenerate_window: Option<TimeSpan>,
    /// Join identical requests in flight. Default true.
    pub(crate) collapse: Option<bool>,
    /// Store answers to requests that offered tools. Default false.
    pub(crate) store_tool_offers: Option<bool>,
    /// Serve answers to similar questions. Needs `[embedder]`. Default: off; `{}` for on with all defaults.
    pub(crate) semantic: Option<Semantic>,
    /// Which `Cache-Control` directives of clients are honoured. Default: all.
    pub(crate) directives: Option<Vec<Directive>>,
    /// Upstream response headers that are stored and replayed. Default: none.
    pub(crate) replay_headers: Vec<ReplayHeader>,
    /// Part of the questions whose misses are noted for `refrain misses`, 0 to 1: digests of the parts of their keys, never
    /// text. Default 0.1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) miss_sample: Option<f32>,
}

/// Who may share an answer.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scope {
    /// The verified user alone. Without one: no cache.
    User,
    /// Everybody of the tenant.
    Tenant,
    /// Callers of the tenant with the same value of this verified claim.
    Claim(NonEmpty),
    /// A part of the user, by this verified claim: a project, a session.
    WithinUser(NonEmpty),
    /// Everybody on routes with this name, over all tenants.
    Shared(NonEmpty),
}

/// Whether sampled answers are cached.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sampled {
    /// Look up and store.
    Store,
    /// Neither.
    Skip,
}

/// What a repeated request means.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Regenerate {
    /// The same question: the stored answer serves.
    Never,
    /// Within the window, a wish for another answer.
    Repeat,
}

/// The semantic tier.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Semantic {
    /// Smallest cosine similarity of a hit, 0 to 1. Default 0.9.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) threshold: Option<f32>,
    /// The least that cache policies may make of it. Default: threshold.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) threshold_floor: Option<f32>,
    /// Similar questions that are looked at. Default 8.
    #[schemars(range(min = 1, max = 64))]
    pub(crate) candidates: Option<u32>,
    /// Differences that forbid a hit, whatever the similarity. Default: all.
    pub(crate) vetoes: Option<Vec<Veto>>,
    /// Only report what would have been served, and ask the upstream. Default false.
    pub(crate) shadow: Option<bool>,
    /// Part of the hits whose question a model server is asked too, behind the client's back, to compare the answers. Default 0.0.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) audit: Option<f32>,
}

/// A difference between two questions.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Veto {
    /// Other numbers.
    Number,
    /// One is negated, or turned to its opposite.
    Negation,
    /// Other things or people, or the same in another order.
    Name,
    /// Another date, month, weekday or relative time.
    Date,
    /// Another unit or currency.
    Unit,
}

/// A directive of the request header `Cache-Control`.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Directive {
    /// Ask the upstream; the new answer replaces the stored one.
    NoCache,
    /// Don't store the answer.
    NoStore,
    /// Serve nothing older.
    MaxAge,
    /// Answer from the cache or not at all. Only ever honoured within scope `user`.
    OnlyIfCached,
}
