//! Fifth stage: what is asked, and of which model.

use bytes::Bytes;
use refrain_core::settings::Limits;
use refrain_core::{Api, Code};
use refrain_llm::request::{ParseLimits, ParsedRequest, parse};

use crate::failure::Failure;
use crate::request::Admitted;

/// Proof that the body was understood and that the caller may ask this model.
pub(crate) struct Asked {
    /// The request, understood.
    pub(crate) request: ParsedRequest,
    /// The effective model: what the upstream is asked for.
    pub(crate) model: String,
}

impl Asked {
    /// The upstream's name for the model, where it differs from the client's.
    pub(crate) fn renamed(&self) -> Option<String> {
        (self.model != self.request.prompt.model).then(|| self.model.clone())
    }
}

/// Reads the body in the API's dialect and applies the pool's aliases and the caller's entitlements.
pub(crate) fn understand(
    api: Api,
    body: &Bytes,
    admitted: &Admitted,
    limits: &Limits,
) -> Result<Asked, Failure> {
    let bounds = ParseLimits { depth_max: limits.json_depth_max, ..ParseLimits::default() };
    let request = parse(api, body, &bounds).map_err(|error| Failure::new(error.code(), error.to_string()))?;
    let named = &request.prompt.model;
    let aliases = &admitted.state().pool.config().models;
    let model = aliases.get(named).unwrap_or(named).clone();
    let entitled = &admitted.caller.models;
    if !entitled.is_empty() && !entitled.iter().any(|name| *name == model || name == named) {
        return Err(Failure::new(Code::ModelNotFound, "this key can't use that model"));
    }
    Ok(Asked { request, model })
}
