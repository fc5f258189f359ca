//! `[pool.NAME]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Certificate, Discover, SecretSource};
use crate::text::{
    ExactPath, FilePath, HeaderName, JsonPointer, MetricName, NonEmpty, ServerName, TimeSpan, UpstreamUrl,
};

/// Upstream servers that serve the same models.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Pool {
    /// What software answers: decides how the identity of a model is learned. Default "generic".
    pub(crate) kind: Option<PoolKind>,
    /// URLs of servers. Those that need more than a URL are `[[pool.NAME.endpoint]]` tables; there may be both.
    pub(crate) endpoints: Vec<UpstreamUrl>,
    /// Servers with settings of their own.
    pub(crate) endpoint: Vec<Endpoint>,
    /// Where more servers are learned of while it runs; a pool with one needs no others.
    pub(crate) discover: Vec<Discover>,
    /// Names the build of the models behind it; part of every cache key. Change it on redeploy. Default "".
    pub(crate) revision: Option<String>,
    /// The model names that clients use -> those that the servers know.
    pub(crate) models: BTreeMap<String, NonEmpty>,
    /// Four time-outs. Routes may override them.
    pub(crate) timeouts: Timeouts,
    /// Idle connections kept, per worker and server; 0: none. Default 32.
    #[schemars(range(min = 0, max = 65_536))]
    pub(crate) idle_connections: Option<u32>,
    /// Connections open at once, per worker and server. A request that finds none free waits for one, no longer than
    /// `timeouts.connect`. Default 1024.
    #[schemars(range(min = 1, max = 65_536))]
    pub(crate) connections: Option<u32>,
    /// Which HTTP the servers are spoken to with. Default: "auto".
    pub(crate) http_version: Option<HttpVersion>,
    /// TLS of the servers whose URL begins with https://.
    pub(crate) tls: Option<UpstreamTls>,
    /// `Authorization` header to send, scheme included: `Bearer sk-...`.
    pub(crate) authorization: Option<SecretSource>,
    /// Other headers to send, such as an API key of the servers. Clients can't override them.
    pub(crate) headers: BTreeMap<String, SecretSource>,
    /// Which server is asked. Default "prefix".
    pub(crate) balance: Option<Balance>,
    /// What balance = "hash" goes by: "user", "session", { header = "NAME" } or { field = "/JSON/POINTER" }.
    pub(crate) hash_by: Option<HashBy>,
    /// Headers by which clients name their conversation; such requests stay together. Default: "x-session-id" and
    /// "x-openwebui-chat-id".
    pub(crate) session_headers: Option<Vec<HeaderName>>,
    /// Fields of the body by which clients name their conversation, as JSON pointers. Default: "/prompt_cache_key" and
    /// "/session_id".
    pub(crate) session_fields: Option<Vec<JsonPointer>>,
    /// How much it takes.
    pub(crate) limits: PoolLimits,
    /// How failures are noticed.
    pub(crate) health: Health,
    /// Who tells how busy the servers' GPUs are. Default: nobody.
    pub(crate) gpu: Option<Gpu>,
    /// How tenants are kept apart in the prefix caches of the servers. Default: "salted" where several tenants have keys, for
    /// kind = "generic"; else "shared".
    pub(crate) tenancy: Option<Tenancy>,
    /// The tenant that a "dedicated" pool serves.
    pub(crate) tenant: Option<NonEmpty>,
    /// The pool that is asked if no server of this one can answer.
    pub(crate) fallback: Option<String>,
    /// Ask for a stream also where the client wants a whole answer: for servers behind fronts that cut silent connections, as
    /// RunPod's HTTP proxy does. Default false.
    pub(crate) assemble: bool,
    /// US dollars an hour of a server; those that a source of servers tells go before. For `refrain cost`. Default: not known.
    #[schemars(range(min = 0.0, max = 1_000_000.0))]
    pub(crate) price_per_hour: Option<f64>,
    /// Whether servers are started and stopped as the load asks for it: then what the cache spares is saved; otherwise it only
    /// frees them for other work. Default false.
    pub(crate) elastic: bool,
}

/// Which server is asked.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Balance {
    /// The one that most likely has the prompt's prefix in its own cache, unless it is much busier than the others.
    Prefix,
    /// The same one for the same `hash_by`, unless it is much busier than the others.
    Hash,
    /// The one of two at random with fewer outstanding prompt tokens.
    LeastLoad,
    /// Each in turn.
    RoundRobin,
}

/// What a hash goes by.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HashBy {
    /// The verified user.
    User,
    /// The conversation that `session_headers` and `session_fields` name.
    Session,
    /// A request header.
    Header(HeaderName),
    /// A field of the body.
    Field(JsonPointer),
}

/// How tenants are kept apart.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Tenancy {
    /// By vLLM's `cache_salt`, from a keyed hash of the tenant.
    Salted,
    /// The pool serves one tenant alone: `tenant`.
    Dedicated,
    /// Not at all: the time an answer takes can tell what another tenant has asked.
    Shared,
}

