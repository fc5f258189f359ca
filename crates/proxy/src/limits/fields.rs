//! What responses tell of limits: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers, 11).

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::meter::Reading;
use super::state::{LimitState, Terms};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// Largest integer of a structured field (RFC 9651, section 3.3.1).
const INTEGER_MAX: u128 = 999_999_999_999_999;

/// What is told of all limits that a request met.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    policy: String,
    left: String,
}

impl Fields {
    /// A limit, with what is left of each of its rates and whether one more request has room beside those under way.
    pub(crate) fn add(&mut self, limit: &LimitState, terms: &Terms, readings: &[Reading], in_flight: u32) {
        separate(&mut self.policy);
        self.policy.push_str(&terms.policy);
        for (term, Reading { left, reset }) in terms.rates.iter().zip(readings) {
            separate(&mut self.left);
            let seconds = reset.as_millis().div_ceil(1000).min(INTEGER_MAX);
            // Writing to a string can't fail.
            let _ = write!(self.left, "\"{}\";r={left};t={seconds}", term.name);
        }
        if let Some(max) = terms.concurrency {
            separate(&mut self.left);
            let _ =
                write!(self.left, "\"{}-concurrency\";r={}", limit.config.id, max.saturating_sub(in_flight));
        }
    }

    /// Puts them into a response.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        for (name, value) in [(POLICY, self.policy), (LEFT, self.left)] {
            if let (false, Ok(value)) = (value.is_empty(), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
    }
}

fn separate(items: &mut String) {
    if !items.is_empty() {
        items.push_str(", ");
    }
}
