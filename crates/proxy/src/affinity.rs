//! What of a request decides which endpoint of its pool answers it.

use http::HeaderMap;
use refrain_core::settings::{Balance, HashBy, Sessions};
use refrain_core::{Api, TenantId};
use refrain_llm::request::{Beginnings, ParsedRequest};
use refrain_upstream::{Affinity, Demand, Prefix};
use serde::Deserialize;

use crate::ask;
use crate::plan::Planned;
use crate::request::Admitted;

/// Separates these digests from every other BLAKE3 of the same bytes.
const CONTEXT: &str = "refrain 2026 affinity v1";
/// Longest value that a request is hashed by.
const VALUE_BYTES_MAX: usize = 1024;
/// Bytes of a body for a token of its prompt, about.
const BYTES_A_TOKEN: usize = 4;

/// Where a planned request shall go.
pub(crate) fn demand(admitted: &Admitted, planned: &Planned) -> Demand {
    let Planned { sent, target, .. } = planned;
    let tokens = sent.request.body().len() / BYTES_A_TOKEN;
    let has_choice = target.pool.has_choice();
    Demand {
        affinity: affinity(admitted, planned),
        model: has_choice.then(|| target.model.as_str().into()),
        tenant: Some(admitted.caller.identity.tenant.clone()),
        priority: admitted.priority,
        tokens: u32::try_from(tokens).unwrap_or(u32::MAX).max(1),
        follows: followed(admitted, &sent.request),
    }
}

/// Of a request whose body nobody has read: the path may name a response or a model.
pub(crate) fn unread(admitted: &Admitted) -> Demand {
    let tenant = &admitted.caller.identity.tenant;
    let path = admitted.routed.head.path();
    let response = path.strip_prefix("/v1/responses/").and_then(|rest| rest.split('/').next());
    Demand {
        model: path.strip_prefix("/v1/models/").map(Box::from),
        follows: response.map(|id| response_hash(tenant, id)),
        tenant: Some(tenant.clone()),
        priority: admitted.priority,
        ..Demand::default()
    }
}

/// Of a request outside the APIs that are understood, such as Ollama's `/api/show`: the model that its body names.
pub(crate) fn naming(admitted: &Admitted, body: &[u8]) -> Demand {
    #[derive(Deserialize)]
    struct Naming {
        #[serde(alias = "name")]
        model: String,
    }
    let naming: Option<Naming> = serde_json::from_slice(body).ok();
    let pool = &admitted.state().pool;
    let model = naming.map(|naming| ask::alias(pool, &naming.model).into());
    Demand { model, ..unread(admitted) }
}

/// The response that a request goes on from.
fn followed(admitted: &Admitted, request: &ParsedRequest) -> Option<u64> {
    let is_responses = request.prompt.api == Api::Responses;
    let id = request.json("/previous_response_id", VALUE_BYTES_MAX).filter(|_| is_responses)?;
    Some(response_hash(&admitted.caller.identity.tenant, id.trim_matches('"')))
}

/// Stands for a response that a model server keeps.
pub(crate) fn response_hash(tenant: &TenantId, id: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = digest(tenant, "response", id);
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// A policy's word first, then the conversation that the client names, then the prompt's own beginnings.
fn affinity(admitted: &Admitted, planned: &Planned) -> Affinity {
    let Planned { sent, target, .. } = planned;
    if let Some(key) = target.routing_key {
        return Affinity::Key(key);
    }
    if !target.pool.has_choice() {
        return Affinity::Any;
    }
    let config = target.pool.config();
    let identity = &admitted.caller.identity;
    let asked = Request { headers: &admitted.routed.head.parts.headers, body: &sent.request };
    let key = |kind: &str, value: &str| Affinity::Key(digest(&identity.tenant, kind, value));
    match &config.balance {
        Balance::RoundRobin | Balance::LeastLoad => Affinity::Any,
        Balance::Hash(HashBy::User) => match &identity.user {
            Some(user) => key("user", user.as_str()),
            None => Affinity::Any,
        },
        Balance::Hash(HashBy::Header(name)) => {
            asked.header(name).map_or(Affinity::Any, |value| key("header", value))
        }
        Balance::Hash(HashBy::Field(at)) => {
            asked.field(at).map_or(Affinity::Any, |value| key("field", value))
        }
        Balance::Hash(HashBy::Session) => {
            asked.session(&config.sessions).map_or(Affinity::Any, |value| key("session", value))
        }
        Balance::Prefix => match asked.session(&config.sessions) {
            Some(session) => key("session", session),
            None => prefix(&identity.tenant, &target.model, &sent.request),
        },
    }
}

fn prefix(tenant: &TenantId, model: &str, request: &ParsedRequest) -> Affinity {
    let [a, b, c, d, e, f, g, h, ..] = digest(tenant, "prefix", model);
    let Beginnings { first, longer } = request.beginnings(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    Affinity::Prefix(Prefix { home: first, longer })
}

/// Where values are looked for.
struct Request<'a> {
    headers: &'a HeaderMap,
    body: &'a ParsedRequest,
}

impl<'a> Request<'a> {
    fn header(&self, name: &str) -> Option<&'a str> {
        let value = self.headers.get(name)?.to_str().ok()?;
        (1..=VALUE_BYTES_MAX).contains(&value.len()).then_some(value)
    }

    /// A field's JSON text, if it says anything.
    fn field(&self, pointer: &str) -> Option<&'a str> {
        self.body.json(pointer, VALUE_BYTES_MAX).filter(|value| !matches!(*value, "null" | "\"\""))
    }

    fn session(&self, sessions: &Sessions) -> Option<&'a str> {
        let header = sessions.headers.iter().find_map(|name| self.header(name));
        header.or_else(|| sessions.fields.iter().find_map(|pointer| self.field(pointer)))
    }
}

/// Tenants never share one, whatever their values.
fn digest(tenant: &TenantId, kind: &str, value: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    for part in [tenant.as_str(), kind, value] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    *hasher.finalize().as_bytes()
}
