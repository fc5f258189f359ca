//! What this policy is for.

use std::sync::OnceLock;

use serde::Deserialize;

wit_bindgen::generate!({ path: "wit", world: "policy", generate_all });

use exports::refrain::policy::{decide, setup};
use refrain::policy::types::RequestSummary;
use refrain::policy::values::{Bypass, Decision, KeyPart, Plan};
use refrain::policy::{request, route};

/// Every reason that a decision may give is declared in `about`.
const TIME_SENSITIVE: &str = "time_sensitive";
const QUESTION_BYTES_MAX: u32 = 2048;

/// What the operator says: `config = { ttl_s = 600 }` in `[plugin.NAME]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    ttl_s: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { ttl_s: 600 }
    }
}

/// An instance is configured once, before any other call.
static CONFIG: OnceLock<Config> = OnceLock::new();

struct Policy;

impl setup::Guest for Policy {
    /// Called for each new instance. An error refuses the configuration.
    fn configure(config: String) -> Result<setup::About, String> {
        let config = serde_json::from_str(&config).map_err(|error| error.to_string())?;
        CONFIG.set(config).map_err(|_| "configured twice")?;
        Ok(setup::About {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            needs: vec![],
            metrics: vec![],
            reasons: vec![TIME_SENSITIVE.to_owned()],
            labels: vec![],
        })
    }
}

impl decide::Guest for Policy {
    /// Called once a request. The route's own plan is the start: take it, and change what the policy is about.
    fn on_request(req: RequestSummary) -> Decision {
        let config = CONFIG.get().expect("configured before the first request");
        let mut plan: Plan = route::defaults();
        if question(&req).to_lowercase().contains("today") {
            return Decision::Bypass(Bypass {
                reason: TIME_SENSITIVE.to_owned(),
                upstream: plan.upstream,
                labels: plan.labels,
            });
        }
        // Named, not copied: Refrain reads the header itself.
        plan.key.add.push(KeyPart::Header("x-project".to_owned()));
        plan.fresh.ttl_s = plan.fresh.ttl_s.min(config.ttl_s);
        Decision::Cache(plan)
    }
}

/// The last message.
fn question(req: &RequestSummary) -> String {
    let last = req.message_count.checked_sub(1);
    last.and_then(|index| request::message_text(index, QUESTION_BYTES_MAX)).unwrap_or_default()
}

export!(Policy);
