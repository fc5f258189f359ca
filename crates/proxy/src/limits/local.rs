//! Counting in this process.

use std::time::Duration;

use refrain_cache::{QuotaHold, Quotas};
use refrain_core::settings::{Measure, Rate};

use super::Estimate;
use super::meter::Reading;
use super::state::{LimitResult, LimitState, Term, Terms};
use super::subject::Subject;
use super::table::{Count, Counts};

/// How long a request waits that finds all places taken: nobody knows when an answer ends.
const CONCURRENCY_WAIT: Duration = Duration::from_secs(1);

/// What a limit said.
#[derive(Debug)]
pub(super) struct Taken {
    /// Where it was.
    pub(super) held: Held,
    /// Requests under way, this one included if it was let in.
    pub(super) in_flight: u32,
    /// When, in Unix milliseconds of whoever counts.
    pub(super) now_ms: u64,
    /// What is left, in the order of the terms' rates.
    pub(super) readings: [Reading; Rate::SLOTS],
    /// Why nothing was taken; none: it was.
    pub(super) lack: Option<Lack>,
}

/// Where a request is counted.
#[derive(Debug)]
pub(super) enum Held {
    Here(Count),
    Shared(Box<(Quotas, QuotaHold)>),
    Nowhere,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    pub(super) what: What,
    pub(super) measure: Option<Measure>,
    pub(super) wait: Duration,
}

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The rate at this place of the terms.
    Rate(usize),
    Concurrency,
}

impl Lack {
    pub(super) fn of_concurrency() -> Self {
        Self { what: What::Concurrency, measure: None, wait: CONCURRENCY_WAIT }
    }

    pub(super) fn result(&self) -> LimitResult {
        self.measure.map_or(LimitResult::Concurrency, LimitResult::of)
    }
}

/// What is taken before the answer is known: never more than fits, so that who asks for more than that is let in when
/// everything is free, and pays afterwards.
pub(super) fn units(measure: Measure, units_max: u64, estimate: Estimate) -> u64 {
    match measure {
        Measure::Requests => 1,
        Measure::InputTokens => estimate.input_tokens.min(units_max),
        Measure::OutputTokens => 0,
    }
}

impl Taken {
    /// Nobody counts it.
    pub(super) fn uncounted() -> Self {
        Self { held: Held::Nowhere, in_flight: 0, now_ms: 0, readings: Default::default(), lack: None }
    }
}

/// Takes what a request needs, all or nothing.
pub(super) fn take(
    limit: &LimitState,
    terms: &Terms,
    subject: &Subject,
    estimate: Estimate,
    now_ms: u64,
) -> Taken {
    let (count, (in_flight, readings, lack)) = limit.table.with(subject, now_ms, |counts| {
        let lack = lack(counts, terms, estimate, now_ms);
        if lack.is_none() {
            counts.in_flight += u32::from(terms.concurrency.is_some());
            for term in &terms.rates {
                let taken = units(term.rate.measure, term.pace.units_max(), estimate);
                counts.meters[term.rate.slot()].add(term.pace, i64::try_from(taken).unwrap_or(i64::MAX));
            }
        }
        let readings = read(counts, terms, now_ms);
        (counts.in_flight, readings, lack)
    });
    Taken { held: Held::Here(count), in_flight, now_ms, readings, lack }
}

/// What [`take`] would say. Takes nothing.
pub(super) fn look(
    limit: &LimitState,
    terms: &Terms,
    subject: &Subject,
    estimate: Estimate,
    now_ms: u64,
) -> Taken {
    let mut counts = limit.table.look(subject);
    let lack = lack(&mut counts, terms, estimate, now_ms);
    let readings = read(&mut counts, terms, now_ms);
    Taken { held: Held::Nowhere, in_flight: counts.in_flight, now_ms, readings, lack }
}

/// The longest wait, or none.
fn lack(counts: &mut Counts, terms: &Terms, estimate: Estimate, now_ms: u64) -> Option<Lack> {
    let mut longest: Option<Lack> = None;
    for (at, term) in terms.rates.iter().enumerate() {
        let meter = &mut counts.meters[term.rate.slot()];
        meter.drain(term.pace, now_ms);
        let wanted = units(term.rate.measure, term.pace.units_max(), estimate);
        let Some(wait) = meter.wait(term.pace, wanted, now_ms) else { continue };
        if longest.is_none_or(|longest| wait > longest.wait) {
            longest = Some(Lack { what: What::Rate(at), measure: Some(term.rate.measure), wait });
        }
    }
    let is_crowded = terms.concurrency.is_some_and(|max| counts.in_flight >= max);
    longest.or_else(|| is_crowded.then(Lack::of_concurrency))
}

/// What is left, and until when the counts say anything.
fn read(counts: &mut Counts, terms: &Terms, now_ms: u64) -> [Reading; Rate::SLOTS] {
    let mut readings = [Reading::default(); Rate::SLOTS];
    for (term, reading) in terms.rates.iter().zip(&mut readings) {
        *reading = counts.meters[term.rate.slot()].reading(term.pace, now_ms);
        let reset_ms = u64::try_from(reading.reset.as_millis()).unwrap_or(u64::MAX);
        counts.drained_ms = counts.drained_ms.max(now_ms.saturating_add(reset_ms));
    }
    readings
}

/// Adds what came to light of each rate when a request had ended. Gives its place back.
pub(super) fn settle(
    limit: &LimitState,
    terms: &Terms,
    (subject, count): (&Subject, Count),
    more: &dyn Fn(&Term) -> i64,
    now_ms: u64,
) {
    limit.table.again(subject, count, |counts| {
        counts.in_flight = counts.in_flight.saturating_sub(u32::from(terms.concurrency.is_some()));
        for term in &terms.rates {
            let meter = &mut counts.meters[term.rate.slot()];
            meter.drain(term.pace, now_ms);
            meter.add(term.pace, more(term));
        }
        read(counts, terms, now_ms);
    });
}
