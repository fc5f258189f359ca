//! Plain data that every stage of Refrain speaks, and the primitives for tracked tasks.
//!
//! Nothing here does input or output, and nothing here knows HTTP status codes, TOML, sockets or vectors:
//! those belong to the crates above. What two crates must agree on lives here, once.

mod api;
mod code;
mod deadline;
mod hex;
mod id;
mod identity;
mod plan;
mod prompt;
mod reason;
pub mod settings;
mod tasks;

pub use api::{Api, Dialect};
pub use code::{Code, Fault, Retry};
pub use deadline::DeadlineTimer;
pub use hex::{hex, unhex};
pub use id::{
    CertificateRuleId, EndpointId, JwtId, KeyId, LimitId, ListenerId, PluginId, PoolId, RouteId, TenantId,
    UserId,
};
pub use identity::{Identity, Role};
pub use plan::{Directives, Edit, EditOp, EmbedSource, Freshness, KeyPart, Plan, Scope, SemanticPlan, Veto};
pub use prompt::{Prompt, Usage};
pub use reason::{Bypass, ExactOnly, Skip};
pub use settings::Settings;
pub use tasks::{Drain, Tasks};
