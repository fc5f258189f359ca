//! `[pool.NAME]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::SecretSource;
use crate::text::{NonEmpty, TimeSpan, UpstreamUrl};

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
    /// Names the build of the models behind it; part of every cache key. Change it on redeploy. Default "".
    pub(crate) revision: Option<String>,
    /// The model names that clients use -> those that the servers know.
    pub(crate) models: BTreeMap<String, NonEmpty>,
    /// Four time-outs. Routes may override them.
    pub(crate) timeouts: Timeouts,
    /// Idle connections kept, per worker and server; 0: none. Default 32.
    #[schemars(range(min = 0, max = 65_536))]
    pub(crate) idle_connections: Option<u32>,
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
    /// `Authorization` header to send, scheme included: `Bearer sk-...`.
    pub(crate) authorization: Option<SecretSource>,
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
