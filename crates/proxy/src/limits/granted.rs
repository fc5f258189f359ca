//! What a request was let in with: counted until it is dropped, which is when its answer has ended or nobody wants it.

use std::sync::Arc;

use refrain_core::Usage;
use refrain_core::settings::{HitCost, Measure, Rate, Window};
use tokio::time::Instant;

use super::local::{self, Held, units};
use super::state::{LimitResult, LimitState, Term, Terms};
use super::subject::Subject;
use super::{Estimate, now_ms, shared};
use crate::metrics::Outcome;
use crate::tally::Spent;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A request's hold on all limits that let it in.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    holds: Vec<Hold>,
    cost: Cost,
}

/// What a request has cost.
#[derive(Clone, Copy, Debug, Default)]
enum Cost {
    /// Nothing: it was refused after all.
    Nothing,
    /// A request without an answer.
    #[default]
    Request,
    /// An answer that was generated for it. Tokens that the server didn't count are as estimated.
    Generated { input_tokens: Option<u64>, output_tokens: u64 },
    /// An answer that was there, or that another request has paid for.
    Hit(Usage),
}

/// A hold on one limit.
#[derive(Debug)]
pub(super) struct Hold {
    limit: Arc<LimitState>,
    terms: Arc<Terms>,
    subject: Subject,
    held: Held,
    estimate: Estimate,
    taken: Moment,
}

/// When something was taken.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// In Unix milliseconds of whoever counts.
    unix_ms: u64,
    at: Instant,
}

impl Moment {
    fn is_of_former_day(self) -> bool {
        let since = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.unix_ms / DAY_MS != self.unix_ms.saturating_add(since) / DAY_MS
    }
}

impl Granted {
    pub(super) fn add(&mut self, hold: Hold) {
        self.holds.push(hold);
    }

    /// It was refused: it counts for nothing.
    pub(super) fn take_back(&mut self) {
        self.cost = Cost::Nothing;
    }

    /// Whether what is asked and answered counts, so that somebody must find out.
    pub(crate) fn counts_tokens(&self) -> bool {
        self.holds.iter().any(|hold| hold.terms.counts_tokens())
    }

    /// Whether its prompt has more tokens, about, than some limit ever lets through at once.
    pub(super) fn is_over_limit(&self) -> bool {
        self.holds.iter().any(Hold::is_over_limit)
    }

    /// Its prompt never fits: it counts for nothing, and the limits that it never fits into count that.
    pub(super) fn refuse_for_ever(&mut self) {
        self.take_back();
        for hold in self.holds.iter().filter(|hold| hold.is_over_limit()) {
            hold.limit.count(LimitResult::TooLarge);
        }
    }

    /// Its answer has ended, in whichever way: this is what it has cost.
    pub(crate) fn settle(&mut self, spent: &Spent) {
        let is_answered = spent.status.is_none_or(|status| status.is_success());
        self.cost = match (self.cost, spent.outcome) {
            (Cost::Nothing, _) => Cost::Nothing,
            (_, Outcome::HitExact | Outcome::HitSemantic | Outcome::HitStale | Outcome::Collapsed) => {
                Cost::Hit(spent.usage)
            }
            // Who leaves before the answer may have had its prompt read.
            (_, Outcome::Miss | Outcome::Request | Outcome::Bypass | Outcome::Left) if is_answered => {
                let output_tokens = spent.usage.output_tokens.unwrap_or(spent.passed_tokens);
                Cost::Generated { input_tokens: spent.usage.input_tokens, output_tokens }
            }
            _ => Cost::Request,
        };
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        for hold in &self.holds {
            hold.end(self.cost);
        }
    }
}

impl Hold {
    pub(super) fn new(
        limit: Arc<LimitState>,
        terms: Arc<Terms>,
        subject: Subject,
        (held, unix_ms): (Held, u64),
        estimate: Estimate,
    ) -> Self {
        let taken = Moment { unix_ms, at: Instant::now() };
        Self { limit, terms, subject, held, estimate, taken }
    }

    fn is_over_limit(&self) -> bool {
        self.terms.is_over(self.estimate)
    }

    fn end(&self, cost: Cost) {
        let Self { limit, terms, subject, held, estimate, taken } = self;
        let refunds_request = matches!(cost, Cost::Nothing);
        // Most requests are counted once, and that's that.
        if terms.concurrency.is_none() && !terms.counts_tokens() && !refunds_request {
            return;
        }
        let is_of_former_day = taken.is_of_former_day();
        let more = |term: &Term| {
            let Rate { measure, window, .. } = term.rate;
            let taken = units(measure, term.pace.units_max(), *estimate);
            let used = used(cost, measure, limit.config.hits, estimate.input_tokens);
            let more = signed(used).saturating_sub(signed(taken));
            // Midnight has given back already what was taken before.
            if window == Window::Day && is_of_former_day { more.max(0) } else { more }
        };
        match held {
            Held::Here(count) => local::settle(limit, terms, (subject, *count), &more, now_ms()),
            Held::Shared(shared) => {
                let (quotas, hold) = &**shared;
                quotas.end(hold, shared::settled(terms, &more));
            }
            Held::Nowhere => {}
        }
    }
}

/// What a request has used in all.
fn used(cost: Cost, measure: Measure, hits: HitCost, estimated_input: u64) -> u64 {
    match (measure, cost) {
        (_, Cost::Nothing) => 0,
        (Measure::Requests, _) => 1,
        (_, Cost::Request) => 0,
        (_, Cost::Hit(_)) if hits == HitCost::Request => 0,
        (Measure::InputTokens, Cost::Hit(usage)) => usage.input_tokens.unwrap_or(estimated_input),
        (Measure::OutputTokens, Cost::Hit(usage)) => usage.output_tokens.unwrap_or_default(),
        (Measure::InputTokens, Cost::Generated { input_tokens, .. }) => {
            input_tokens.unwrap_or(estimated_input)
        }
        (Measure::OutputTokens, Cost::Generated { output_tokens, .. }) => output_tokens,
    }
}

fn signed(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}
