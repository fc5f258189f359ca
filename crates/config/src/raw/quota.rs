//! `[limit.NAME]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::text::TimeSpan;

/// How much each of its subjects may ask for, on routes that name it in `limits`. Minutes refill steadily, days at midnight
/// UTC.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    /// What makes a subject. With several, each combination is one.
    #[schemars(required)]
    pub(crate) by: Option<Vec<LimitBy>>,
    /// Requests a minute. Default: any number.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(crate) requests_per_minute: Option<u64>,
    /// Requests a day. Default: any number.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub(crate) requests_per_day: Option<u64>,
    /// Tokens of prompts a minute: estimated at first, corrected by what the model server reports. Default: any number.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(crate) input_tokens_per_minute: Option<u64>,
    /// The same a day. Default: any number.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub(crate) input_tokens_per_day: Option<u64>,
    /// Tokens of answers a minute, counted when they end: who has taken more waits until that is worked off. Default: any
    /// number.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(crate) output_tokens_per_minute: Option<u64>,
    /// The same a day. Default: any number.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub(crate) output_tokens_per_day: Option<u64>,
    /// Requests at one time, until their answers have ended. Default: any number.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) concurrency: Option<u32>,
    /// How much of a minute's limits may be taken at once, as time at their rate, at most an hour. Default "1m": all of it.
    pub(crate) burst: Option<TimeSpan>,
    /// What an answer from the cache counts as. Default "requests".
    pub(crate) hits: Option<HitCost>,
    /// Count in Redis, for all proxies together. Needs store.kind = "redis". Default: whether the store is Redis.
    pub(crate) shared: Option<bool>,
    /// The longest that a request waits for Redis, at most store.redis.timeout. Default: "50ms".
    pub(crate) timeout: Option<TimeSpan>,
    /// What happens to requests while Redis can't be asked. Default: "local".
    pub(crate) on_error: Option<OnLimitError>,
    /// Subjects that are counted apart; those beyond share one count. Default 65536.
    #[schemars(range(min = 64, max = 10_000_000))]
    pub(crate) subjects: Option<u32>,
    /// Other numbers for these API keys.
    #[serde(default)]
    pub(crate) keys: BTreeMap<String, LimitNumbers>,
    /// Other numbers for these tenants.
    #[serde(default)]
    pub(crate) tenants: BTreeMap<String, LimitNumbers>,
}

/// Numbers in place of the limit's own; those that are absent stay.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitNumbers {
    /// Requests a minute.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(crate) requests_per_minute: Option<u64>,
    /// Requests a day.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub(crate) requests_per_day: Option<u64>,
    /// Tokens of prompts a minute.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(crate) input_tokens_per_minute: Option<u64>,
    /// Tokens of prompts a day.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub(crate) input_tokens_per_day: Option<u64>,
    /// Tokens of answers a minute.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(crate) output_tokens_per_minute: Option<u64>,
    /// Tokens of answers a day.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub(crate) output_tokens_per_day: Option<u64>,
    /// Requests at one time.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) concurrency: Option<u32>,
}

impl Limit {
    /// Its own numbers.
    pub(crate) fn numbers(&self) -> LimitNumbers {
        LimitNumbers {
            requests_per_minute: self.requests_per_minute,
            requests_per_day: self.requests_per_day,
            input_tokens_per_minute: self.input_tokens_per_minute,
            input_tokens_per_day: self.input_tokens_per_day,
            output_tokens_per_minute: self.output_tokens_per_minute,
            output_tokens_per_day: self.output_tokens_per_day,
            concurrency: self.concurrency,
        }
    }
}

impl LimitNumbers {
    /// These, and where one is absent the other's.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            requests_per_minute: self.requests_per_minute.or(other.requests_per_minute),
            requests_per_day: self.requests_per_day.or(other.requests_per_day),
            input_tokens_per_minute: self.input_tokens_per_minute.or(other.input_tokens_per_minute),
            input_tokens_per_day: self.input_tokens_per_day.or(other.input_tokens_per_day),
            output_tokens_per_minute: self.output_tokens_per_minute.or(other.output_tokens_per_minute),
            output_tokens_per_day: self.output_tokens_per_day.or(other.output_tokens_per_day),
            concurrency: self.concurrency.or(other.concurrency),
        }
    }
}

/// What a limit tells subjects apart by.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LimitBy {
    /// The tenant.
    Tenant,
    /// The API key; callers without one by their user.
    Key,
    /// The verified user; callers without one by their API key.
    User,
    /// The route.
    Route,
}

/// What an answer from the cache counts as.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HitCost {
    /// A request.
    Requests,
    /// A request and its tokens.
    Tokens,
}

/// What happens to requests while Redis can't be asked.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OnLimitError {
    /// Each proxy counts for itself.
    Local,
    /// They pass uncounted.
    Allow,
    /// They are refused (503).
    Refuse,
}

/// Whose requests go first where model servers are at their limits.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Priority {
    /// Before all others.
    High,
    /// In between.
    Normal,
    /// After all others.
    Low,
}
