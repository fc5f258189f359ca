//! What servers cost, and what that is compared with.

use std::collections::BTreeMap;

use crate::EndpointId;

/// US dollars, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MicroDollars(pub u64);

impl MicroDollars {
    /// As a number of dollars.
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// The nearest to a number of dollars; what is negative or no number is nothing.
    pub fn of_dollars(dollars: f64) -> Self {
        // Beyond `u64` it stays at the largest.
        Self((dollars * 1e6).round() as u64)
    }
}

/// What the whole is compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// An hour of what the cache runs on: its part of this machine, and of Redis.
    pub cache_per_hour: Option<MicroDollars>,
    /// What somebody else asks for the same tokens.
    pub reference: Option<TokenPrices>,
    /// What all pools together may cost a day.
    pub budget_per_day: Option<MicroDollars>,
}

/// Prices of a million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenPrices {
    /// Of prompts.
    pub input: MicroDollars,
    /// Of answers.
    pub output: MicroDollars,
}

/// What a pool's endpoints cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolCost {
    /// An hour of an endpoint of which nothing else is known.
    pub per_hour: Option<MicroDollars>,
    /// An hour of those that config lists with a price.
    pub of_endpoint: BTreeMap<EndpointId, MicroDollars>,
    /// Whether the number of endpoints follows the load. If not, less work makes nothing cheaper.
    pub is_elastic: bool,
}

impl PoolCost {
    /// An hour of an endpoint, as far as config says.
    pub fn of(&self, endpoint: &EndpointId) -> Option<MicroDollars> {
        self.of_endpoint.get(endpoint).copied().or(self.per_hour)
    }
}
