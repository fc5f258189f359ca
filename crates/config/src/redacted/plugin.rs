//! Plugins. Of what they are told only they know what is secret, so no text of it is shown.

use refrain_core::settings::{Isolation, OnError, Plugin, PluginHost, PluginLimits, RoutePlugin};
use serde_json::{Value, json};

use super::{REDACTED, size};
use crate::text::format_span;

pub(super) fn host(host: &PluginHost) -> Value {
    let PluginHost { code_dir, instances_max } = host;
    let mut table = json!({ "instances": instances_max });
    if let Some(dir) = code_dir {
        table["code_dir"] = json!(dir);
    }
    table
}

pub(super) fn plugin(plugin: &Plugin) -> Value {
    let Plugin { id: _, file, sha256, grants, on_error, isolation, limits } = plugin;
    let mut table = json!({
        "file": file,
        "grants": grants.iter().map(|grant| grant.as_str()).collect::<Vec<_>>(),
        "on_error": match on_error {
            OnError::Bypass => "bypass",
            OnError::Reject => "reject",
            OnError::Static => "static",
        },
        "isolation": match isolation {
            Isolation::Reuse => "reuse",
            Isolation::Request => "request",
        },
        "limits": self::limits(limits),
    });
    if let Some(digest) = sha256 {
        table["sha256"] = json!(refrain_core::hex(digest));
    }
    table
}

fn limits(limits: &PluginLimits) -> Value {
    let PluginLimits {
        memory_bytes_max,
        instances_max,
        instance_wait,
        calls_max,
        age_max,
        decide_budget,
        store_budget,
        configure_budget,
    } = limits;
    json!({
        "memory": size(*memory_bytes_max),
        "instances": instances_max,
        "instance_wait": format_span(*instance_wait),
        "calls": calls_max,
        "age": format_span(*age_max),
        "decide": format_span(*decide_budget),
        "store": format_span(*store_budget),
        "configure": format_span(*configure_budget),
    })
}

pub(super) fn on_route(on_route: &RoutePlugin) -> Value {
    let RoutePlugin { plugin, config } = on_route;
    let config: Value = serde_json::from_str(config).unwrap_or_default();
    json!({ "plugin": plugin.id.as_str(), "config": without_text(config) })
}

/// Keys, numbers and truth values stay.
fn without_text(value: Value) -> Value {
    match value {
        Value::String(_) => json!(REDACTED),
        Value::Array(items) => items.into_iter().map(without_text).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, without_text(value))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}
