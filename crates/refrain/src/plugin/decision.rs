//! What policies say, as JSON objects without depth: printed as tables, compared with what a case expects.

use std::time::Duration;

use refrain_core::{Edit, EditOp, EmbedSource, Freshness, KeyPart, Plan, Scope, Veto};
use refrain_plugin::verdict::{
    Bypassed, Decision, Failed, Keep, Labels, Outcome, Planned, Refusal, Upstream, Verdict,
};
use serde_json::{Map, Value, json};

/// What a decision may hold: the keys that a case may expect.
pub(crate) const KEYS: [&str; 28] = [
    "decision",
    "lookup",
    "scope",
    "ttl",
    "stale_while_revalidate",
    "stale_if_error",
    "collapse",
    "store",
    "shadow",
    "semantic",
    "source",
    "threshold",
    "candidates",
    "vetoes",
    "key",
    "edits",
    "pool",
    "model",
    "routing_key",
    "labels",
    "context",
    "reason",
    "status",
    "message",
    "retry_after",
    "error",
    "on_error",
    "policy",
];

/// The same of a verdict about candidates.
pub(super) const VERDICT_KEYS: [&str; 3] = ["accept", "miss", "policy"];

/// The same of an outcome for an answer.
pub(super) const OUTCOME_KEYS: [&str; 11] = [
    "keep",
    "skip",
    "failed",
    "policy",
    "ttl",
    "stale_while_revalidate",
    "stale_if_error",
    "narrow",
    "exact_only",
    "tags",
    "labels",
];

/// A decision about a request.
pub(crate) fn of(decision: &Result<Decision, Failed>) -> Map<String, Value> {
    match decision {
        Ok(Decision::Cache(planned)) => cache(planned),
        Ok(Decision::Bypass(Bypassed { policy, reason, upstream, labels })) => {
            let mut told =
                object(json!({ "decision": "bypass", "reason": &**reason, "policy": policy.as_str() }));
            to_upstream(&mut told, upstream);
            with_labels(&mut told, labels);
            told
        }
        Ok(Decision::Refuse(Refusal { policy, status, message, retry_after_s })) => {
            let mut told = object(json!({
                "decision": "refuse", "status": status, "message": message, "policy": policy.as_str()
            }));
            if let Some(seconds) = retry_after_s {
                told.insert("retry_after".to_owned(), span(Duration::from_secs(u64::from(*seconds))));
            }
            told
        }
        Err(failed) => {
            let (policy, reason, on_error) = match failed {
                Failed::Bypass { policy, reason } => (policy, reason, "bypass"),
                Failed::Reject { policy, reason } => (policy, reason, "reject"),
            };
            object(json!({
                "decision": "error", "error": reason.as_str(), "on_error": on_error, "policy": policy.as_str()
            }))
        }
    }
}

/// A verdict about candidates.
pub(super) fn of_verdict(verdict: &Verdict) -> Map<String, Value> {
    object(match verdict {
        Verdict::Accept(index) => json!({ "accept": index }),
        Verdict::Miss { policy, reason } => json!({ "miss": &**reason, "policy": policy.as_str() }),
    })
}

/// An outcome for an answer.
pub(super) fn of_outcome(outcome: &Outcome) -> Map<String, Value> {
    let Keep { freshness, narrow, exact_only, tags, labels } = match outcome {
        Outcome::Keep(keep) => keep,
        Outcome::Skip { policy, reason } => {
            return object(json!({ "keep": false, "skip": &**reason, "policy": policy.as_str() }));
        }
        Outcome::Failed { policy } => {
            return object(json!({ "keep": false, "failed": true, "policy": policy.as_str() }));
        }
    };
    let mut told = object(json!({ "keep": true, "exact_only": exact_only, "tags": tags }));
    fresh(&mut told, *freshness);
    if let Some(narrow) = narrow {
        told.insert("narrow".to_owned(), scope(narrow));
    }
    with_labels(&mut told, labels);
    told
}

