//! What policies answer, in plain types: whatever the version of the interface, clamped to the operator's bounds and
//! merged over the policies of a route.

use std::sync::Arc;

use refrain_core::{Edit, Freshness, KeyPart, Plan, PluginId, PoolId, Scope};

/// Names and values for the access log.
pub type Labels = Vec<(String, String)>;

/// What all policies of a route decide about a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Look it up, and store its answer.
    Cache(Box<Planned>),
    /// Neither.
    Bypass(Bypassed),
    /// An error for the client.
    Refuse(Refusal),
}

/// How a request meets the cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The route's plan as policies changed it: within the operator's bounds.
    pub plan: Plan,
    /// Key parts that policies add, in the order of the policies.
    pub key_add: Vec<KeyPart>,
    /// Edits of the body, in the order of the policies. Only granted ones.
    pub edits: Vec<Edit>,
    /// Where a miss goes.
    pub upstream: Upstream,
    /// For the log, in the order of the policies.
    pub labels: Labels,
    /// What each policy wants to be told in its later hooks; one for each policy of the route.
    pub contexts: Contexts,
}

/// One text a policy of the route, in their order.
pub type Contexts = Arc<[String]>;

/// A request that policies keep out of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bypassed {
    /// Which policy said so.
    pub policy: PluginId,
    /// A reason that it declared, or "undeclared".
    pub reason: Arc<str>,
    /// Where it goes.
    pub upstream: Upstream,
    /// For the log.
    pub labels: Labels,
}

/// What policies say of a miss's way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// None: the route's own.
    pub pool: Option<PoolId>,
    /// Empty: the pool's own rule.
    pub routing_key: Vec<KeyPart>,
    /// None: as the client asked.
    pub model: Option<String>,
}

/// An error that a policy wants the client to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which policy said so.
    pub policy: PluginId,
    /// 400 to 499, or 503.
    pub status: u16,
    /// At most 1 KiB.
    pub message: String,
    /// For `Retry-After`.
    pub retry_after_s: Option<u32>,
}

/// A stored answer that may be served, as `on-candidates` is told it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Cosine similarity; 1 if exact.
    pub similarity: f32,
    /// The answer to this very question.
    pub exact: bool,
    /// Since it was stored.
    pub age_s: u32,
    /// Past its TTL.
    pub stale: bool,
    /// The embedded text of the stored question; empty if none. Cut by the host.
    pub source_text: String,
    /// The model that answered.
    pub model: String,
    /// As `on-response` gave them.
    pub labels: Labels,
}

/// What policies say of the candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Serve this one: an index into the list.
    Accept(usize),
    /// Serve none.
    Miss {
        /// Which policy said so.
        policy: PluginId,
        /// A reason that it declared, or "undeclared"; "failed" if it failed.
        reason: Arc<str>,
    },
}

/// What policies say of a finished answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Store it so.
    Keep(Keep),
    /// Don't store it.
    Skip {
        /// Which policy said so.
        policy: PluginId,
        /// A reason that it declared, or "undeclared".
        reason: Arc<str>,
    },
    /// Don't store it: a policy failed.
    Failed {
        /// Which.
        policy: PluginId,
    },
}

/// How an answer is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Keep {
    /// Never longer than the plan's.
    pub freshness: Freshness,
    /// Narrower than the plan's scope; none: that.
    pub narrow: Option<Scope>,
    /// No candidate for similar questions.
    pub exact_only: bool,
    /// For purging.
    pub tags: Vec<String>,
    /// Handed to `on-candidates` with the entry.
    pub labels: Labels,
}

/// How policies fail a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It is passed through, neither looked up nor stored: `on_error = "bypass"`.
    Bypass {
        /// Which policy failed.
        policy: PluginId,
        /// How.
        reason: refrain_core::Bypass,
    },
    /// It is refused: `on_error = "reject"`.
    Reject {
        /// Which policy failed.
        policy: PluginId,
        /// How.
        reason: refrain_core::Bypass,
    },
}
