//! Fifth stage: what is asked, and of which model.

use std::sync::Arc;

use bytes::Bytes;
use refrain_core::settings::Limits;
use refrain_core::{Api, Code};
use refrain_llm::request::{ParseLimits, ParsedRequest, parse};
use refrain_upstream::PoolState;

use crate::auth::Caller;
use crate::failure::Failure;
use crate::ingest::Whole;
use crate::request::Admitted;
use crate::room::Room;

/// Proof that the body was understood.
pub(crate) struct Asked {
    /// The request, understood.
    pub(crate) request: ParsedRequest,
    /// What its body holds, if that counts.
    room: Option<Arc<Room>>,
}

/// Where a miss goes. Proof that the caller may ask this model.
pub(crate) struct Target {
    /// Who answers.
    pub(crate) pool: Arc<PoolState>,
    /// The effective model: what the upstream is asked for.
    pub(crate) model: String,
    /// Same key, same endpoint as far as possible; none: the pool's own rule.
    pub(crate) routing_key: Option<[u8; 32]>,
}

impl Asked {
    /// The same, asked in other words.
    pub(crate) fn reworded(&self, request: ParsedRequest) -> Self {
        Self { request, room: self.room.clone() }
    }

    /// The upstream's name for the model, where it differs from the client's.
    pub(crate) fn renamed(&self, target: &Target) -> Option<String> {
        (target.model != self.request.prompt.model).then(|| target.model.clone())
    }
}

/// Reads the body in the API's dialect and applies the pool's aliases and the caller's entitlements.
pub(crate) fn understand(
    api: Api,
    Whole { bytes, room }: Whole,
    admitted: &Admitted,
    limits: &Limits,
) -> Result<(Asked, Target), Failure> {
    let request = read(api, &bytes, limits).map_err(|error| Failure::new(error.code(), error.to_string()))?;
    let named = &request.prompt.model;
    let pool = admitted.state().pool.clone();
    let model = alias(&pool, named).to_owned();
    if !may_ask(&admitted.caller, &[named, &model]) {
        return Err(not_entitled());
    }
    Ok((Asked { request, room: room.kept() }, Target { pool, model, routing_key: None }))
}

/// Reads a body within the limits of config.
pub(crate) fn read(
    api: Api,
    body: &Bytes,
    limits: &Limits,
) -> Result<ParsedRequest, refrain_llm::request::ParseError> {
    let bounds = ParseLimits { depth_max: limits.json_depth_max, ..ParseLimits::default() };
    parse(api, body, &bounds)
}

/// The pool's own name for a model.
pub(crate) fn alias<'a>(pool: &'a PoolState, named: &'a str) -> &'a str {
    pool.config().models.get(named).map_or(named, String::as_str)
}

/// Whether the caller may ask a model that goes by any of these names.
pub(crate) fn may_ask(caller: &Caller, names: &[&str]) -> bool {
    caller.entitlements.allow_model(names)
}

/// What a caller is told who may not ask a model.
pub(crate) fn not_entitled() -> Failure {
    Failure::new(Code::ModelNotFound, "this key can't use that model")
}
