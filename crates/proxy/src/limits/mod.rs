//! Fourth stage: whether the caller may ask for more now. What is let in is counted until its answer has ended.
//!
//! Requests and concurrency are taken here. Tokens of a prompt are taken as estimated by its length, and corrected once
//! the model server has counted them; tokens of an answer are counted when it has ended, so that who overdraws waits the
//! next time. A limit that refuses takes nothing, and neither do those that had let the request in.

mod fields;
mod granted;
mod local;
mod look;
mod meter;
mod shared;
mod state;
mod subject;
mod table;

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::CONTENT_LENGTH;
use refrain_cache::Quotas;
use refrain_core::Code;
use refrain_core::settings::{LimitPlace, Measure, OnLimitError, Window};
use refrain_llm::request::ParsedRequest;
use tokio::time::Instant;

use crate::auth::Caller;
use crate::failure::Failure;
use crate::paths::PathClass;
use crate::request::Admitted;
use crate::snapshot::Snapshot;
use fields::Fields;
use granted::Hold;
use local::{Held, Lack, Taken, What};
use state::{LimitResult, Term, Terms};
use subject::Subject;

pub(crate) use fields::Fields as LimitFields;
pub(crate) use granted::Granted;
pub(crate) use look::look;
pub use look::{ExplainedLimit, ExplainedRate};
pub(crate) use state::LimitState;
pub use state::LimitStats;

/// Bytes of a body for a token of its prompt, about.
const BYTES_A_TOKEN: u64 = 4;

/// What a request is known to take, before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Estimate {
    input_tokens: u64,
}

/// Lets a request in, if all limits of its route do. `fields` tells the client what is left either way.
///
/// # Errors
/// [`Code::RateLimited`] with the time to wait, or [`Code::LimitsUnavailable`].
///
/// # Cancel safety
/// Safe: what was taken is given back, or expires.
pub(crate) async fn admit(
    snapshot: &Snapshot,
    admitted: &Admitted,
    fields: &mut Option<Box<Fields>>,
) -> Result<Option<Granted>, Failure> {
    if admitted.state().limits.is_empty() {
        return Ok(None);
    }
    // Most routes have no limits, and no room in their futures for them.
    Box::pin(take_all(snapshot, admitted, fields.get_or_insert_default())).await.map(Some)
}

async fn take_all(snapshot: &Snapshot, admitted: &Admitted, fields: &mut Fields) -> Result<Granted, Failure> {
    let state = admitted.state();
    let estimate = Estimate { input_tokens: estimate(admitted) };
    let quotas = snapshot.cache.as_ref().and_then(|cache| cache.store.quotas());
    let mut granted = Granted::default();
    for limit in &state.limits {
        let subject = Subject::of(&limit.config.by, &admitted.caller, &state.route.id);
        let Caller { key, identity, .. } = &admitted.caller;
        let terms = limit.terms(key.as_ref(), &identity.tenant);
        let taken = match take(quotas, (limit, terms), &subject, estimate).await {
            Ok(Taken { lack: None, held, in_flight, readings, now_ms }) => {
                Ok(((held, now_ms), in_flight, readings))
            }
            Ok(Taken { lack: Some(lack), in_flight, readings, .. }) => {
                limit.count(lack.result());
                fields.add(limit, terms, &readings[..terms.rates.len()], in_flight);
                Err(refused(terms, &lack))
            }
            Err(failure) => Err(failure),
        };
        let (held, in_flight, readings) = taken.inspect_err(|_| granted.take_back())?;
        limit.count(LimitResult::Admitted);
        if !matches!(held.0, Held::Nowhere) {
            fields.add(limit, terms, &readings[..terms.rates.len()], in_flight);
        }
        granted.add(Hold::new(limit.clone(), terms.clone(), subject, held, estimate));
    }
    Ok(granted)
}

/// Where the limit is counted, or what config puts in its place.
async fn take(
    quotas: Option<&Quotas>,
    (limit, terms): (&LimitState, &Terms),
    subject: &Subject,
    estimate: Estimate,
) -> Result<Taken, Failure> {
    let here = || local::take(limit, terms, subject, estimate, now_ms());
    let LimitPlace::Shared { timeout, on_error } = limit.config.place else { return Ok(here()) };
    if let Some(quotas) = quotas
        && let Ok(taken) = shared::take(quotas, (limit, terms), subject, estimate, timeout).await
    {
        return Ok(taken);
    }
    limit.count(LimitResult::Unavailable);
    match on_error {
        OnLimitError::Local => Ok(here()),
        OnLimitError::Allow => Ok(Taken::uncounted()),
        OnLimitError::Refuse => Err(unavailable()),
    }
}

fn unavailable() -> Failure {
    let message = "your limits can't be looked up just now; try again after the time in Retry-After";
    Failure::new(Code::LimitsUnavailable, message)
}

/// About how many tokens a request's prompt has, by the length that its head announces; 0: unknown, and counted afterwards.
fn estimate(admitted: &Admitted) -> u64 {
    let head = &admitted.routed.head;
    if !matches!(head.class, PathClass::Api(_)) {
        return 0;
    }
    let length =
        head.parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    length.unwrap_or_default() / BYTES_A_TOKEN
}

/// Whether a prompt fits into its limits at all, now that it is known what of its length is media: those cost what they cost.
///
/// # Errors
/// [`Code::OverLimit`].
pub(crate) fn check_length(granted: Option<&mut Granted>, request: &ParsedRequest) -> Result<(), Failure> {
    let Some(granted) = granted.filter(|granted| granted.is_over_limit() && !request.has_media()) else {
        return Ok(());
    };
    granted.refuse_for_ever();
    Err(over_limit())
}

fn over_limit() -> Failure {
    let message =
        "this request alone has more input tokens than your limit lets through at once; send a shorter one";
    Failure::new(Code::OverLimit, message)
}

fn refused(terms: &Terms, lack: &Lack) -> Failure {
    let seconds = lack.wait.as_millis().div_ceil(1000).max(1);
    let message = match lack.what {
        What::Rate(at) => terms.rates.get(at).map_or("", |term| rate_message(term)),
        What::Concurrency => {
            "too many of your requests are under way; wait until one of them has been answered"
        }
    };
    let failure = Failure::new(Code::RateLimited, message);
    Failure { retry_after_s: Some(u32::try_from(seconds).unwrap_or(u32::MAX)), ..failure }
}

fn rate_message(term: &Term) -> &'static str {
    match (term.rate.measure, term.rate.window) {
        (Measure::Requests, Window::Minute) => {
            "your limit of requests a minute is reached; try again after the time in Retry-After"
        }
        (Measure::Requests, Window::Day) => {
            "your limit of requests a day is reached; try again after the time in Retry-After"
        }
        (Measure::InputTokens, Window::Minute) => {
            "your limit of input tokens a minute is reached; try again after the time in Retry-After"
        }
        (Measure::InputTokens, Window::Day) => {
            "your limit of input tokens a day is reached; try again after the time in Retry-After"
        }
        (Measure::OutputTokens, Window::Minute) => {
            "your limit of output tokens a minute is reached; try again after the time in Retry-After"
        }
        (Measure::OutputTokens, Window::Day) => {
            "your limit of output tokens a day is reached; try again after the time in Retry-After"
        }
    }
}

/// Unix time in milliseconds, as of the process's own clock: it neither jumps nor goes back.
fn now_ms() -> u64 {
    static BEGAN: LazyLock<(Duration, Instant)> =
        LazyLock::new(|| (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), Instant::now()));
    let (unix, began) = &*BEGAN;
    u64::try_from((*unix + began.elapsed()).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
