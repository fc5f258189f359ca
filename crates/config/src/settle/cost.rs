//! What the whole costs.

use refrain_core::settings::{Cost, MicroDollars, TokenPrices};

use crate::raw;

pub(super) fn settle(raw: &raw::Cost) -> Cost {
    let dollars = |value: Option<f64>| value.map(MicroDollars::of_dollars);
    Cost {
        cache_per_hour: dollars(raw.cache_per_hour),
        // None if one of them is missing, which is known already.
        reference: raw.reference.as_ref().and_then(|prices| {
            Some(TokenPrices { input: dollars(prices.input)?, output: dollars(prices.output)? })
        }),
        budget_per_day: dollars(raw.budget_per_day),
    }
}
