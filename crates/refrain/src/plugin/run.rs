//! `refrain plugin run`: what does a policy decide about this request?

use std::process::ExitCode;

use serde_json::{Map, Value};

use super::rehearse::{Rehearsal, Rehearsed};
use super::{decision, request, trial};
use crate::cli::RunPluginArguments;
use crate::columns::columns;

/// Prints what it decides; fails if it fails.
///
/// # Errors
/// The component, its config or the request can't be used.
pub(super) async fn run(arguments: &RunPluginArguments) -> anyhow::Result<ExitCode> {
    let RunPluginArguments { policy, request, json } = arguments;
    let route = trial::route_of_arguments(policy)?;
    let request = request::read(request)?;
    let rehearsed = Rehearsal::new(&trial::host()?, route).await?.request(&request).await?;
    let is_same_body = rehearsed.upstream_body.as_deref().is_none_or(|body| body == request.body.as_bytes());
    let told = told(&rehearsed, is_same_body);
    crate::print(&if *json { format!("{}\n", Value::Object(told)) } else { table(&told) })?;
    let has_failed = rehearsed.decision.contains_key("error");
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What follows from the decision comes last; the body that the upstream is sent only if it isn't the client's.
fn told(rehearsed: &Rehearsed, is_same_body: bool) -> Map<String, Value> {
    let mut told = rehearsed.decision.clone();
    let mut add = |key: &str, value: Option<Value>| {
        told.extend(value.map(|value| (key.to_owned(), value)));
    };
    add("cache_key", rehearsed.key.clone().map(Value::from));
    add("routing_key_digest", rehearsed.routing_key.clone().map(Value::from));
    let body = rehearsed.upstream_body.as_deref().filter(|_| !is_same_body);
    add("upstream_body", body.map(|body| Value::from(String::from_utf8_lossy(body))));
    add("took_us", Some(Value::from(u64::try_from(rehearsed.took.as_micros()).unwrap_or(u64::MAX))));
    told
}

fn table(told: &Map<String, Value>) -> String {
    let order =
        [&decision::KEYS[..], &["cache_key", "routing_key_digest", "upstream_body", "took_us"]].concat();
    columns(&decision::rows(told, &order))
}
