//! Makes agents' requests cacheable without risk: what carries tools is answered only from an identical request, and the
//! line that a client changes with every request no longer makes each one unique.

use std::sync::OnceLock;

use serde::Deserialize;

wit_bindgen::generate!({ path: "wit", world: "policy", generate_all });

use exports::refrain::policy::setup::{About, Grant, MetricLabel};
use exports::refrain::policy::{decide, setup};
use refrain::policy::request;
use refrain::policy::route;
use refrain::policy::types::{RequestSummary, Role};
use refrain::policy::values::{Decision, Edit, EditOp, Plan};

/// Claude Code's attribution: the first block of `system`, such as
/// `x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=sdk-cli; cch=36ee5;`. The `cch` differs in every
/// request, and the end of the version with the first message.
const ATTRIBUTION: &str = "x-anthropic-billing-header:";
/// A block that is longer holds more than such a line.
const LINE_BYTES_MAX: u32 = 1024;
/// System messages stand at the front.
const MESSAGES_READ_MAX: u32 = 4;
/// Each makes up to four edits, of which a plan takes 32.
const LINES_MAX: usize = 4;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Lines that start so are noise.
    drop_lines: Vec<String>,
    /// Whether the upstream is spared them too, so that its prefix cache hits.
    send_upstream: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { drop_lines: vec![ATTRIBUTION.to_owned()], send_upstream: true }
    }
}

impl Config {
    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if config.drop_lines.len() > LINES_MAX {
            return Err(format!("at most {LINES_MAX} drop_lines"));
        }
        if config.drop_lines.iter().any(String::is_empty) {
            return Err("an empty entry of drop_lines would drop every line".to_owned());
        }
        Ok(config)
    }

    fn needs(&self) -> Vec<Grant> {
        match (self.drop_lines.is_empty(), self.send_upstream) {
            (true, _) => vec![],
            (false, false) => vec![Grant::KeyEdit],
            (false, true) => vec![Grant::KeyEdit, Grant::Rewrite],
        }
    }

    fn plan(&self, req: &RequestSummary) -> Plan {
        let mut plan = route::defaults();
        if req.has_tools {
            plan.semantic = None;
        }
        plan.labels.push(("agent".to_owned(), if req.has_tools { "tools" } else { "plain" }.to_owned()));
        for line in &self.drop_lines {
            plan.key.edits.extend(self.edits(req, line));
        }
        plan
    }

    /// Where clients put such a line: Anthropic's `system`, or a system message.
    fn edits(&self, req: &RequestSummary, line: &str) -> Vec<Edit> {
        let edit = |pointer: String, op| Edit { pointer, op, send_upstream: self.send_upstream };
        if is_alone(line) {
            // Some servers refuse a block with an empty text.
            return vec![edit("/system/0".to_owned(), EditOp::Remove)];
        }
        let places = ["/system".to_owned(), "/system/*/text".to_owned()].into_iter();
        let messages = system_message(req).into_iter();
        let messages =
            messages.flat_map(|index| ["", "/*/text"].map(|rest| format!("/messages/{index}/content{rest}")));
        places.chain(messages).map(|place| edit(place, EditOp::DropLinesStarting(line.to_owned()))).collect()
    }
}

/// Whether the first block of `system` is such a line and nothing else.
fn is_alone(line: &str) -> bool {
    let text = request::json("/system/0/text", LINE_BYTES_MAX);
    let text = text.and_then(|json| serde_json::from_str::<String>(&json).ok());
    text.is_some_and(|text| text.starts_with(line) && !text.trim_end().contains('\n'))
}

/// The first system message: a user may well quote such a line, and means it.
fn system_message(req: &RequestSummary) -> Option<u32> {
    let front = 0..req.message_count.min(MESSAGES_READ_MAX);
    front
        .into_iter()
        .find(|index| matches!(request::message_role(*index), Some(Role::System | Role::Developer)))
}

/// An instance is configured once, before any other call.
static CONFIG: OnceLock<Config> = OnceLock::new();

struct AgentSafe;

impl setup::Guest for AgentSafe {
    fn configure(config: String) -> Result<About, String> {
        let config = Config::parse(&config)?;
        let needs = config.needs();
        CONFIG.set(config).map_err(|_| "configured twice")?;
        Ok(About {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            needs,
            metrics: Vec::new(),
            reasons: Vec::new(),
            labels: vec![MetricLabel {
                name: "agent".to_owned(),
                values: vec!["tools".to_owned(), "plain".to_owned()],
            }],
        })
    }
}

impl decide::Guest for AgentSafe {
    fn on_request(req: RequestSummary) -> Decision {
        Decision::Cache(CONFIG.get().expect("configured before the first request").plan(&req))
    }
}

export!(AgentSafe);
