//! Counting in the store that proxies share: the same as in this process, by the server's clock.

use std::time::Duration;

use refrain_cache::{QuotaRate, QuotaTold, Quotas, StoreTrouble};
use refrain_core::settings::Rate;

use super::Estimate;
use super::local::{Held, Lack, Taken, What, units};
use super::meter::{Meter, Reading};
use super::state::{LimitState, Term, Terms};
use super::subject::Subject;

/// Takes what a request needs, all or nothing.
///
/// # Errors
/// The store could not be asked within `patience`.
///
/// # Cancel safety
/// What was taken stays taken; a place expires.
pub(super) async fn take(
    quotas: &Quotas,
    (limit, terms): (&LimitState, &Terms),
    subject: &Subject,
    estimate: Estimate,
    patience: Duration,
) -> Result<Taken, StoreTrouble> {
    let digest = subject.digest(quotas.subject_key(), limit.config.id.as_str());
    let rates = asked(terms, estimate);
    let told = quotas.take(&digest, &rates, terms.concurrency, patience).await?;
    let (readings, longest) = read(terms, &told, estimate);
    let lack = told.held.is_none().then(|| longest.unwrap_or_else(Lack::of_concurrency));
    let held = told.held.map_or(Held::Nowhere, |hold| Held::Shared(Box::new((quotas.clone(), hold))));
    Ok(Taken { held, in_flight: told.in_flight, now_ms: told.now_ms, readings, lack })
}

/// What [`take`] would say. Takes nothing.
///
/// # Errors
/// The store could not be asked within `patience`.
pub(super) async fn look(
    quotas: &Quotas,
    (limit, terms): (&LimitState, &Terms),
    subject: &Subject,
    estimate: Estimate,
    patience: Duration,
) -> Result<Taken, StoreTrouble> {
    let digest = subject.digest(quotas.subject_key(), limit.config.id.as_str());
    let rates = asked(terms, estimate);
    let told = quotas.look(&digest, &rates, terms.concurrency, patience).await?;
    let (readings, longest) = read(terms, &told, estimate);
    let lack = (!told.is_free).then(|| longest.unwrap_or_else(Lack::of_concurrency));
    Ok(Taken { held: Held::Nowhere, in_flight: told.in_flight, now_ms: told.now_ms, readings, lack })
}

/// What came to light when a request had ended, in the order of the terms' rates.
pub(super) fn settled(terms: &Terms, more: &dyn Fn(&Term) -> i64) -> Vec<QuotaRate> {
    terms.rates.iter().map(|term| rate(term, more(term))).collect()
}

/// What a request asks of each rate, in the order of the terms' rates.
fn asked(terms: &Terms, estimate: Estimate) -> Vec<QuotaRate> {
    terms.rates.iter().map(|term| rate(term, wanted(term, estimate))).collect()
}

fn wanted(term: &Term, estimate: Estimate) -> i64 {
    i64::try_from(units(term.rate.measure, term.pace.units_max(), estimate)).unwrap_or(i64::MAX)
}

fn rate(term: &Term, units: i64) -> QuotaRate {
    let pace = term.pace;
    QuotaRate {
        slot: term.rate.slot(),
        limit: pace.limit,
        capacity: pace.capacity,
        grain: pace.grain,
        tick_ms: pace.tick_ms,
        units,
    }
}

/// What is left, and the longest wait for what there is too little of.
fn read(terms: &Terms, told: &QuotaTold, estimate: Estimate) -> ([Reading; Rate::SLOTS], Option<Lack>) {
    let mut readings = [Reading::default(); Rate::SLOTS];
    let mut longest: Option<Lack> = None;
    for (at, (term, level)) in terms.rates.iter().zip(&told.levels).enumerate() {
        let meter = Meter::at(*level, term.pace, told.now_ms);
        readings[at] = meter.reading(term.pace, told.now_ms);
        let wanted = units(term.rate.measure, term.pace.units_max(), estimate);
        let Some(wait) = meter.wait(term.pace, wanted, told.now_ms) else { continue };
        if longest.is_none_or(|longest| wait > longest.wait) {
            longest = Some(Lack { what: What::Rate(at), measure: Some(term.rate.measure), wait });
        }
    }
    (readings, longest)
}
