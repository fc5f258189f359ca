//! What `GET /cost` answers. Dollars are US dollars; a GPU second is a second of an endpoint, however many GPUs it has.

use serde::{Deserialize, Serialize};

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CostReport {
    /// How long this proxy has been counting.
    pub(crate) seconds: f64,
    /// By pool.
    pub(crate) pools: Vec<PoolCostReport>,
    /// By route.
    pub(crate) routes: Vec<CostLine>,
    /// By tenant, the dearest first.
    pub(crate) tenants: Vec<CostLine>,
    /// What the cache is worth.
    pub(crate) cache: CacheReport,
    /// The whole against somebody else's prices; none without `cost.reference`, or without the price of a server.
    pub(crate) reference: Option<ReferenceReport>,
}

/// What a pool's endpoints cost, busy or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PoolCostReport {
    pub(crate) pool: String,
    /// Now.
    pub(crate) endpoints: usize,
    /// Of them, those whose price is not known.
    pub(crate) unpriced_endpoints: usize,
    /// What they cost an hour now.
    pub(crate) dollars_per_hour: f64,
    /// What they cost since the start: this proxy's part.
    pub(crate) bill_dollars: f64,
    /// What of it they were busy for.
    pub(crate) busy_dollars: f64,
    pub(crate) endpoint_seconds: f64,
    pub(crate) busy_gpu_seconds: f64,
    /// Part of the time that they were busy.
    pub(crate) busy_share: Option<f64>,
    /// Requests that shared an endpoint, on average over the time that any had it.
    pub(crate) concurrency: Option<f64>,
    /// Whether their number follows the load: then spared work is saved money.
    pub(crate) elastic: bool,
}

/// What one route or tenant costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CostLine {
    pub(crate) name: String,
    /// Requests that were sent upstream, each try counted.
    pub(crate) requests: u64,
    /// Requests that were answered from the store.
    pub(crate) hits: u64,
    /// Its share of the endpoints' time.
    pub(crate) gpu_seconds: f64,
    /// What that share costs.
    pub(crate) busy_dollars: f64,
    /// The same with its share of what the endpoints cost while they idled.
    pub(crate) all_in_dollars: f64,
    /// Of prompts that were sent upstream, as far as servers told.
    pub(crate) input_tokens: u64,
    /// Generated.
    pub(crate) output_tokens: u64,
    /// `all_in_dollars` by a million of both.
    pub(crate) dollars_per_million_tokens: Option<f64>,
    /// What stored answers spared.
    pub(crate) freed_gpu_seconds: f64,
    pub(crate) freed_dollars: f64,
}

/// What the cache is worth.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CacheReport {
    /// Answers from the store.
    pub(crate) hits: u64,
    /// Answers that it might have had.
    pub(crate) misses: u64,
    /// What the hits' generations would have taken of endpoints.
    pub(crate) avoided_gpu_seconds: f64,
    /// What fresh answers in place of stale ones took.
    pub(crate) refresh_gpu_seconds: f64,
    /// What fresh answers took that answers served were compared with.
    pub(crate) audit_gpu_seconds: f64,
    /// The first less the others.
    pub(crate) net_gpu_seconds: f64,
    /// What that is worth at the endpoints' prices.
    pub(crate) net_dollars: f64,
    /// The part of it at pools whose endpoints stay the same: freed for other work, on the same bill.
    pub(crate) freed_dollars: f64,
    /// The part at pools that follow the load: saved.
    pub(crate) saved_dollars: f64,
    /// What everything would have cost that the cache might answer: misses, and hits had they been misses.
    pub(crate) avoidable_dollars: f64,
    /// What the cache itself cost; none without `cost.cache_per_hour`.
    pub(crate) cost_dollars: Option<f64>,
    /// h: the part of `avoidable_dollars` that was avoided.
    pub(crate) hit_ratio_by_cost: Option<f64>,
    /// h*: the same at which the cache is worth what it costs.
    pub(crate) break_even_hit_ratio: Option<f64>,
    /// h / h* - 1.
    pub(crate) return_on_investment: Option<f64>,
}

/// What the same tokens cost elsewhere, less what they cost here. Negative: here it is dearer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReferenceReport {
    /// All tokens at those prices, generated and stored.
    pub(crate) dollars: f64,
    /// What the endpoints and the cache cost here.
    pub(crate) own_dollars: f64,
    /// Of the difference, what lies in the price of generating.
    pub(crate) price_difference_dollars: f64,
    /// And what in not generating.
    pub(crate) caching_dollars: f64,
}
