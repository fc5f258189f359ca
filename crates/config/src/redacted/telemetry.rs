//! The OpenTelemetry collector.

use refrain_core::settings::{Otlp, ParentContext, PromptLog};
use serde_json::{Value, json};

use super::endpoint;
use crate::text::format_span;

pub(super) fn otlp(otlp: &Otlp) -> Value {
    let Otlp { endpoint, service_name, traces, metrics_interval } = otlp;
    let mut table = endpoint::access(endpoint);
    // What only upstream servers have.
    if let Value::Object(keys) = &mut table {
        keys.retain(|key, _| !matches!(key.as_str(), "weight" | "http_version"));
    }
    table["url"] = json!(endpoint::url(endpoint));
    table["service_name"] = json!(service_name);
    table["traces"] = json!(traces.is_some());
    if let Some(traces) = traces {
        table["sample"] = json!(traces.sample);
        table["trust_parent"] = json!(traces.parent == ParentContext::Followed);
    }
    table["metrics"] = json!(metrics_interval.is_some());
    if let Some(interval) = metrics_interval {
        table["metrics_interval"] = json!(format_span(*interval));
    }
    table
}

pub(super) fn prompt_log(log: Option<&PromptLog>) -> Value {
    let redact = log.map(|PromptLog { redact }| redact.clone()).unwrap_or_default();
    json!({ "prompts": log.is_some(), "redact": redact })
}
