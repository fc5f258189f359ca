//! How much callers may ask for.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{KeyId, LimitId, TenantId};

/// A limit on what each of its subjects may ask for: `[limit.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Its name in config.
    pub id: LimitId,
    /// What makes a subject; at least one, each once, in the order of the enum.
    pub by: Vec<LimitBy>,
    /// What a subject may ask for.
    pub quota: Quota,
    /// How much of a minute's limits may be taken at once, as time at their rate; [`Rate::burst`] says it in numbers.
    pub burst: Duration,
    /// What these keys may ask for instead.
    pub keys: BTreeMap<KeyId, Quota>,
    /// What these tenants may ask for instead, unless their key says otherwise.
    pub tenants: BTreeMap<TenantId, Quota>,
    /// What an answer from the cache counts as.
    pub hits: HitCost,
    /// Where it is counted.
    pub place: LimitPlace,
    /// Subjects that are counted apart at one time; whoever comes beyond is counted with all others that do.
    pub subjects_max: usize,
}

/// What a limit tells subjects apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitBy {
    /// The tenant.
    Tenant,
    /// The API key; without one, the user.
    Key,
    /// The verified user; without one, the API key.
    User,
    /// The route.
    Route,
}

/// What a subject may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// In the order of [`Rate::slot`], each slot once.
    pub rates: Vec<Rate>,
    /// Requests at one time, from when they are let in until their answer has ended.
    pub concurrency: Option<u32>,
}

/// So much in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Of what.
    pub measure: Measure,
    /// In which time.
    pub window: Window,
    /// How much; at least 1.
    pub limit: u64,
    /// What may be taken at once after a time without requests; at least 1. Of a day, the limit.
    pub burst: u64,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Requests.
    Requests,
    /// Tokens of prompts.
    InputTokens,
    /// Tokens of answers.
    OutputTokens,
}

/// How what was taken comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Window {
    /// Steadily, at the limit's rate: in any time of `t` minutes at most `burst + t * limit` are taken.
    Minute,
    /// At midnight UTC, all that was within the limit; what was taken beyond it counts against the next day.
    Day,
}

/// What an answer from the cache, or one that was being generated for somebody else, counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HitCost {
    /// A request.
    #[default]
    Request,
    /// A request and its tokens, as if it had been generated.
    Tokens,
}

/// Where a limit is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitPlace {
    /// In this process: each proxy lets so much through.
    Process,
    /// In the store that proxies share: all of them together do.
    Shared {
        /// The longest that a request waits for it.
        timeout: Duration,
        /// What happens where it can't be asked.
        on_error: OnLimitError,
    },
}

/// What happens to requests while a shared limit can't be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnLimitError {
    /// Each proxy counts for itself.
    #[default]
    Local,
    /// They pass uncounted.
    Allow,
    /// They are refused.
    Refuse,
}

/// Whose requests go first where model servers are at their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// After all others.
    Low,
    /// In between.
    #[default]
    Normal,
    /// Before all others.
    High,
}

impl RateLimit {
    /// Subjects counted apart, if config doesn't say.
    pub const SUBJECTS_MAX: usize = 65_536;
    /// Wait for the shared store, if config doesn't say.
    pub const TIMEOUT: Duration = Duration::from_millis(50);
    /// What may be taken at once, as time at the limit's rate, if config doesn't say.
    pub const BURST: Duration = Duration::from_secs(60);
}

impl Rate {
    /// Number of slots.
    pub const SLOTS: usize = 6;

    /// Its place among all that a subject may be counted by: never changes, counters are kept by it.
    pub fn slot(&self) -> usize {
        self.measure as usize * 2 + self.window as usize
    }
}

impl Priority {
    /// All of them, the first to be served last.
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// The word in config, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}
