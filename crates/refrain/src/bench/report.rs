//! The results of a measurement, as programs read them. A field's meaning never changes; new ones may come.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cache_status::Served;
use super::outcome::Finish;
use super::tally::{Class, Tally, Times};

/// Of the JSON form.
const SCHEMA: &str = "refrain-bench/1";

/// What was measured, and how.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Names this form.
    schema: &'static str,
    /// What was asked of whom.
    pub(crate) setup: Setup,
    /// From the first request that counts to the last answer.
    pub(crate) seconds: f64,
    /// How many.
    pub(crate) requests: Requests,
    /// From when a request was due to the first text.
    pub(crate) ttft_ms: Spread,
    /// Between arrivals of text.
    pub(crate) gap_ms: Spread,
    /// From when a request was due to the end.
    pub(crate) e2e_ms: Spread,
    /// From when a request was due to when it was sent.
    pub(crate) late_ms: Spread,
    /// The same from when it was sent: what the server alone took.
    pub(crate) from_sending: Times2,
    /// Stored answers, from sending.
    pub(crate) cached: Times2,
    /// Answers that another request had generated just then, from sending.
    pub(crate) joined: Times2,
    /// The others, from sending.
    pub(crate) generated: Times2,
    /// Tokens.
    pub(crate) tokens: TokenCounts,
    /// How many were good enough; none without an objective.
    pub(crate) goodput: Option<Goodput>,
    /// What the cache did.
    pub(crate) cache: Cache,
    /// Why answers ended. Only those that end by `stop` can be stored.
    pub(crate) finish: BTreeMap<&'static str, u64>,
    /// Failures by kind.
    pub(crate) failures: BTreeMap<String, FailureCount>,
    /// CPU time of this program, of one core: near 1 it is the bottleneck.
    pub(crate) client_cpu: Option<f64>,
}

/// What was asked of whom.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setup {
    /// Of this program.
    pub(crate) version: &'static str,
    /// Not built for speed: its own times are not to be trusted.
    pub(crate) debug_build: bool,
    /// When it began (UTC).
    pub(crate) started: String,
    /// Servers.
    pub(crate) urls: Vec<String>,
    /// The model.
    pub(crate) model: String,
    /// The path.
    pub(crate) path: &'static str,
    /// Whether answers were streamed.
    pub(crate) streamed: bool,
    /// The workload's name.
    pub(crate) workload: &'static str,
    /// Its seed.
    pub(crate) seed: u64,
    /// How requests came, in words.
    pub(crate) load: String,
}

/// How many requests.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Requests {
    /// That should have been answered: all of these.
    pub(crate) due: u64,
    /// Whole answers.
    pub(crate) answered: u64,
    /// Failures.
    pub(crate) failed: u64,
    /// Sent, and not over when the grace was.
    pub(crate) unfinished: u64,
    /// Due, and not sent before the end.
    pub(crate) unsent: u64,
    /// Over, and not counted in anything else here.
    pub(crate) warm_up: u64,
    /// Answered, by seconds.
    pub(crate) per_second: f64,
}

/// A distribution.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Spread {
    /// Of how many.
    pub(crate) count: u64,
    /// Arithmetic mean.
    pub(crate) mean: f64,
    /// Half are no longer.
    pub(crate) p50: f64,
    /// 90 in 100.
    pub(crate) p90: f64,
    /// 95 in 100.
    pub(crate) p95: f64,
    /// 99 in 100.
    pub(crate) p99: f64,
    /// The longest.
    pub(crate) max: f64,
}

/// Of one kind of answers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Times2 {
    /// To the first text.
    pub(crate) ttft_ms: Spread,
    /// To the end.
    pub(crate) e2e_ms: Spread,
}

/// Tokens.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TokenCounts {
    /// Of the prompts, as the servers counted.
    pub(crate) prompt: u64,
    /// Of these, found in the upstream's own prefix cache, of generated answers.
    pub(crate) prompt_cached_upstream: u64,
    /// Of the answers.
    pub(crate) output: u64,
    /// Of these, generated for their requests.
    pub(crate) output_generated: u64,
    /// Answers whose tokens are chunks, since the server counted none.
    pub(crate) answers_counted_by_chunks: u64,
    /// Of all answers.
    pub(crate) output_per_second: f64,
    /// Of each generated answer, from sending to the end: the higher percentiles are of the quicker ones.
    pub(crate) per_request_per_second: Spread,
    /// Milliseconds for each token of a generated answer, from sending to the end: the higher percentiles are of the slower ones.
    pub(crate) ms_per_token: Spread,
}

/// How many were good enough.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Goodput {
    /// The bounds.
    pub(crate) objective: String,
    /// Requests that kept them all.
    pub(crate) met: u64,
    /// Of those that were due, failed and unsent ones too.
    pub(crate) share: f64,
    /// By seconds.
    pub(crate) per_second: f64,
}

/// What the cache did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cache {
    /// Requests by where their answer came from.
    pub(crate) served: BTreeMap<&'static str, u64>,
    /// Answers that were not generated for their request, of all that came.
    pub(crate) hit_share: f64,
    /// Why requests went past the cache.
    pub(crate) bypass: BTreeMap<String, u64>,
}

