//! Limits on what callers may ask for.

use refrain_core::settings::{
    HitCost, LimitBy, LimitPlace, Measure, OnLimitError, Quota, Rate, RateLimit, Window,
};
use serde_json::{Value, json};

use super::named;
use crate::text::format_span;

pub(super) fn limit(limit: &RateLimit) -> Value {
    let RateLimit { id: _, by, quota, burst, keys, tenants, hits, place, subjects_max } = limit;
    let mut table = numbers(quota);
    table["by"] = by.iter().map(|by| self::by(*by)).collect();
    table["keys"] = named(keys.iter().map(|(key, quota)| (key.as_str(), numbers(quota))));
    table["tenants"] = named(tenants.iter().map(|(tenant, quota)| (tenant.as_str(), numbers(quota))));
    table["hits"] = match hits {
        HitCost::Request => "requests".into(),
        HitCost::Tokens => "tokens".into(),
    };
    table["subjects"] = json!(subjects_max);
    table["shared"] = json!(matches!(place, LimitPlace::Shared { .. }));
    table["burst"] = json!(format_span(*burst));
    if let LimitPlace::Shared { timeout, on_error } = place {
        table["timeout"] = json!(format_span(*timeout));
        table["on_error"] = match on_error {
            OnLimitError::Local => "local".into(),
            OnLimitError::Allow => "allow".into(),
            OnLimitError::Refuse => "refuse".into(),
        };
    }
    table
}

fn by(by: LimitBy) -> &'static str {
    match by {
        LimitBy::Tenant => "tenant",
        LimitBy::Key => "key",
        LimitBy::User => "user",
        LimitBy::Route => "route",
    }
}

fn numbers(quota: &Quota) -> Value {
    let Quota { rates, concurrency } = quota;
    let mut table = json!({});
    for rate in rates {
        table[key(rate)] = json!(rate.limit);
    }
    if let Some(concurrency) = concurrency {
        table["concurrency"] = json!(concurrency);
    }
    table
}

fn key(rate: &Rate) -> &'static str {
    match (rate.measure, rate.window) {
        (Measure::Requests, Window::Minute) => "requests_per_minute",
        (Measure::Requests, Window::Day) => "requests_per_day",
        (Measure::InputTokens, Window::Minute) => "input_tokens_per_minute",
        (Measure::InputTokens, Window::Day) => "input_tokens_per_day",
        (Measure::OutputTokens, Window::Minute) => "output_tokens_per_minute",
        (Measure::OutputTokens, Window::Day) => "output_tokens_per_day",
    }
}
