//! Cache policies: which there are, what they may do, and their bounds.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::PluginId;

/// A policy: a WebAssembly component that decides about caching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// Its name in config.
    pub id: PluginId,
    /// The component.
    pub file: PathBuf,
    /// SHA-256 that the file must have; none: any.
    pub sha256: Option<[u8; 32]>,
    /// What it may do beside tightening.
    pub grants: BTreeSet<Grant>,
    /// What becomes of a request where it fails.
    pub on_error: OnError,
    /// How long an instance lives.
    pub isolation: Isolation,
    /// Its bounds.
    pub limits: PluginLimits,
}

/// What an operator may allow a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grant {
    /// Scopes wider than the route's.
    SharedScope,
    /// Refusing requests.
    Refuse,
    /// Leaving things out of the key, and embed sources that compare less exactly.
    KeyEdit,
    /// Sending edited requests upstream.
    Rewrite,
    /// Choosing a pool.
    Pool,
    /// State that outlives a call.
    State,
    /// The embedder.
    Embed,
}

impl Grant {
    /// Every grant.
    pub const ALL: [Self; 7] =
        [Self::SharedScope, Self::Refuse, Self::KeyEdit, Self::Rewrite, Self::Pool, Self::State, Self::Embed];

    /// The name in config and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SharedScope => "shared-scope",
            Self::Refuse => "refuse",
            Self::KeyEdit => "key-edit",
            Self::Rewrite => "rewrite",
            Self::Pool => "pool",
            Self::State => "state",
            Self::Embed => "embed",
        }
    }

    /// Whether a failing policy that has it must not be passed over: what it decides protects somebody.
    pub fn guards(self) -> bool {
        !matches!(self, Self::State | Self::Embed)
    }
}

/// What becomes of a request whose policy fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnError {
    /// It is passed through: neither looked up nor stored.
    Bypass,
    /// It is refused with 503.
    Reject,
    /// The route's own plan holds, as if the policy were not there.
    Static,
}

/// How long an instance of a policy lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Over many requests, until it is replaced.
    #[default]
    Reuse,
    /// For the hooks of one request: nothing that a request leaves in its memory is there for the next.
    Request,
}

/// Bounds of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginLimits {
    /// Linear memory of an instance, all its memories together.
    pub memory_bytes_max: usize,
    /// Instances on one route at a time.
    pub instances_max: usize,
    /// How long a call waits for one.
    pub instance_wait: Duration,
    /// Calls that an instance serves before it is replaced.
    pub calls_max: u64,
    /// Age at which it is replaced.
    pub age_max: Duration,
    /// Computing time of `on-request` and of `on-candidates`.
    pub decide_budget: Duration,
    /// Computing time of `on-response`.
    pub store_budget: Duration,
    /// Computing time of `configure`.
    pub configure_budget: Duration,
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 64 * 1024 * 1024,
            instances_max: 16,
            instance_wait: Duration::from_millis(20),
            calls_max: 100_000,
            age_max: Duration::from_secs(600),
            decide_budget: Duration::from_millis(5),
            store_budget: Duration::from_millis(50),
            configure_budget: Duration::from_secs(1),
        }
    }
}

/// What runs policies: one for the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginHost {
    /// Where compiled code is kept: only this process's user may write there. None: nowhere, every start compiles.
    pub code_dir: Option<PathBuf>,
    /// Instances of all policies together.
    pub instances_max: usize,
}

impl Default for PluginHost {
    fn default() -> Self {
        Self { code_dir: None, instances_max: 128 }
    }
}

/// A policy on a route.
#[derive(Clone, PartialEq, Eq)]
pub struct RoutePlugin {
    /// Which.
    pub plugin: Arc<Plugin>,
    /// What it is told, as JSON: an object. May hold secrets: never printed.
    pub config: String,
}

impl fmt::Debug for RoutePlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoutePlugin").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}