/// One kind of failure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FailureCount {
    /// How often.
    pub(crate) count: u64,
    /// What the first one said.
    pub(crate) first: String,
}

impl Report {
    /// What a tally holds.
    pub(crate) fn new(
        tally: &Tally,
        setup: Setup,
        objective: Option<String>,
        client_cpu: Option<f64>,
    ) -> Self {
        let seconds = tally.last_end.duration_since(tally.from).as_secs_f64();
        let per_second = |count: u64| ratio(count, seconds);
        let failures = tally.failures.iter().map(|(kind, failed)| {
            (kind.clone(), FailureCount { count: failed.count, first: failed.first.clone() })
        });
        let goodput = objective.map(|objective| Goodput {
            objective,
            met: tally.met,
            share: ratio(tally.met, float(tally.due())),
            per_second: per_second(tally.met),
        });
        Self {
            schema: SCHEMA,
            setup,
            seconds: rounded(seconds),
            requests: Requests {
                due: tally.due(),
                answered: tally.answered,
                failed: tally.failed,
                unfinished: tally.unfinished,
                unsent: tally.unsent,
                warm_up: tally.warm_up,
                per_second: per_second(tally.answered),
            },
            ttft_ms: spread(&tally.all.ttft),
            gap_ms: spread(&tally.gaps),
            e2e_ms: spread(&tally.all.e2e),
            late_ms: spread(&tally.late),
            from_sending: class(&tally.from_sending),
            cached: class(&tally.cached),
            joined: class(&tally.joined),
            generated: class(&tally.generated),
            tokens: tokens(tally, seconds),
            goodput,
            cache: cache(tally),
            finish: finish(tally),
            failures: failures.collect(),
            client_cpu: client_cpu.map(rounded),
        }
    }
}

fn tokens(tally: &Tally, seconds: f64) -> TokenCounts {
    let tokens = &tally.tokens;
    TokenCounts {
        prompt: tokens.input,
        prompt_cached_upstream: tokens.input_cached,
        output: tokens.output,
        output_generated: tokens.output_generated,
        answers_counted_by_chunks: tokens.by_chunks,
        output_per_second: ratio(tokens.output, seconds),
        // Thousandths, as milliseconds are of microseconds.
        per_request_per_second: spread(&tally.speed),
        ms_per_token: spread(&tally.per_token),
    }
}

fn cache(tally: &Tally) -> Cache {
    let count = |served: Served| tally.served.get(&served).copied().unwrap_or_default();
    let hits = tally.cached.e2e.0.len() + tally.joined.e2e.0.len();
    Cache {
        served: Served::ALL.into_iter().map(|served| (served.as_str(), count(served))).collect(),
        hit_share: ratio(hits, float(tally.answered)),
        bypass: tally.bypasses.clone(),
    }
}

fn finish(tally: &Tally) -> BTreeMap<&'static str, u64> {
    let count = |finish: Finish| tally.finishes.get(&finish).copied().unwrap_or_default();
    Finish::ALL.into_iter().map(|finish| (finish.as_str(), count(finish))).collect()
}

fn class(class: &Class) -> Times2 {
    Times2 { ttft_ms: spread(&class.ttft), e2e_ms: spread(&class.e2e) }
}

/// Microseconds as milliseconds.
fn spread(Times(times): &Times) -> Spread {
    let at = |percentile: f64| rounded(float(times.value_at_percentile(percentile)) / 1000.0);
    Spread {
        count: times.len(),
        mean: rounded(times.mean() / 1000.0),
        p50: at(50.0),
        p90: at(90.0),
        p95: at(95.0),
        p99: at(99.0),
        max: rounded(float(times.max()) / 1000.0),
    }
}

impl Spread {
    /// A percentile beyond which at least one of those counted lies; of fewer it would be the longest by another name.
    pub(crate) fn known(&self, percentile: f64) -> Option<f64> {
        let (value, beyond) = match percentile {
            p if p <= 50.0 => (self.p50, 0.5),
            p if p <= 90.0 => (self.p90, 0.1),
            p if p <= 95.0 => (self.p95, 0.05),
            _ => (self.p99, 0.01),
        };
        let least = if beyond < 0.5 { 1.0 / beyond } else { 1.0 };
        (float(self.count) >= least - 1e-9).then_some(value)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

fn ratio(count: u64, of: f64) -> f64 {
    if of > 0.0 { rounded(float(count) / of) } else { 0.0 }
}

/// To three decimals.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_known_only_where_one_request_lies_beyond_it() {
        let known = |count| {
            let spread = Spread { count, mean: 1.0, p50: 5.0, p90: 9.0, p95: 9.5, p99: 9.9, max: 10.0 };
            [50.0, 90.0, 95.0, 99.0].map(|percentile| spread.known(percentile).is_some())
        };
        assert_eq!(known(0), [false; 4]);
        assert_eq!(known(1), [true, false, false, false]);
        assert_eq!((known(9), known(10)), ([true, false, false, false], [true, true, false, false]));
        assert_eq!(
            (known(20), known(99), known(100)),
            ([true, true, true, false], [true, true, true, false], [true; 4])
        );
    }
}
