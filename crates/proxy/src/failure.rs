//! How a stage says no: what went wrong for the client, and what to tell it.

use std::borrow::Cow;

use refrain_core::Code;

/// A request that ends in an error of Refrain's own.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What went wrong.
    pub(crate) code: Code,
    /// What the client reads; shows no internals.
    pub(crate) message: Cow<'static, str>,
}

impl Failure {
    /// A failure with what to tell the client.
    pub(crate) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    /// An upstream's failure. Says which kind, not which server.
    pub(crate) fn upstream(code: Code) -> Self {
        let message = match code {
            Code::UpstreamTimeout => "the model server did not answer in time",
            Code::UpstreamUnreachable => "no model server can be reached; try again shortly",
            Code::BodyTooLarge => "the body is over the limit",
            Code::BodyIncomplete => "the request's body broke off",
            _ => "the model server broke off its answer",
        };
        Self::new(code, message)
    }
}

impl From<refrain_upstream::UpstreamError> for Failure {
    fn from(error: refrain_upstream::UpstreamError) -> Self {
        Self::upstream(error.code())
    }
}
