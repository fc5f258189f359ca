//! Sums up outcomes as they come: histograms and counters, whose size does not depend on how many there are.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::cache_status::Served;
use super::drive::{Done, Undone};
use super::objective::Objective;
use super::outcome::{Answered, Failure, Finish, Outcome};

/// Longest time that is told apart from longer ones.
const TIME_MAX: Duration = Duration::from_hours(24);
/// Different names of failures and reasons that are counted apart.
const NAMES_MAX: usize = 64;

/// Times, in microseconds, to three digits.
#[derive(Debug)]
pub(crate) struct Times(pub(super) Histogram<u64>);

/// Counts of one kind of answer.
#[derive(Debug, Default)]
pub(crate) struct Class {
    pub(super) ttft: Times,
    pub(super) e2e: Times,
}

/// A failure's name: how often, and what the first one said.
#[derive(Debug, Default)]
pub(crate) struct Failed {
    pub(super) count: u64,
    pub(super) first: String,
}

/// Tokens as the servers counted them.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    pub(super) input: u64,
    pub(super) input_cached: u64,
    pub(super) output: u64,
    pub(super) output_generated: u64,
    /// Answers whose tokens were counted by their chunks, since the server did not count them.
    pub(super) by_chunks: u64,
}

/// Everything that is known of a measurement.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(super) from: Instant,
    pub(super) last_end: Instant,
    objective: Option<Objective>,
    pub(super) warm_up: u64,
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) unsent: u64,
    pub(super) unfinished: u64,
    pub(super) met: u64,
    pub(super) all: Class,
    pub(super) from_sending: Class,
    /// Answers that were stored.
    pub(super) cached: Class,
    /// Answers that others had generated just then: they wait as long as those.
    pub(super) joined: Class,
    pub(super) generated: Class,
    pub(super) gaps: Times,
    pub(super) late: Times,
    /// Tokens a second of generated answers, in thousandths.
    pub(super) speed: Times,
    /// Time for each token of generated answers.
    pub(super) per_token: Times,
    pub(super) tokens: Tokens,
    pub(super) served: BTreeMap<Served, u64>,
    pub(super) bypasses: BTreeMap<String, u64>,
    pub(super) finishes: BTreeMap<Finish, u64>,
    pub(super) failures: BTreeMap<String, Failed>,
}

impl Tally {
    /// Counts requests that are due from `from` on.
    pub(crate) fn new(from: Instant, objective: Option<Objective>) -> Self {
        Self {
            from,
            last_end: from,
            objective,
            warm_up: 0,
            answered: 0,
            failed: 0,
            unsent: 0,
            unfinished: 0,
            met: 0,
            all: Class::default(),
            from_sending: Class::default(),
            cached: Class::default(),
            joined: Class::default(),
            generated: Class::default(),
            gaps: Times::default(),
            late: Times::default(),
            speed: Times::default(),
            per_token: Times::default(),
            tokens: Tokens::default(),
            served: BTreeMap::new(),
            bypasses: BTreeMap::new(),
            finishes: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    /// Counts one request.
    pub(crate) fn add(&mut self, done: &Done) {
        if done.due < self.from {
            self.warm_up += 1;
            return;
        }
        let outcome = &done.outcome;
        self.last_end = self.last_end.max(outcome.ended);
        self.late.add(outcome.sent.duration_since(done.due));
        *self.served.entry(outcome.cache.served).or_default() += 1;
        if let Some(reason) = &outcome.cache.bypass {
            *named(&mut self.bypasses, reason) += 1;
        }
        match &outcome.result {
            Ok(answered) => self.add_answer(done.due, outcome, answered),
            Err(failure) => self.add_failure(failure),
        }
    }

    /// Counts requests that were never sent, or not answered when everything ended.
    pub(crate) fn add_undone(&mut self, undone: &Undone) {
        self.unsent += undone.unsent;
        self.unfinished += undone.unfinished;
    }

    /// Requests that should have been answered.
    pub(crate) fn due(&self) -> u64 {
        self.answered + self.failed + self.unfinished + self.unsent
    }

    fn add_answer(&mut self, due: Instant, outcome: &Outcome, answered: &Answered) {
        self.answered += 1;
        let since = |from: Instant| {
            let ttft = outcome.first_text.map(|first| first.duration_since(from));
            (ttft, outcome.ended.duration_since(from))
        };
        let (ttft, e2e) = since(due);
        if self.objective.is_some_and(|objective| objective.is_met(answered, ttft, e2e)) {
            self.met += 1;
        }
        self.all.add(ttft, e2e);
        let (ttft, e2e) = since(outcome.sent);
        self.from_sending.add(ttft, e2e);
        let is_cached = outcome.is_from_cache();
        let class = match outcome.cache.served {
            Served::Collapsed => &mut self.joined,
            _ if is_cached => &mut self.cached,
            _ => &mut self.generated,
        };
        class.add(ttft, e2e);
        answered.gaps.iter().for_each(|gap| self.gaps.add(*gap));
        *self.finishes.entry(answered.finish).or_default() += 1;
        let output = self.tokens.add(answered, is_cached);
        if !is_cached && output > 0 {
            let thousandths = u128::from(output) * 1_000_000_000 / e2e.as_micros().max(1);
            self.speed.0.saturating_record(u64::try_from(thousandths).unwrap_or(u64::MAX));
            self.per_token.add(e2e / u32::try_from(output).unwrap_or(u32::MAX));
        }
    }

    fn add_failure(&mut self, failure: &Failure) {
        self.failed += 1;
        let failed = named(&mut self.failures, &failure.kind());
        failed.count += 1;
        if failed.count == 1 {
            failed.first = failure.to_string();
        }
    }
}

/// The entry of a name that may come from a server: only so many are told apart.
fn named<'m, T: Default>(counts: &'m mut BTreeMap<String, T>, name: &str) -> &'m mut T {
    let name = if counts.len() < NAMES_MAX || counts.contains_key(name) { name } else { "others" };
    counts.entry(name.to_owned()).or_default()
}

impl Tokens {
    /// Adds an answer's; how many it had.
    fn add(&mut self, answered: &Answered, is_cached: bool) -> u64 {
        let output = answered.usage.output_tokens.unwrap_or(answered.chunks);
        self.by_chunks += u64::from(answered.usage.output_tokens.is_none());
        self.output += output;
        self.input += answered.usage.input_tokens.unwrap_or_default();
        if !is_cached {
            self.output_generated += output;
            self.input_cached += answered.usage.cached_tokens.unwrap_or_default();
        }
        output
    }
}

impl Class {
    fn add(&mut self, ttft: Option<Duration>, e2e: Duration) {
        if let Some(ttft) = ttft {
            self.ttft.add(ttft);
        }
        self.e2e.add(e2e);
    }
}

impl Default for Times {
    fn default() -> Self {
        let max = u64::try_from(TIME_MAX.as_micros()).unwrap_or(u64::MAX);
        match Histogram::new_with_bounds(1, max, 3) {
            Ok(histogram) => Self(histogram),
            Err(error) => unreachable!("the bounds are constant: {error}"),
        }
    }
}

impl Times {
    fn add(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}
