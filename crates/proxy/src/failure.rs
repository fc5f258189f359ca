//! How a stage says no: what went wrong for the client, and what to tell it.

use std::borrow::Cow;

use http::StatusCode;
use refrain_core::Code;

/// A request that ends in an error of Refrain's own.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What went wrong.
    pub(crate) code: Code,
    /// What the client reads; shows no internals.
    pub(crate) message: Cow<'static, str>,
    /// Another status than the code's: a policy's word.
    pub(crate) status: Option<StatusCode>,
    /// When to come back, in seconds.
    pub(crate) retry_after_s: Option<u32>,
    /// The methods that it would have to be.
    pub(crate) allowed: &'static str,
    /// What a 401 asks for.
    pub(crate) challenge: Challenge,
}

/// What a client that isn't let in must bring (RFC 6750, section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A credential: it sent none.
    #[default]
    Credential,
    /// Another than the one that it sent.
    Another,
}

impl Failure {
    /// A failure with what to tell the client.
    pub(crate) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        let challenge = Challenge::default();
        Self { code, message: message.into(), status: None, retry_after_s: None, allowed: "POST", challenge }
    }

    /// With another status than the code's, and with `Retry-After` in seconds.
    pub(crate) fn with_status(self, status: StatusCode, retry_after_s: Option<u32>) -> Self {
        Self { status: Some(status), retry_after_s, ..self }
    }

    /// Of another method than these, instead of POST.
    pub(crate) fn with_allowed(self, allowed: &'static str) -> Self {
        Self { allowed, ..self }
    }

    /// An upstream's failure. Says which kind, not which server.
    pub(crate) fn upstream(code: Code) -> Self {
        let message = match code {
            Code::UpstreamTimeout => "the model server did not answer in time",
            Code::UpstreamUnreachable => "no model server can be reached; try again shortly",
            Code::Overloaded => "all model servers are busy; try again after the time in Retry-After",
            Code::TenantOverloaded => {
                "all model servers are busy, and most of what waits is yours; try again after the time in Retry-After"
            }
            Code::BodyTooLarge => "the body is over the limit",
            Code::BodyIncomplete => "the request's body broke off",
            _ => "the model server broke off its answer",
        };
        Self::new(code, message)
    }
}

impl From<refrain_upstream::UpstreamError> for Failure {
    fn from(error: refrain_upstream::UpstreamError) -> Self {
        let retry_after_s = match &error {
            refrain_upstream::UpstreamError::Overloaded { retry_after, .. } => {
                u32::try_from(retry_after.as_secs_f64().ceil() as u64).ok()
            }
            _ => None,
        };
        Self { retry_after_s, ..Self::upstream(error.code()) }
    }
}
