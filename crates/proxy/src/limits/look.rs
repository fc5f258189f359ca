//! What the limits of a route would say of a request now, without counting it: for explanations.

use std::time::Duration;

use refrain_cache::Quotas;
use refrain_core::LimitId;
use refrain_core::settings::{LimitPlace, Measure, OnLimitError};
use refrain_llm::request::ParsedRequest;

use super::local::{self, Taken};
use super::state::{LimitState, Terms};
use super::subject::Subject;
use super::{Estimate, estimate, now_ms, over_limit, refused, shared, unavailable};
use crate::failure::Failure;
use crate::request::Admitted;
use crate::route::RouteState;
use crate::snapshot::Snapshot;

/// What a limit has for the caller now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedLimit {
    /// Which.
    pub limit: LimitId,
    /// Its rates.
    pub rates: Vec<ExplainedRate>,
    /// Requests under way, and how many may be.
    pub under_way: Option<(u32, u32)>,
    /// Whether it would let the request in.
    pub admits: bool,
    /// Whether nobody could be asked for its counts.
    pub is_unavailable: bool,
}

/// What is left of one rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedRate {
    /// Its name, as in `RateLimit`.
    pub name: String,
    /// What it lets through.
    pub limit: u64,
    /// What is left of it.
    pub left: u64,
    /// Until all of it is there again.
    pub full_in: Duration,
}

/// What all limits would say.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// Each, in their order.
    pub(crate) limits: Vec<ExplainedLimit>,
    /// What the client would be refused with.
    pub(crate) refusal: Option<Failure>,
    is_over_limit: bool,
}

impl Look {
    /// As [`super::check_length`].
    ///
    /// # Errors
    /// The request alone has more tokens than ever fit.
    pub(crate) fn check_length(&self, request: &ParsedRequest) -> Result<(), Failure> {
        let is_over = self.is_over_limit && !request.has_media();
        if is_over { Err(over_limit()) } else { Ok(()) }
    }
}

/// Looks at the limits of a route. Takes nothing, and counts nothing.
///
/// # Cancel safety
/// Safe.
pub(crate) async fn look(snapshot: &Snapshot, route: &RouteState, admitted: &Admitted) -> Look {
    let estimate = Estimate { input_tokens: estimate(admitted) };
    let quotas = snapshot.cache.as_ref().and_then(|cache| cache.store.quotas());
    let mut look = Look::default();
    for limit in &route.limits {
        let subject = Subject::of(&limit.config.by, &admitted.caller, &route.route.id);
        let terms = limit.terms(admitted.caller.key.as_ref(), &admitted.caller.identity.tenant);
        look.is_over_limit |= terms.is_over(estimate);
        let (seen, is_unavailable) = seen(quotas, (limit, terms), &subject, estimate).await;
        let refusal = match &seen {
            Ok(taken) => taken.lack.as_ref().map(|lack| refused(terms, lack)),
            Err(_) => Some(unavailable()),
        };
        let admits = refusal.is_none();
        look.refusal = look.refusal.or(refusal);
        look.limits.push(explained((limit, terms), seen.ok().as_ref(), (admits, is_unavailable)));
    }
    look
}

/// Nobody counts, and the config wants nothing let in then.
struct Shut;

/// What it would say, and whether its own counts could not be asked.
async fn seen(
    quotas: Option<&Quotas>,
    (limit, terms): (&LimitState, &Terms),
    subject: &Subject,
    estimate: Estimate,
) -> (Result<Taken, Shut>, bool) {
    let here = || local::look(limit, terms, subject, estimate, now_ms());
    let LimitPlace::Shared { timeout, on_error } = limit.config.place else { return (Ok(here()), false) };
    if let Some(quotas) = quotas
        && let Ok(seen) = shared::look(quotas, (limit, terms), subject, estimate, timeout).await
    {
        return (Ok(seen), false);
    }
    let instead = match on_error {
        OnLimitError::Local => Ok(here()),
        OnLimitError::Allow => Ok(Taken::uncounted()),
        OnLimitError::Refuse => Err(Shut),
    };
    (instead, true)
}

fn explained(
    (limit, terms): (&LimitState, &Terms),
    seen: Option<&Taken>,
    (admits, is_unavailable): (bool, bool),
) -> ExplainedLimit {
    let rates = seen.into_iter().flat_map(|seen| terms.rates.iter().zip(&seen.readings));
    let rate = |(term, reading): (&super::state::Term, &super::meter::Reading)| ExplainedRate {
        name: term.name.clone(),
        limit: term.rate.limit,
        left: reading.left,
        full_in: reading.reset,
    };
    ExplainedLimit {
        limit: limit.config.id.clone(),
        rates: rates.map(rate).collect(),
        under_way: seen.and_then(|seen| Some((seen.in_flight, terms.concurrency?))),
        admits,
        is_unavailable,
    }
}

impl Terms {
    /// Whether a prompt has more tokens than these ever let through at once.
    pub(super) fn is_over(&self, estimate: Estimate) -> bool {
        let mut rates = self.rates.iter().filter(|term| term.rate.measure == Measure::InputTokens);
        rates.any(|term| estimate.input_tokens > term.pace.units_max())
    }
}
