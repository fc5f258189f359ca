//! Pools of model servers, and what a request upstream may take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Admission, Balance, Discovery, EndpointTls, GpuExporter, Health, HttpVersion, PoolCost, Sessions, Tenancy,
};
use crate::{EndpointId, PoolId};

/// A named group of endpoints that serve the same models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name in config.
    pub id: PoolId,
    /// Those that config lists: at least one, or something in `discover`.
    pub endpoints: Vec<Endpoint>,
    /// Where more are learned of. Names are unique.
    pub discover: Vec<Arc<Discovery>>,
    /// What software answers: decides how model identity is learned.
    pub kind: PoolKind,
    /// Names the build of the models behind it; part of every key. Change it on redeploy.
    pub revision: String,
    /// Client's model name -> upstream's model name.
    pub models: BTreeMap<String, String>,
    /// Four named time-outs.
    pub timeouts: Timeouts,
    /// Idle upstream connections kept, per worker and endpoint.
    pub idle_connections_max: usize,
    /// Upstream connections open at once, per worker and endpoint; not 0.
    pub connections_max: usize,
    /// Which endpoint is asked.
    pub balance: Balance,
    /// Where clients name their conversations.
    pub sessions: Sessions,
    /// How much it takes.
    pub admission: Admission,
    /// How failures are noticed.
    pub health: Health,
    /// How tenants are kept apart in its endpoints' caches.
    pub tenancy: Tenancy,
    /// The pool that is asked if no endpoint of this one can answer.
    pub fallback: Option<PoolId>,
    /// Ask for streams also where clients want whole answers: for endpoints behind fronts that cut silent connections.
    pub assemble: bool,
    /// What its endpoints cost.
    pub cost: PoolCost,
    /// Who tells how busy its endpoints' GPUs are; none: nobody.
    pub gpu: Option<GpuExporter>,
}

/// What software a pool's endpoints run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PoolKind {
    /// Anything with an OpenAI or Anthropic API (vLLM, llama.cpp, SGLang, ...): identity by `revision`.
    #[default]
    Generic,
    /// Ollama: identity by the digests of `/api/tags`.
    Ollama,
}

/// One upstream server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Stable name; by default its authority.
    pub id: EndpointId,
    /// TLS; none: plain.
    pub tls: Option<EndpointTls>,
    /// Which HTTP.
    pub http: HttpVersion,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path prefix in front of every request path, without a trailing slash; usually empty.
    pub base_path: String,
    /// Share of the load relative to the others.
    pub weight: u32,
    /// `Authorization` to send, if any.
    pub authorization: Option<Secret>,
    /// Other headers to send (lower case), in place of those that a request has.
    pub headers: BTreeMap<String, Secret>,
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Upstream time-outs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect, TLS included.
    pub connect: Duration,
    /// From the request's last byte to the response head. Long: whole answers come late.
    pub first_byte: Duration,
    /// Between two reads of the response body.
    pub idle: Duration,
    /// From the request's first byte to the response's last.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(600),
            idle: Duration::from_secs(120),
            total: Duration::from_secs(3600),
        }
    }
}

impl Pool {
    /// Idle connections per worker and endpoint, if config doesn't say.
    pub const IDLE_CONNECTIONS_MAX: usize = 32;
    /// Open connections per worker and endpoint, if config doesn't say.
    pub const CONNECTIONS_MAX: usize = 1024;

    /// A pool as it is where config says nothing else, and only one tenant asks.
    pub fn new(id: PoolId, endpoints: Vec<Endpoint>) -> Self {
        Self {
            id,
            endpoints,
            kind: PoolKind::default(),
            revision: String::new(),
            models: BTreeMap::new(),
            timeouts: Timeouts::default(),
            discover: Vec::new(),
            idle_connections_max: Self::IDLE_CONNECTIONS_MAX,
            connections_max: Self::CONNECTIONS_MAX,
            balance: Balance::default(),
            sessions: Sessions::default(),
            admission: Admission::default(),
            health: Health::default(),
            tenancy: Tenancy::Shared,
            fallback: None,
            assemble: false,
            cost: PoolCost::default(),
            gpu: None,
        }
    }
}
