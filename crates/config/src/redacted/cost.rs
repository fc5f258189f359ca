//! What servers cost, and what that is compared with.

use refrain_core::settings::{Cost, PoolCost, TokenPrices};
use serde_json::{Map, Value, json};

pub(super) fn cost(cost: &Cost) -> Value {
    let Cost { cache_per_hour, reference, budget_per_day } = cost;
    let mut table = Map::new();
    if let Some(price) = cache_per_hour {
        table.insert("cache_per_hour".into(), json!(price.dollars()));
    }
    if let Some(TokenPrices { input, output }) = reference {
        table.insert("reference".into(), json!({ "input": input.dollars(), "output": output.dollars() }));
    }
    if let Some(budget) = budget_per_day {
        table.insert("budget_per_day".into(), json!(budget.dollars()));
    }
    Value::Object(table)
}

/// What a pool's table says of it.
pub(super) fn of_pool(cost: &PoolCost, pool: &mut Value) {
    let PoolCost { per_hour, of_endpoint, is_elastic } = cost;
    pool["elastic"] = json!(is_elastic);
    if let Some(price) = per_hour {
        pool["price_per_hour"] = json!(price.dollars());
    }
    for table in pool["endpoint"].as_array_mut().into_iter().flatten() {
        let priced = of_endpoint.iter().find(|(id, _)| table["name"] == id.as_str());
        if let Some((_, price)) = priced {
            table["price_per_hour"] = json!(price.dollars());
        }
    }
}
