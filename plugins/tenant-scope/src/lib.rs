//! Parts the cache by verified claims of the caller: people of one group share answers, other groups never see them.
//!
//! It only narrows: the route's own scope must be at least as wide as the one that it is to become.

use std::sync::OnceLock;

use serde::Deserialize;

wit_bindgen::generate!({ path: "wit", world: "policy", generate_all });

use exports::refrain::policy::{decide, setup};
use refrain::policy::types::RequestSummary;
use refrain::policy::values::{Bypass, Decision, KeyPart, Plan, Scope, Upstream};
use refrain::policy::{request, route};

const CLAIM_MISSING: &str = "claim_missing";
/// Key parts that a plan takes at most, and so claims.
const CLAIMS_MAX: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// One claim ...
    claim: Option<String>,
    /// ... or several: all must agree.
    #[serde(default)]
    claims: Vec<String>,
    #[serde(default)]
    share: Share,
    #[serde(default)]
    missing: Missing,
}

/// Who shares an answer.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Share {
    /// Everybody of the tenant with the same claims.
    #[default]
    Claim,
    /// The user alone, while the claims stay the same.
    User,
}

/// What becomes of a caller without one of the claims.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Missing {
    /// No cache.
    #[default]
    Bypass,
    /// A cache of the user's own.
    User,
}

/// The configuration, understood.
struct Partition {
    first: String,
    others: Vec<String>,
    share: Share,
    missing: Missing,
}

impl Partition {
    fn parse(config: &str) -> Result<Self, String> {
        let config: Config = serde_json::from_str(config).map_err(|error| error.to_string())?;
        let mut claims = config.claim.into_iter().chain(config.claims);
        let first = claims.next().ok_or(r#"name a claim: {"claim": "groups"}"#)?;
        let others: Vec<_> = claims.collect();
        if others.len() >= CLAIMS_MAX {
            return Err(format!("at most {CLAIMS_MAX} claims"));
        }
        Ok(Self { first, others, share: config.share, missing: config.missing })
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn decide(&self, plan: Plan) -> Decision {
        if self.names().all(|name| request::claim(name).is_some()) {
            return Decision::Cache(self.part(plan));
        }
        match self.missing {
            Missing::User => Decision::Cache(Plan { scope: Scope::User, ..plan }),
            Missing::Bypass => Decision::Bypass(Bypass {
                reason: CLAIM_MISSING.to_owned(),
                upstream: Upstream { pool: None, routing_key: Vec::new(), model: None },
                labels: Vec::new(),
            }),
        }
    }

    fn part(&self, mut plan: Plan) -> Plan {
        // The scope takes one claim; the others, and all of them within a user, are parts of the key.
        let parts: Vec<_> = match self.share {
            Share::Claim => {
                plan.scope = Scope::Claim(self.first.clone());
                self.others.iter().cloned().map(KeyPart::Claim).collect()
            }
            Share::User => {
                plan.scope = Scope::User;
                self.names().cloned().map(KeyPart::Claim).collect()
            }
        };
        plan.key.add.extend(parts);
        plan
    }
}

/// An instance is configured once, before any other call.
static PARTITION: OnceLock<Partition> = OnceLock::new();

struct TenantScope;

impl setup::Guest for TenantScope {
    fn configure(config: String) -> Result<setup::About, String> {
        let partition = Partition::parse(&config)?;
        PARTITION.set(partition).map_err(|_| "configured twice")?;
        Ok(setup::About {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            needs: Vec::new(),
            metrics: Vec::new(),
            reasons: vec![CLAIM_MISSING.to_owned()],
            labels: Vec::new(),
        })
    }
}

impl decide::Guest for TenantScope {
    fn on_request(_: RequestSummary) -> Decision {
        PARTITION.get().expect("configured before the first request").decide(route::defaults())
    }
}

export!(TenantScope);
