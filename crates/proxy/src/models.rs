//! Lists of models: merged over the pool's endpoints, with its aliases, and only what the caller may use.
//!
//! Far from the hot path: clients ask for a list when they start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode};
use refrain_core::Code;
use refrain_core::settings::Timeouts;
use refrain_upstream::{Client, EndpointState, PoolState, UpstreamBody, UpstreamError, UpstreamRequest};
use serde_json::{Map, Value};
use tokio::task::JoinSet;

use crate::auth::Entitlements;
use crate::body::Body;
use crate::failure::Failure;
use crate::request::Admitted;
use crate::upstream_headers::{self, Encoding};
use crate::worker::Worker;

/// Longest wait for one endpoint's list: one that hangs must not keep the others' from the client.
const PATIENCE: Duration = Duration::from_secs(5);

/// Endpoints that are asked at once.
const ASKED_AT_ONCE: usize = 16;

/// A longer list is refused.
const LIST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Where a list keeps its items, and how an item is named.
struct Shape {
    items: &'static str,
    name: &'static str,
}

const OPENAI: Shape = Shape { items: "data", name: "id" };
const OLLAMA: Shape = Shape { items: "models", name: "name" };

/// Answers `GET /v1/models`, `/api/tags` or `/api/ps`; to HEAD the same, of which the connection sends the head.
///
/// # Errors
/// The method is another one, or no endpoint gave a list (then the last one's failure).
pub(crate) async fn list(worker: &Worker, admitted: &Admitted) -> Result<Response<Body>, Failure> {
    if !matches!(admitted.routed.head.parts.method, Method::GET | Method::HEAD) {
        let failure = Failure::new(Code::MethodNotAllowed, "a list of models takes GET");
        return Err(failure.with_allowed("GET, HEAD"));
    }
    let shape = if admitted.routed.head.path().starts_with("/api/") { OLLAMA } else { OPENAI };
    let mut merged: Option<Map<String, Value>> = None;
    let mut failed = Failure::upstream(Code::UpstreamBroken);
    for some in admitted.state().pool.endpoints().chunks(ASKED_AT_ONCE) {
        for listed in fetch_all(worker, admitted, some).await? {
            match listed {
                Ok(list) => merge(&mut merged, list, &shape),
                Err(failure) => failed = failure,
            }
        }
    }
    let Some(mut list) = merged else { return Err(failed) };
    add_aliases(&mut list, &admitted.state().pool.config().models, &shape);
    keep_entitled(&mut list, &admitted.caller.entitlements, &admitted.state().pool.config().models, &shape);
    let mut response = Response::new(Body::full(Bytes::from(Value::Object(list).to_string())));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

type Fetched = Result<Map<String, Value>, Failure>;

/// What each of these says, in their order.
async fn fetch_all(
    worker: &Worker,
    admitted: &Admitted,
    endpoints: &[Arc<EndpointState>],
) -> Result<Vec<Fetched>, Failure> {
    let mut asked = JoinSet::new();
    for (place, endpoint) in endpoints.iter().enumerate() {
        let mut request = upstream_headers::request(admitted, Encoding::Identity, UpstreamBody::empty())?;
        request.method = Method::GET;
        let Timeouts { connect: _, first_byte, idle, total } = &mut request.timeouts;
        for timeout in [first_byte, idle, total] {
            *timeout = PATIENCE.min(*timeout);
        }
        let (client, pool, endpoint) =
            (worker.client.clone(), admitted.state().pool.clone(), endpoint.clone());
        asked.spawn(async move { (place, fetch(&client, &pool, &endpoint, request).await) });
    }
    let mut fetched = Vec::new();
    while let Some(one) = asked.join_next().await {
        fetched.extend(one);
    }
    fetched.sort_by_key(|(place, _)| *place);
    Ok(fetched.into_iter().map(|(_, fetched)| fetched).collect())
}

async fn fetch(
    client: &Client,
    pool: &Arc<PoolState>,
    endpoint: &Arc<EndpointState>,
    request: UpstreamRequest,
) -> Fetched {
    let read = async {
        let response = client.send_to(pool, endpoint, request).await?;
        let is_ok = response.status == StatusCode::OK;
        Ok::<_, UpstreamError>((is_ok, response.body.collect(LIST_BYTES_MAX).await?))
    };
    match read.await {
        Ok((true, body)) => match serde_json::from_slice(&body) {
            Ok(Value::Object(list)) => Ok(list),
            _ => Err(Failure::upstream(Code::UpstreamBroken)),
        },
        Ok((false, _)) => Err(Failure::upstream(Code::UpstreamBroken)),
        Err(error) => Err(error.into()),
    }
}

/// Adds the items whose names are new. The first endpoint's other fields stand.
fn merge(merged: &mut Option<Map<String, Value>>, list: Map<String, Value>, shape: &Shape) {
    let Some(merged) = merged else {
        *merged = Some(list);
        return;
    };
    let Some(Value::Array(new)) = list.get(shape.items) else { return };
    let known = merged.entry(shape.items).or_insert_with(|| Value::Array(Vec::new()));
    let Value::Array(known) = known else { return };
    for item in new {
        if !known.iter().any(|other| name(other, shape) == name(item, shape)) {
            known.push(item.clone());
        }
    }
}

/// Lists each alias beside the model that it stands for.
fn add_aliases(list: &mut Map<String, Value>, aliases: &BTreeMap<String, String>, shape: &Shape) {
    let Some(Value::Array(items)) = list.get_mut(shape.items) else { return };
    for (alias, model) in aliases {
        let real = items.iter().find(|item| name(item, shape) == Some(model));
        let Some(Value::Object(mut item)) = real.cloned() else { continue };
        for field in [shape.name, "model"] {
            if item.contains_key(field) {
                item.insert(field.to_owned(), Value::String(alias.clone()));
            }
        }
        items.push(Value::Object(item));
    }
}

/// Keeps the models that the caller may ask for, by the name that is listed or by what it stands for.
fn keep_entitled(
    list: &mut Map<String, Value>,
    entitlements: &Entitlements,
    aliases: &BTreeMap<String, String>,
    shape: &Shape,
) {
    if !entitlements.limit_models() {
        return;
    }
    let may_ask = |name: &str| {
        let real = aliases.get(name).map_or(name, String::as_str);
        entitlements.allow_model(&[name, real])
    };
    // llama.cpp lists its model under both names.
    for items in [shape.items, OLLAMA.items, OPENAI.items] {
        if let Some(Value::Array(items)) = list.get_mut(items) {
            items.retain(|item| name(item, shape).or_else(|| name(item, &OLLAMA)).is_some_and(may_ask));
        }
    }
}

fn name<'a>(item: &'a Value, shape: &Shape) -> Option<&'a str> {
    item.get(shape.name)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn lists_are_merged_by_name_with_aliases_and_filtered_by_entitlement() {
        let mut merged = None;
        merge(&mut merged, object(json!({"object": "list", "data": [{"id": "a"}, {"id": "b"}]})), &OPENAI);
        merge(&mut merged, object(json!({"data": [{"id": "b"}, {"id": "c", "x": 1}]})), &OPENAI);
        let mut list = merged.unwrap();
        add_aliases(&mut list, &[("fast".to_owned(), "c".to_owned())].into(), &OPENAI);
        assert_eq!(
            Value::Object(list.clone()),
            json!({"object": "list", "data": [{"id": "a"}, {"id": "b"}, {"id": "c", "x": 1}, {"id": "fast", "x": 1}]})
        );
        keep_entitled(
            &mut list,
            &Entitlements::new(None, &["fast".to_owned()], &[]),
            &BTreeMap::new(),
            &OPENAI,
        );
        assert_eq!(list["data"], json!([{"id": "fast", "x": 1}]));
    }

    #[test]
    fn a_second_list_of_the_same_models_is_filtered_too() {
        let mut list = object(json!({"data": [{"id": "a"}], "models": [{"name": "a"}, {"name": "b"}]}));
        keep_entitled(&mut list, &Entitlements::new(None, &["b".to_owned()], &[]), &BTreeMap::new(), &OPENAI);
        assert_eq!(Value::Object(list), json!({"data": [], "models": [{"name": "b"}]}));
    }
}