fn cache(planned: &Planned) -> Map<String, Value> {
    let Planned { plan, key_add, edits, upstream, labels, contexts } = planned;
    // What follows from the route alone is not told: `..` is meant.
    let Plan { scope, semantic, freshness, collapse, shadow, store, directives, .. } = plan;
    let lookup = match (directives.no_cache, directives.only_if_cached) {
        (true, _) => "skip",
        (false, true) => "only",
        (false, false) => "normal",
    };
    let mut told = object(json!({
        "decision": "cache",
        "lookup": lookup,
        "scope": self::scope(scope),
        "collapse": collapse,
        "store": store,
        "shadow": shadow,
        "semantic": semantic.is_some(),
        "key": parts(key_add),
    }));
    fresh(&mut told, *freshness);
    if let Some(semantic) = semantic {
        told.insert("source".to_owned(), source(&semantic.source));
        told.insert("threshold".to_owned(), decimal(semantic.threshold));
        told.insert("candidates".to_owned(), json!(semantic.candidates));
        let vetoes: Vec<&str> = semantic.vetoes.iter().map(|veto: &Veto| veto.as_str()).collect();
        told.insert("vetoes".to_owned(), json!(vetoes));
    }
    if !edits.is_empty() {
        told.insert("edits".to_owned(), edits.iter().map(edit).collect());
    }
    to_upstream(&mut told, upstream);
    with_labels(&mut told, labels);
    if let Some(context) = contexts.first().filter(|context| !context.is_empty()) {
        told.insert("context".to_owned(), json!(context));
    }
    told
}

fn fresh(told: &mut Map<String, Value>, freshness: Freshness) {
    let Freshness { ttl, stale_while_revalidate, stale_if_error } = freshness;
    told.insert("ttl".to_owned(), span(ttl));
    let windows = [("stale_while_revalidate", stale_while_revalidate), ("stale_if_error", stale_if_error)];
    for (key, window) in windows.into_iter().filter(|(_, window)| !window.is_zero()) {
        told.insert(key.to_owned(), span(window));
    }
}

fn to_upstream(told: &mut Map<String, Value>, upstream: &Upstream) {
    let Upstream { pool, routing_key, model } = upstream;
    if let Some(pool) = pool {
        told.insert("pool".to_owned(), json!(pool.as_str()));
    }
    if let Some(model) = model {
        told.insert("model".to_owned(), json!(model));
    }
    if !routing_key.is_empty() {
        told.insert("routing_key".to_owned(), parts(routing_key));
    }
}

fn with_labels(told: &mut Map<String, Value>, labels: &Labels) {
    if !labels.is_empty() {
        let labels = labels.iter().map(|(name, value)| (name.clone(), json!(value)));
        told.insert("labels".to_owned(), Value::Object(labels.collect()));
    }
}

/// As config writes it.
fn scope(scope: &Scope) -> Value {
    match scope {
        Scope::User => json!("user"),
        Scope::Tenant => json!("tenant"),
        Scope::Claim(claim) => json!({ "claim": claim }),
        Scope::WithinUser(name) | Scope::UserPart(name) => json!({ "within-user": name }),
        Scope::Shared(name) => json!({ "shared": name }),
    }
}

fn source(source: &EmbedSource) -> Value {
    match source {
        EmbedSource::LastUserMessage => json!("last-user-message"),
        EmbedSource::Span { start, len } => json!({ "span": [start, len] }),
        EmbedSource::AllUserMessages => json!("all-user-messages"),
        EmbedSource::LastMessages(count) => json!({ "last-messages": count }),
        EmbedSource::Text(text) => json!({ "text": text }),
    }
}

/// As the interface names them: `header:x-project`.
fn parts(parts: &[KeyPart]) -> Value {
    let part = |part: &KeyPart| match part {
        KeyPart::Text(text) => format!("text:{text}"),
        KeyPart::Header(name) => format!("header:{name}"),
        KeyPart::Claim(name) => format!("claim:{name}"),
        KeyPart::Message(index) => format!("message:{index}"),
        KeyPart::Json(pointer) => format!("json:{pointer}"),
        KeyPart::Model => "model".to_owned(),
        KeyPart::Sampling => "sampling".to_owned(),
        KeyPart::SystemPrompt => "system-prompt".to_owned(),
        KeyPart::Tools => "tools".to_owned(),
        KeyPart::Messages => "messages".to_owned(),
        KeyPart::History => "history".to_owned(),
    };
    parts.iter().map(part).collect()
}