/// How much a pool takes. These are limits of the servers: several proxies divide them.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PoolLimits {
    /// Requests in flight a server; more wait. Default 256.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) concurrency: Option<u32>,
    /// Requests that a server computes side by side (--max-num-seqs, -np, OLLAMA_NUM_PARALLEL). Up to so many, none is sent
    /// away from its preferred server. Default: 16, or 8 for kind = "ollama".
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) parallelism: Option<u32>,
    /// Requests that wait for a server; more are refused. 0: none waits. Default 1024.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(crate) queue: Option<u32>,
    /// Longest wait. Default "30s".
    pub(crate) queue_timeout: Option<TimeSpan>,
}

/// How failures are noticed.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Health {
    /// Ask each server for its models every so often. Default true.
    pub(crate) active: Option<bool>,
    /// How often. Default "2s".
    pub(crate) interval: Option<TimeSpan>,
    /// How long a server that keeps failing is left out at first. Default "10s".
    pub(crate) ejection: Option<TimeSpan>,
    /// Over how long a new or returned server gets its full share. Default "15s".
    pub(crate) slow_start: Option<TimeSpan>,
}

/// A Prometheus exporter at each server's own host, such as NVIDIA's DCGM exporter: plain HTTP, and nothing of what the
/// server is sent.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gpu {
    /// Its port, such as 9400.
    #[schemars(required, range(min = 1, max = 65_535))]
    pub(crate) port: Option<u16>,
    /// The page with its metrics. Default "/metrics".
    pub(crate) path: Option<ExactPath>,
    /// The metric that says how busy a GPU is; of several samples, the mean. Default "DCGM_FI_DEV_GPU_UTIL".
    pub(crate) metric: Option<MetricName>,
    /// What the metric is in. Default "percent"; but "ratio" where its name begins with `DCGM_FI_PROF_` or ends in `_ratio`.
    pub(crate) unit: Option<GpuUnit>,
    /// How often it is read, from 1 s to 1 h. What it said last holds for three times as long. Default "15s".
    pub(crate) interval: Option<TimeSpan>,
}

/// What a GPU's use is told in.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum GpuUnit {
    /// From 0 to 100.
    Percent,
    /// From 0 to 1.
    Ratio,
}

/// What software a pool's servers run.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PoolKind {
    /// Anything with an OpenAI or Anthropic API (vLLM, llama.cpp, SGLang, ...): models are identified by `revision`.
    Generic,
    /// Ollama: models are identified by their digests.
    Ollama,
}

/// One server.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Endpoint {
    /// Stable name, in metrics and logs. Default: the URL's host and port.
    pub(crate) name: Option<NonEmpty>,
    /// http:// or https:// URL, perhaps with a path prefix.
    #[schemars(required)]
    pub(crate) url: Option<UpstreamUrl>,
    /// Share of the load relative to the others. Default 1.
    #[schemars(range(min = 1, max = 1_000))]
    pub(crate) weight: Option<u32>,
    /// US dollars an hour. Default: the pool's.
    #[schemars(range(min = 0.0, max = 1_000_000.0))]
    pub(crate) price_per_hour: Option<f64>,
    /// Which HTTP it is spoken to with. Default: the pool's.
    pub(crate) http_version: Option<HttpVersion>,
    /// TLS, with an https:// URL. What is left out here is as in the pool's table.
    pub(crate) tls: Option<UpstreamTls>,
    /// `Authorization` header to send, scheme included: `Bearer sk-...`. Default: the pool's.
    pub(crate) authorization: Option<SecretSource>,
    /// Other headers to send, beside the pool's, and in place of those of the same name.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, SecretSource>,
}

/// Which HTTP servers are spoken to with.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HttpVersion {
    /// HTTP/2 if the server chooses it over TLS (ALPN), else HTTP/1.1.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, also without TLS (prior knowledge).
    Http2,
}

/// TLS towards servers.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UpstreamTls {
    /// PEM file with the authorities that are trusted. Default: the system's.
    pub(crate) ca_file: Option<FilePath>,
    /// What this proxy shows of itself. Default: nothing.
    pub(crate) client_certificate: Option<Certificate>,
    /// Name that is asked for (SNI) and that a server's certificate must have. Default: the URL's host.
    pub(crate) server_name: Option<ServerName>,
    /// Whether a server must prove who it is. Never false but for a test: anybody on the way can read and answer.
    /// Default: true.
    pub(crate) verify: Option<bool>,
}

/// Time-outs of an upstream request.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Timeouts {
    /// To connect, TLS included. Default "2s".
    pub(crate) connect: Option<TimeSpan>,
    /// From the request's last byte to the response head. Long, since whole answers come late. Default "10m".
    pub(crate) first_byte: Option<TimeSpan>,
    /// Between two reads of the response. Default "2m".
    pub(crate) idle: Option<TimeSpan>,
    /// From the request's first byte to the response's last. Default "1h".
    pub(crate) total: Option<TimeSpan>,
}
