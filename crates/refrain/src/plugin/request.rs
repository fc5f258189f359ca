//! Requests and answers as people write them for a trial.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use refrain_core::{Identity, Role, TenantId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

/// Where a request goes that doesn't say.
const PATH: &str = "/v1/chat/completions";

/// A request to try a policy with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TrialRequest {
    /// Upper case.
    pub(super) method: String,
    /// With its query, if any.
    pub(super) path: String,
    /// Names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    /// As if it were verified.
    pub(super) identity: Identity,
    /// As it came.
    pub(super) body: String,
}

/// Who asks.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Caller {
    tenant: String,
    /// Empty: no verified user.
    user: Option<String>,
    claims: BTreeMap<String, String>,
}

impl Default for Caller {
    fn default() -> Self {
        Self { tenant: "acme".to_owned(), user: Some("ann".to_owned()), claims: BTreeMap::new() }
    }
}

/// An answer in the cache.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredAnswer {
    /// Cosine similarity of its question to the request's.
    pub(super) similarity: f32,
    /// The embedded text of its question.
    #[serde(default)]
    pub(super) source_text: String,
    /// Its text.
    #[serde(default)]
    pub(super) answer: String,
    /// Seconds since it was stored.
    #[serde(default)]
    pub(super) age: u32,
    /// Past its TTL.
    #[serde(default)]
    pub(super) stale: bool,
    /// The answer to this very question.
    #[serde(default)]
    pub(super) exact: bool,
    /// As `on-response` gave them.
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
}

/// An answer that the upstream has just finished.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpstreamAnswer {
    /// Its text.
    pub(super) text: String,
    /// Why it ended.
    #[serde(default = "stop")]
    pub(super) finish_reason: String,
    /// The upstream's status.
    #[serde(default = "ok")]
    pub(super) status: u16,
    /// Whether it ended as it should.
    #[serde(default = "yes")]
    pub(super) complete: bool,
    /// Whether it calls tools.
    #[serde(default)]
    pub(super) tool_calls: bool,
    /// Its headers.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
}

impl UpstreamAnswer {
    /// A whole answer that ended by itself.
    pub(super) fn of_text(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            finish_reason: stop(),
            status: ok(),
            complete: yes(),
            tool_calls: false,
            headers: BTreeMap::new(),
        }
    }
}

fn stop() -> String {
    "stop".to_owned()
}

fn ok() -> u16 {
    200
}

fn yes() -> bool {
    true
}

/// What is written of a request beside its body.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Head {
    pub(super) method: Option<String>,
    pub(super) path: Option<String>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) caller: Caller,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    method: Option<String>,
    path: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    caller: Caller,
    body: Value,
}

/// A JSON file: a whole request if it has a `body`, else the body of a chat.
pub(super) fn read(file: &Path) -> anyhow::Result<TrialRequest> {
    let text = fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    parse(text).with_context(|| format!("{}: not a request", file.display()))
}

fn parse(text: String) -> Result<TrialRequest, serde_json::Error> {
    let value: Value = serde_json::from_str(&text)?;
    if value.get("body").is_none() {
        return Ok(Head::default().with_body(text));
    }
    let Written { method, path, headers, caller, body } = serde_json::from_value(value)?;
    let body = match body {
        Value::String(text) => text,
        body => body.to_string(),
    };
    Ok(Head { method, path, headers, caller }.with_body(body))
}

/// A chat with one message.
pub(super) fn chat(user: &str) -> String {
    json!({ "model": "m", "messages": [{ "role": "user", "content": user }] }).to_string()
}

impl Head {
    /// The request with this body.
    pub(super) fn with_body(self, body: String) -> TrialRequest {
        let Self { method, path, headers, caller } = self;
        let Caller { tenant, user, claims } = caller;
        TrialRequest {
            method: method.map_or_else(|| "POST".to_owned(), |method| method.to_ascii_uppercase()),
            path: path.unwrap_or_else(|| PATH.to_owned()),
            headers: headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect(),
            identity: Identity {
                tenant: TenantId::new(tenant),
                user: user.filter(|user| !user.is_empty()).map(UserId::new),
                claims,
                role: Role::Caller,
            },
            body,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_alone_is_a_chat_of_the_default_caller_and_stays_as_written() {
        let body = r#"{"model":"m", "temperature":0.70}"#;
        let request = parse(body.to_owned()).unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", PATH));
        assert_eq!(request.body, body);
        assert_eq!(request.identity.tenant.as_str(), "acme");
        assert_eq!(request.identity.user.unwrap().as_str(), "ann");
    }

    #[test]
    fn a_whole_request_says_who_asks_what() {
        let text = r#"{ "path": "/api/chat", "headers": { "X-Team": "a" }, "body": { "model": "m" },
                        "caller": { "tenant": "globex", "user": "", "claims": { "team": "b" } } }"#;
        let request = parse(text.to_owned()).unwrap();
        assert_eq!((request.path.as_str(), request.headers["x-team"].as_str()), ("/api/chat", "a"));
        assert_eq!((request.body.as_str(), request.identity.user), (r#"{"model":"m"}"#, None));
        assert_eq!(request.identity.claims["team"], "b");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in ["", "{", r#"{"body":{},"header":{}}"#, r#"{"body":{},"caller":{"name":"x"}}"#] {
            assert!(parse(text.to_owned()).is_err(), "{text}");
        }
    }
}