fn edit(edit: &Edit) -> Value {
    let Edit { pointer, op, send_upstream } = edit;
    let op = match op {
        EditOp::Remove => "remove".to_owned(),
        EditOp::DropLinesStarting(start) => format!("drop-lines-starting:{start}"),
        EditOp::RoundUp(steps) => format!("round-up:{steps:?}"),
    };
    let upstream = if *send_upstream { ", also upstream" } else { "" };
    json!(format!("{pointer} {op}{upstream}"))
}

/// As config writes it.
fn span(span: Duration) -> Value {
    json!(humantime::format_duration(span).to_string().replace(' ', ""))
}

/// Through text: 0.9 as f64 would print as 0.899999976.
fn decimal(number: f32) -> Value {
    json!(number.to_string().parse::<f64>().unwrap_or(f64::from(number)))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// A line a key, in the order of `order`.
pub(crate) fn rows(told: &Map<String, Value>, order: &[&str]) -> Vec<Vec<String>> {
    let value = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    order.iter().filter_map(|key| Some(vec![(*key).to_owned(), value(told.get(*key)?)])).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use refrain_core::settings::RouteCache;
    use refrain_core::{Bypass, Directives, PluginId, SemanticPlan};

    use super::*;

    /// A plan with something of everything.
    pub(crate) fn planned() -> Planned {
        Planned {
            plan: Plan {
                scope: Scope::UserPart("project-1".into()),
                semantic: Some(SemanticPlan {
                    source: EmbedSource::LastUserMessage,
                    threshold: 0.93,
                    candidates: 8,
                    vetoes: vec![Veto::Number, Veto::Date],
                    shadow: false,
                }),
                freshness: Freshness::of_ttl(RouteCache::TTL),
                collapse: true,
                shadow: false,
                store: true,
                store_tool_offers: false,
                entry_bytes_max: 1,
                directives: Directives::default(),
            },
            key_add: vec![KeyPart::Header("x-project".into()), KeyPart::History],
            edits: vec![Edit { pointer: "/seed".into(), op: EditOp::Remove, send_upstream: true }],
            upstream: Upstream::default(),
            labels: vec![("variant".into(), "a".into())],
            contexts: Arc::new([String::new()]),
        }
    }

    #[test]
    fn a_plan_is_told_as_config_would_write_it() {
        let told = of(&Ok(Decision::Cache(Box::new(planned()))));
        let expected = json!({
            "decision": "cache", "lookup": "normal", "scope": { "within-user": "project-1" }, "ttl": "1h",
            "collapse": true, "store": true, "shadow": false, "semantic": true, "source": "last-user-message",
            "threshold": 0.93, "candidates": 8, "vetoes": ["number", "date"], "key": ["header:x-project", "history"],
            "edits": ["/seed remove, also upstream"], "labels": { "variant": "a" },
        });
        assert_eq!(Value::Object(told), expected);
    }

    #[test]
    fn whatever_is_told_can_be_expected() {
        let policy = PluginId::new("p");
        let upstream =
            Upstream { pool: Some("b".into()), routing_key: vec![KeyPart::Model], model: Some("m".into()) };
        let decisions = [
            Ok(Decision::Cache(Box::new(planned()))),
            Ok(Decision::Bypass(Bypassed {
                policy: policy.clone(),
                reason: "r".into(),
                upstream,
                labels: Vec::new(),
            })),
            Ok(Decision::Refuse(Refusal {
                policy: policy.clone(),
                status: 429,
                message: "later".into(),
                retry_after_s: Some(5),
            })),
            Err(Failed::Reject { policy, reason: Bypass::PolicyTrapped }),
        ];
        for decision in decisions {
            let told = of(&decision);
            assert_eq!(rows(&told, &KEYS).len(), told.len(), "{told:?}");
        }
    }
}
