//! `[cost]`.

use schemars::JsonSchema;
use serde::Deserialize;

/// What the whole costs, for `refrain cost`. What servers cost is said by their pools.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cost {
    /// US dollars an hour of what the cache runs on: its part of this machine, and of Redis. Default: not known.
    #[schemars(range(min = 0.0, max = 1_000_000.0))]
    pub(crate) cache_per_hour: Option<f64>,
    /// What somebody else asks for a million tokens, to compare with. Default: nothing.
    pub(crate) reference: Option<TokenPrices>,
    /// What all pools together may cost a day, in US dollars: for an alert. Nothing is switched off. Default: no budget.
    #[schemars(range(min = 0.0, max = 100_000_000.0))]
    pub(crate) budget_per_day: Option<f64>,
}

/// Prices of a million tokens, in US dollars.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenPrices {
    /// Of prompts.
    #[schemars(required, range(min = 0.0, max = 1_000_000.0))]
    pub(crate) input: Option<f64>,
    /// Of answers.
    #[schemars(required, range(min = 0.0, max = 1_000_000.0))]
    pub(crate) output: Option<f64>,
}
