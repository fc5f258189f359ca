//! One limit as the path uses it: what config says, as numbers, and the counts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use metrics::{Counter, counter};
use refrain_core::settings::{Measure, Quota, Rate, RateLimit, Window};
use refrain_core::{KeyId, LimitId, TenantId};

use super::meter::Pace;
use super::table::Table;

/// A limit.
#[derive(Debug)]
pub(crate) struct LimitState {
    pub(crate) config: Arc<RateLimit>,
    pub(crate) table: Arc<Table>,
    own: Arc<Terms>,
    keys: BTreeMap<KeyId, Arc<Terms>>,
    tenants: BTreeMap<TenantId, Arc<Terms>>,
    counts_tokens: bool,
    results: [Counter; LimitResult::ALL.len()],
}

/// What a subject may ask for, as numbers and as headers say it.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) rates: Vec<Term>,
    pub(crate) concurrency: Option<u32>,
    /// Items of `RateLimit-Policy`.
    pub(crate) policy: String,
}

/// One rate.
#[derive(Debug)]
pub(crate) struct Term {
    pub(crate) rate: Rate,
    pub(crate) pace: Pace,
    /// Its name in headers.
    pub(crate) name: String,
}

/// What a limit said of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitResult {
    Admitted,
    /// Refused for want of requests, tokens, or room.
    Requests,
    InputTokens,
    OutputTokens,
    Concurrency,
    /// Refused for ever.
    TooLarge,
    /// A shared count could not be asked.
    Unavailable,
}

impl LimitResult {
    const ALL: [Self; 7] = [
        Self::Admitted,
        Self::Requests,
        Self::InputTokens,
        Self::OutputTokens,
        Self::Concurrency,
        Self::TooLarge,
        Self::Unavailable,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Requests => "requests",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Concurrency => "concurrency",
            Self::TooLarge => "too_large",
            Self::Unavailable => "unavailable",
        }
    }

    /// The refusal for want of something.
    pub(crate) fn of(measure: Measure) -> Self {
        match measure {
            Measure::Requests => Self::Requests,
            Measure::InputTokens => Self::InputTokens,
            Measure::OutputTokens => Self::OutputTokens,
        }
    }
}

/// A limit's numbers of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitStats {
    /// Which limit.
    pub limit: LimitId,
    /// Subjects with a count of their own in this process.
    pub subjects: usize,
    /// Requests so far that were counted with those of others for want of room.
    pub crowded: u64,
}

impl LimitState {
    /// The limits of a configuration. One that goes on under its name keeps its counts, unless it tells subjects apart by
    /// something else now.
    pub(crate) fn all(
        limits: &BTreeMap<LimitId, Arc<RateLimit>>,
        former: &HashMap<LimitId, Arc<Self>>,
    ) -> HashMap<LimitId, Arc<Self>> {
        let state = |config: &Arc<RateLimit>| {
            let kept = former.get(&config.id).filter(|former| former.config.by == config.by);
            let table = match kept {
                Some(former) => former.table.clone(),
                None => Arc::new(Table::new(config.subjects_max)),
            };
            table.resize(config.subjects_max);
            Arc::new(Self::new(config, table))
        };
        limits.iter().map(|(id, config)| (id.clone(), state(config))).collect()
    }

    fn new(config: &Arc<RateLimit>, table: Arc<Table>) -> Self {
        let terms = |quota| Arc::new(Terms::of(&config.id, quota));
        let limit = config.id.as_str();
        let result = |result: LimitResult| counter!("refrain_limit_requests_total", "limit" => limit.to_owned(), "result" => result.as_str());
        let own = terms(&config.quota);
        let keys: BTreeMap<_, _> =
            config.keys.iter().map(|(key, quota)| (key.clone(), terms(quota))).collect();
        let tenants: BTreeMap<_, _> =
            config.tenants.iter().map(|(tenant, quota)| (tenant.clone(), terms(quota))).collect();
        let counts = |terms: &Arc<Terms>| terms.counts_tokens();
        let counts_tokens = counts(&own) || keys.values().any(counts) || tenants.values().any(counts);
        Self {
            counts_tokens,
            own,
            keys,
            tenants,
            results: LimitResult::ALL.map(result),
            config: config.clone(),
            table,
        }
    }

    /// What holds for this key, if there is one, of this tenant.
    pub(crate) fn terms(&self, key: Option<&KeyId>, tenant: &TenantId) -> &Arc<Terms> {
        let by_key = key.and_then(|key| self.keys.get(key));
        by_key.or_else(|| self.tenants.get(tenant)).unwrap_or(&self.own)
    }

    /// Whether tokens are counted, of anybody.
    pub(crate) fn counts_tokens(&self) -> bool {
        self.counts_tokens
    }

    /// Counts what became of a request.
    pub(crate) fn count(&self, result: LimitResult) {
        self.results[result as usize].increment(1);
    }

    /// Its numbers of now.
    pub(crate) fn stats(&self) -> LimitStats {
        let (subjects, crowded) = (self.table.len(), self.table.crowded());
        LimitStats { limit: self.config.id.clone(), subjects, crowded }
    }
}

impl Terms {
    fn of(limit: &LimitId, quota: &Quota) -> Self {
        let term = |rate: &Rate| Term {
            rate: *rate,
            pace: Pace::of(rate),
            name: format!("{limit}-{}", suffix(rate)),
        };
        let rates: Vec<Term> = quota.rates.iter().map(term).collect();
        let mut items: Vec<String> = rates.iter().map(policy).collect();
        items.extend(
            quota
                .concurrency
                .map(|max| format!("\"{limit}-concurrency\";q={max};qu=\"concurrent-requests\"")),
        );
        Self { rates, concurrency: quota.concurrency, policy: items.join(", ") }
    }

    /// Whether what a request asks and is answered counts.
    pub(crate) fn counts_tokens(&self) -> bool {
        self.rates.iter().any(|term| term.rate.measure != Measure::Requests)
    }
}

/// As the field abbreviates them.
fn suffix(rate: &Rate) -> &'static str {
    match (rate.measure, rate.window) {
        (Measure::Requests, Window::Minute) => "rpm",
        (Measure::Requests, Window::Day) => "rpd",
        (Measure::InputTokens, Window::Minute) => "itpm",
        (Measure::InputTokens, Window::Day) => "itpd",
        (Measure::OutputTokens, Window::Minute) => "otpm",
        (Measure::OutputTokens, Window::Day) => "otpd",
    }
}

/// An item of `RateLimit-Policy`.
fn policy(term: &Term) -> String {
    let Term { rate, name, .. } = term;
    let unit = match rate.measure {
        Measure::Requests => "",
        Measure::InputTokens => ";qu=\"input-tokens\"",
        Measure::OutputTokens => ";qu=\"output-tokens\"",
    };
    let window_s = match rate.window {
        Window::Minute => 60,
        Window::Day => 24 * 60 * 60,
    };
    format!("\"{name}\";q={}{unit};w={window_s}", rate.limit)
}
