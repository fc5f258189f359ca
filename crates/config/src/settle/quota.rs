//! Limits on what callers may ask for, and whose requests go first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use refrain_core::settings::{
    ApiKey, HitCost, LimitBy, LimitPlace, Measure, OnLimitError, Priority, Quota, Rate, RateLimit, Store,
    Window,
};
use refrain_core::{KeyId, LimitId, TenantId};

use super::Context;
use crate::raw::{self, LimitNumbers};
use crate::text::format_span;

const MINUTE: Duration = Duration::from_secs(60);
/// Longest burst: more is a limit a day.
const BURST_MAX: Duration = Duration::from_secs(3600);

pub(super) fn settle(
    context: &mut Context<'_>,
    raw: BTreeMap<String, raw::Limit>,
    store: &Store,
    keys: &[ApiKey],
) -> BTreeMap<LimitId, Arc<RateLimit>> {
    let mut limits = BTreeMap::new();
    for (name, raw) in raw {
        check_keys(context, &name, &raw, keys);
        if let Some(limit) = limit(context, &name, &raw, store) {
            limits.insert(limit.id.clone(), Arc::new(limit));
        }
    }
    limits
}

/// None if a required part is missing or wrong, which is known already.
fn limit(context: &mut Context<'_>, name: &str, raw: &raw::Limit, store: &Store) -> Option<RateLimit> {
    let burst = burst(context, name, raw);
    let own = raw.numbers();
    let quota = quota(own, burst);
    let others = raw.keys.values().chain(raw.tenants.values());
    if quota == Quota::default() && others.clone().next().is_none() {
        context.refuse(&["limit", name], "limits nothing: set requests_per_minute or another number", None);
    }
    let instead = |numbers: &LimitNumbers| self::quota(numbers.or(own), burst);
    let keys = raw.keys.iter().map(|(key, numbers)| (KeyId::new(key.as_str()), instead(numbers)));
    let tenants =
        raw.tenants.iter().map(|(tenant, numbers)| (TenantId::new(tenant.as_str()), instead(numbers)));
    Some(RateLimit {
        id: LimitId::new(name),
        by: by(context, name, raw.by.as_deref()?),
        quota,
        burst,
        keys: keys.collect(),
        tenants: tenants.collect(),
        hits: match raw.hits {
            Some(raw::HitCost::Tokens) => HitCost::Tokens,
            Some(raw::HitCost::Requests) | None => HitCost::Request,
        },
        place: place(context, name, raw, store),
        subjects_max: raw.subjects.map_or(RateLimit::SUBJECTS_MAX, |number| number as usize),
    })
}

/// Keys with numbers of their own are there. Those of a file of keys come and go by themselves: a revocation must not fail for
/// what is left of the key here.
fn check_keys(context: &mut Context<'_>, name: &str, raw: &raw::Limit, keys: &[ApiKey]) {
    let mut known = context.names("key");
    known.extend(
        keys.iter().map(|key| key.id.as_str()).filter(|key| !known.contains(key)).collect::<Vec<_>>(),
    );
    for key in raw.keys.keys().filter(|key| !known.contains(&key.as_str())) {
        let path = ["limit", name, "keys", key];
        if context.has_keys_file() {
            context.warn(&path, format!("there is no key {key:?}, here or in keys_file: it has no effect"));
        } else {
            context.refuse_unknown(&path, "key", key, &known);
        }
    }
}

/// Each once, in the order of the enum.
fn by(context: &mut Context<'_>, name: &str, raw: &[raw::LimitBy]) -> Vec<LimitBy> {
    let mut by: Vec<LimitBy> = raw
        .iter()
        .map(|by| match by {
            raw::LimitBy::Tenant => LimitBy::Tenant,
            raw::LimitBy::Key => LimitBy::Key,
            raw::LimitBy::User => LimitBy::User,
            raw::LimitBy::Route => LimitBy::Route,
        })
        .collect();
    by.sort_unstable();
    by.dedup();
    if by.is_empty() {
        context.refuse(&["limit", name, "by"], "name at least one: tenant, key, user or route", None);
    }
    by
}

