//! Counters of the request path. Handles are made once a route, so that counting is one atomic addition.

use metrics::{Counter, Histogram, NoopRecorder, counter, histogram, with_local_recorder};
use refrain_cache::Refusal;
use refrain_core::{Bypass, Code, ExactOnly, RouteId, Skip, Usage};
use refrain_upstream::Timings;

use crate::answer_metrics::AnswerMetrics;
use crate::audit::Audited;
use crate::gaps::GapStats;
use crate::tally::Tally;

/// What became of a request, as the `outcome` label of `refrain_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered from an entry of the same question.
    HitExact,
    /// Answered from an entry of a question with the same meaning.
    HitSemantic,
    /// Answered from an entry past its time.
    HitStale,
    /// Joined another request's generation.
    Collapsed,
    /// Generated: nothing usable was stored.
    Miss,
    /// Generated though an entry existed: the request forbade it.
    Request,
    /// Passed through.
    Bypass,
    /// Answered with an error of Refrain's own.
    Error,
    /// Answered by Refrain without a cache or an upstream (preflight, `/`).
    Local,
    /// The client left before its answer began.
    Left,
}

impl Outcome {
    const ALL: [Self; 10] = [
        Self::HitExact,
        Self::HitSemantic,
        Self::HitStale,
        Self::Collapsed,
        Self::Miss,
        Self::Request,
        Self::Bypass,
        Self::Error,
        Self::Local,
        Self::Left,
    ];

    /// The label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::HitExact => "hit_exact",
            Self::HitSemantic => "hit_semantic",
            Self::HitStale => "hit_stale",
            Self::Collapsed => "collapsed",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Bypass => "bypass",
            Self::Error => "error",
            Self::Local => "local",
            Self::Left => "left",
        }
    }
}

/// One route's counters.
pub(crate) struct RouteMetrics {
    outcomes: Vec<Counter>,
    bypasses: Vec<Counter>,
    exact_only: Vec<Counter>,
    skips: Vec<Counter>,
    errors: Vec<Counter>,
    stored: Counter,
    refusals: Vec<Counter>,
    shadow: Counter,
    audits: Vec<Counter>,
    fallbacks: Counter,
    tokens_generated: Counter,
    tokens_saved: Counter,
    head_seconds: Histogram,
    first_byte_seconds: Histogram,
    wait_seconds: Histogram,
    connect_seconds: Histogram,
    answers: AnswerMetrics,
}

impl RouteMetrics {
    /// Of a request that nobody made: counts for nobody.
    pub(crate) fn mute(route: &RouteId) -> Self {
        with_local_recorder(&NoopRecorder, || Self::new(route, None))
    }

