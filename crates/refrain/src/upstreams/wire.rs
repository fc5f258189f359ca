//! What the admin listener tells of pools and takes about them: JSON for people with curl, autoscalers and
//! `refrain upstreams`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `GET /upstreams`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct UpstreamsReport {
    /// Proxies that share the pools' limits, this one included.
    pub(crate) proxies: u32,
    /// By name.
    pub(crate) pools: Vec<PoolReport>,
}

/// One pool, as far as this proxy uses it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PoolReport {
    /// Its name.
    pub(crate) pool: String,
    /// Requests being answered.
    pub(crate) in_flight: u64,
    /// Tokens of their prompts, about.
    pub(crate) prompt_tokens: u64,
    /// Requests that an endpoint takes from this proxy at once.
    pub(crate) limit: u32,
    /// The same of all endpoints that are asked.
    pub(crate) capacity: u64,
    /// Who waits.
    pub(crate) queue: QueueReport,
    /// How many endpoints there should be.
    pub(crate) desired_replicas: u32,
    /// Config's first.
    pub(crate) endpoints: Vec<EndpointReport>,
    /// Where endpoints are found.
    pub(crate) discovery: Vec<SourceReport>,
}

/// A pool's queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueueReport {
    /// Requests that wait.
    pub(crate) depth: usize,
    /// Requests that have waited.
    pub(crate) waits: u64,
    /// How long in all.
    pub(crate) wait_seconds: f64,
    /// Requests that were refused, or waited in vain.
    pub(crate) refused: u64,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EndpointReport {
    /// Its name.
    pub(crate) endpoint: String,
    /// Where it is.
    pub(crate) url: Option<String>,
    /// `healthy`, `on_trial`, `ejected`, `down`, `awaited` or `draining`.
    pub(crate) state: String,
    /// Part of its share that it gets: less than 1 in a slow start.
    pub(crate) share: f64,
    /// Requests being answered.
    pub(crate) in_flight: u32,
    /// Tokens of their prompts, about.
    pub(crate) prompt_tokens: u64,
    /// Requests sent so far.
    pub(crate) requests: u64,
    /// Of which failed.
    pub(crate) failures: u64,
    /// What it says that it has; none: nothing yet.
    pub(crate) models: Option<Vec<String>>,
    /// What it costs, in US dollars an hour, if its provider says so.
    pub(crate) price_per_hour: Option<f64>,
    /// How long it has been running, if its provider says so.
    pub(crate) uptime_seconds: Option<u64>,
    /// How busy its host's GPUs are, from 0 to 1, if that is known.
    pub(crate) gpu_utilization: Option<f64>,
    /// Why it failed last.
    pub(crate) last_error: Option<ErrorReport>,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ErrorReport {
    /// In words.
    pub(crate) message: String,
    /// How long ago.
    pub(crate) seconds_ago: u64,
}

/// Something that finds endpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SourceReport {
    /// Its name.
    pub(crate) source: String,
    /// `dns`, `srv`, `file`, `kubernetes`, `vast` or `runpod`.
    pub(crate) kind: String,
    /// Endpoints that it stands for.
    pub(crate) members: usize,
    /// Of them those that it does not list any more.
    pub(crate) held_back: usize,
    /// What it lists that should be an endpoint and can't be used.
    pub(crate) unusable: usize,
    /// When a look last went well.
    pub(crate) last_success_seconds_ago: Option<u64>,
    /// Why the last look failed; none: it went well, or there was none.
    pub(crate) last_error: Option<String>,
}

/// `POST /upstreams/drain` and `/upstreams/undrain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DrainRequest {
    /// Whose.
    pub(crate) pool: String,
    /// Which.
    pub(crate) endpoint: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DrainAnswer {
    /// Whose.
    pub(crate) pool: String,
    /// Which.
    pub(crate) endpoint: String,
    /// Its state now.
    pub(crate) state: String,
    /// Requests that it still answers.
    pub(crate) in_flight: u32,
    /// Endpoints of the pool that are asked now.
    pub(crate) in_service: usize,
}

/// `GET /scaling`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScalingReport {
    /// Proxies that share the pools' limits, this one included.
    pub(crate) proxies: u32,
    /// By name.
    pub(crate) pools: BTreeMap<String, ScalingOfPool>,
}

/// What an autoscaler wants to know of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScalingOfPool {
    /// How many endpoints there should be, for all proxies.
    pub(crate) desired_replicas: u32,
    /// Endpoints that are asked.
    pub(crate) in_service: usize,
    /// Requests being answered.
    pub(crate) in_flight: u64,
    /// Requests that the endpoints in service take from this proxy.
    pub(crate) capacity: u64,
    /// Requests that wait.
    pub(crate) queue_depth: usize,
    /// Requests that have waited so far.
    pub(crate) queue_waits: u64,
    /// How long in all.
    pub(crate) queue_wait_seconds: f64,
    /// Tokens that endpoints generate a second, of late.
    pub(crate) output_tokens_per_second: f64,
}
