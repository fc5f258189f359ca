//! Sends requests that begin alike to the endpoint that has that beginning in its own prefix cache.
//!
//! It changes only where a miss goes, never what is cached.

use std::sync::OnceLock;

use serde::Deserialize;

wit_bindgen::generate!({ path: "wit", world: "policy", generate_all });

use exports::refrain::policy::{decide, setup};
use refrain::policy::types::{RequestSummary, Role};
use refrain::policy::values::{Decision, KeyPart, Plan};
use refrain::policy::{request, route};

/// Where the first user message is looked for.
const MESSAGES_READ_MAX: u32 = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    by: Prefix,
    /// For `by = "header"`.
    header: String,
    /// A shorter body has too short a prefix to be worth an uneven load.
    body_bytes_min: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { by: Prefix::Conversation, header: String::new(), body_bytes_min: 2048 }
    }
}

/// What requests have in common that belong together.
#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Prefix {
    /// System prompt, tools and first question: all turns of one conversation.
    Conversation,
    /// System prompt and tools: all users of one application.
    System,
    /// The value of a header that names the session.
    Header,
}

impl Config {
    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if (config.by == Prefix::Header) == config.header.is_empty() {
            return Err(r#"`header` belongs to `"by": "header"`"#.to_owned());
        }
        Ok(config)
    }

    fn plan(&self, req: &RequestSummary) -> Plan {
        let mut plan = route::defaults();
        if req.body_size >= self.body_bytes_min {
            plan.upstream.routing_key.extend(self.parts(req));
        }
        plan
    }

    fn parts(&self, req: &RequestSummary) -> Vec<KeyPart> {
        if self.by == Prefix::Header {
            // Without it the pool's own rule is the better one.
            let present = request::header(&self.header).is_some();
            return if present { vec![KeyPart::Header(self.header.clone())] } else { vec![] };
        }
        let mut parts = vec![KeyPart::Model, KeyPart::SystemPrompt, KeyPart::Tools];
        if self.by == Prefix::Conversation {
            parts.extend(first_question(req).map(KeyPart::Message));
        }
        parts
    }
}

fn first_question(req: &RequestSummary) -> Option<u32> {
    let front = 0..req.message_count.min(MESSAGES_READ_MAX);
    front.into_iter().find(|index| request::message_role(*index) == Some(Role::User))
}

/// An instance is configured once, before any other call.
static CONFIG: OnceLock<Config> = OnceLock::new();

struct PrefixAffinity;

impl setup::Guest for PrefixAffinity {
    fn configure(config: String) -> Result<setup::About, String> {
        let config = Config::parse(&config)?;
        CONFIG.set(config).map_err(|_| "configured twice")?;
        Ok(setup::About {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            needs: Vec::new(),
            metrics: Vec::new(),
            reasons: Vec::new(),
            labels: Vec::new(),
        })
    }
}

impl decide::Guest for PrefixAffinity {
    fn on_request(req: RequestSummary) -> Decision {
        Decision::Cache(CONFIG.get().expect("configured before the first request").plan(&req))
    }
}

export!(PrefixAffinity);