    /// Registers the counters of a route; all are visible at zero from then on. `former`: of the same route before a reload.
    pub(crate) fn new(route: &RouteId, former: Option<&Self>) -> Self {
        let answers = AnswerMetrics::new(route, former.map(|former| &former.answers));
        let route = route.as_str().to_owned();
        let by = |name: &'static str, label: &'static str, values: Vec<&'static str>| {
            let make = |value| counter!(name, "route" => route.clone(), label => value);
            values.into_iter().map(make).collect()
        };
        Self {
            outcomes: by(
                "refrain_requests_total",
                "outcome",
                Outcome::ALL.iter().map(|o| o.as_str()).collect(),
            ),
            bypasses: by(
                "refrain_cache_bypasses_total",
                "reason",
                Bypass::ALL.iter().map(|b| b.as_str()).collect(),
            ),
            exact_only: by(
                "refrain_cache_exact_only_total",
                "reason",
                ExactOnly::ALL.iter().map(|e| e.as_str()).collect(),
            ),
            skips: by("refrain_cache_skips_total", "reason", Skip::ALL.iter().map(|s| s.as_str()).collect()),
            errors: by("refrain_errors_total", "code", Code::ALL.iter().map(|c| c.as_str()).collect()),
            refusals: by(
                "refrain_semantic_refusals_total",
                "reason",
                Refusal::ALL.iter().map(|r| r.as_str()).collect(),
            ),
            audits: by(
                "refrain_semantic_audits_total",
                "result",
                Audited::ALL.iter().map(|a| a.as_str()).collect(),
            ),
            stored: counter!("refrain_cache_stored_total", "route" => route.clone()),
            fallbacks: counter!("refrain_upstream_fallbacks_total", "route" => route.clone()),
            shadow: counter!("refrain_semantic_shadow_hits_total", "route" => route.clone()),
            tokens_generated: counter!("refrain_upstream_output_tokens_total", "route" => route.clone()),
            tokens_saved: counter!("refrain_cache_saved_output_tokens_total", "route" => route.clone()),
            head_seconds: histogram!("refrain_response_head_seconds", "route" => route.clone()),
            first_byte_seconds: histogram!("refrain_upstream_first_byte_seconds", "route" => route.clone()),
            wait_seconds: histogram!("refrain_upstream_queue_wait_seconds", "route" => route.clone()),
            connect_seconds: histogram!("refrain_upstream_connect_seconds", "route" => route),
            answers,
        }
    }

    /// A request that ended so.
    pub(crate) fn outcome(&self, outcome: Outcome) {
        add(&self.outcomes, outcome as usize);
    }

    /// A request past the cache.
    pub(crate) fn bypass(&self, reason: Bypass) {
        add(&self.bypasses, reason as usize);
    }

    /// A request for the exact tier only.
    pub(crate) fn exact_only(&self, reason: ExactOnly) {
        add(&self.exact_only, reason as usize);
    }

    /// An answer that was not stored.
    pub(crate) fn skip(&self, reason: Skip) {
        add(&self.skips, reason as usize);
    }

    /// An error of Refrain's own.
    pub(crate) fn error(&self, code: Code) {
        add(&self.errors, code as usize);
    }

    /// An answer that was handed to the store.
    pub(crate) fn stored(&self) {
        self.stored.increment(1);
    }

    /// Tokens that an upstream generated, once an answer, however many were told it.
    pub(crate) fn generated(&self, usage: Usage) {
        self.tokens_generated.increment(usage.output_tokens.unwrap_or_default());
    }

    /// A request that another pool was asked for.
    pub(crate) fn fell_back(&self) {
        self.fallbacks.increment(1);
    }

    /// An answer from the cache: tokens that no upstream generated.
    pub(crate) fn saved(&self, usage: Usage) {
        self.tokens_saved.increment(usage.output_tokens.unwrap_or_default());
    }

    /// A similar question whose answer may not be served.
    pub(crate) fn refusal(&self, reason: Refusal) {
        let index = Refusal::ALL.iter().position(|known| *known == reason);
        add(&self.refusals, index.unwrap_or(usize::MAX));
    }

    /// A semantic hit that shadow mode kept back.
    pub(crate) fn shadow(&self) {
        self.shadow.increment(1);
    }

    /// A semantic hit was audited.
    pub(crate) fn audited(&self, found: Audited) {
        add(&self.audits, found as usize);
    }

    /// Time from a request's head to its response's head.
    pub(crate) fn head_sent(&self, after: std::time::Duration) {
        self.head_seconds.record(after.as_secs_f64());
    }

    /// A request whose answer has ended, in whichever way.
    pub(crate) fn settled(&self, tally: &Tally, usage: Option<Usage>) {
        if tally.answered.is_none() {
            self.outcome(Outcome::Left);
        }
        self.answers.settled(tally, usage);
    }

    /// The gaps between chunks of its streams.
    pub(crate) fn gaps(&self) -> GapStats {
        self.answers.gaps()
    }

    /// Time that an upstream took to begin its answer, and what came before.
    pub(crate) fn first_byte(&self, timings: Timings) {
        let Timings { waited, connect, first_byte } = timings;
        self.wait_seconds.record(waited.as_secs_f64());
        self.first_byte_seconds.record(first_byte.as_secs_f64());
        if let Some(connect) = connect {
            self.connect_seconds.record(connect.as_secs_f64());
        }
    }
}

fn add(counters: &[Counter], index: usize) {
    if let Some(counter) = counters.get(index) {
        counter.increment(1);
    }
}

/// Why a request may have no route.
const UNROUTED: [Code; 5] =
    [Code::BadRequest, Code::HeadTooLarge, Code::MethodNotAllowed, Code::NotFound, Code::Forbidden];

/// Has the counts of what no route takes there before the first.
pub(crate) fn register() {
    UNROUTED.into_iter().for_each(|code| unrouted_counter(code).increment(0));
}

/// A request that no route took.
pub(crate) fn unrouted(code: Code) {
    unrouted_counter(code).increment(1);
}

fn unrouted_counter(code: Code) -> Counter {
    counter!("refrain_unrouted_errors_total", "code" => code.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reasons_number_is_its_place_in_the_list() {
        for (index, reason) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, &reason) in Skip::ALL.iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