fn burst(context: &mut Context<'_>, name: &str, raw: &raw::Limit) -> Duration {
    let burst = raw.burst.as_ref().map_or(RateLimit::BURST, |span| span.0);
    if burst > BURST_MAX {
        context.refuse(&["limit", name, "burst"], "must be at most an hour; set a limit a day instead", None);
    }
    burst
}

fn quota(numbers: LimitNumbers, burst: Duration) -> Quota {
    let LimitNumbers {
        requests_per_minute,
        requests_per_day,
        input_tokens_per_minute,
        input_tokens_per_day,
        output_tokens_per_minute,
        output_tokens_per_day,
        concurrency,
    } = numbers;
    let rates = [
        (Measure::Requests, requests_per_minute, requests_per_day),
        (Measure::InputTokens, input_tokens_per_minute, input_tokens_per_day),
        (Measure::OutputTokens, output_tokens_per_minute, output_tokens_per_day),
    ];
    let rates = rates.into_iter().flat_map(|(measure, minute, day)| {
        let minute =
            minute.map(|limit| Rate { measure, window: Window::Minute, limit, burst: share(limit, burst) });
        let day = day.map(|limit| Rate { measure, window: Window::Day, limit, burst: limit });
        [minute, day].into_iter().flatten()
    });
    Quota { rates: rates.collect(), concurrency }
}

/// What comes in this time at so much a minute.
fn share(limit: u64, time: Duration) -> u64 {
    let share = u128::from(limit) * time.as_millis() / MINUTE.as_millis();
    u64::try_from(share).unwrap_or(u64::MAX).max(1)
}

fn place(context: &mut Context<'_>, name: &str, raw: &raw::Limit, store: &Store) -> LimitPlace {
    let redis = match store {
        Store::Redis(redis) => Some(redis),
        Store::Off | Store::Embedded(_) => None,
    };
    let shared = raw.shared.unwrap_or(redis.is_some());
    let (Some(redis), true) = (redis, shared) else {
        if shared && !context.is_wrong(&["store"]) {
            let message = "needs store.kind = \"redis\": without it there is nothing that proxies share";
            context.refuse(&["limit", name, "shared"], message, None);
        }
        return LimitPlace::Process;
    };
    let timeout = raw.timeout.as_ref().map_or(RateLimit::TIMEOUT.min(redis.command_timeout), |span| span.0);
    if timeout > redis.command_timeout {
        let message =
            format!("must be at most store.redis.timeout, {:?}", format_span(redis.command_timeout));
        context.refuse(&["limit", name, "timeout"], message, None);
    }
    let on_error = match raw.on_error {
        Some(raw::OnLimitError::Local) | None => OnLimitError::Local,
        Some(raw::OnLimitError::Allow) => OnLimitError::Allow,
        Some(raw::OnLimitError::Refuse) => OnLimitError::Refuse,
    };
    LimitPlace::Shared { timeout, on_error }
}

/// The limits that a route names.
pub(super) fn on_route(context: &mut Context<'_>, route: &str, raw: Vec<String>) -> Vec<LimitId> {
    let known = context.names("limit");
    for (index, limit) in raw.iter().enumerate() {
        if !known.contains(&limit.as_str()) {
            context.refuse_unknown(&["route", route, "limits", &index.to_string()], "limit", limit, &known);
        }
    }
    let mut limits: Vec<LimitId> = Vec::with_capacity(raw.len());
    for limit in raw.into_iter().map(LimitId::new) {
        if !limits.contains(&limit) {
            limits.push(limit);
        }
    }
    limits
}

pub(super) fn warn_of_idle<'a>(context: &mut Context<'_>, used: impl Iterator<Item = &'a LimitId> + Clone) {
    for limit in context.names("limit") {
        if !used.clone().any(|id| id.as_str() == limit) {
            context.warn(&["limit", limit], "no route names it in its limits: it limits nothing");
        }
    }
}

impl From<raw::Priority> for Priority {
    fn from(raw: raw::Priority) -> Self {
        match raw {
            raw::Priority::High => Self::High,
            raw::Priority::Normal => Self::Normal,
            raw::Priority::Low => Self::Low,
        }
    }
}
