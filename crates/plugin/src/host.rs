//! The host of a process: one engine, one ticker, one compiler; policies are shared over routes and reloads.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use refrain_core::settings::{self, Route};
use refrain_core::{PluginId, RouteId};

use crate::chain::Chain;
use crate::error::PluginError;

/// Runs policies: one for the process.
#[derive(Debug)]
pub struct PluginHost {}

/// What a component is, as `refrain plugin inspect` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Digest of the file: what config may pin.
    pub sha256: [u8; 32],
    /// Bytes of the file.
    pub bytes: usize,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// The hooks that it has.
    pub hooks: Hooks,
    /// How long compiling took; zero if the code was kept.
    pub compile_time: Duration,
}

/// Which hooks a policy has. `on-request` is always there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// `on-candidates`.
    pub validate: bool,
    /// `on-response`.
    pub store: bool,
}

/// How a policy is, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatus {
    /// Which.
    pub plugin: PluginId,
    /// On which route.
    pub route: RouteId,
    /// Digest of its component.
    pub sha256: [u8; 32],
    /// Whether it is asked.
    pub state: PolicyState,
    /// Instances that live.
    pub instances: usize,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// Whether a policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyState {
    /// It is.
    Ready,
    /// It failed too often, and is asked again after this time.
    Quarantined {
        /// From now.
        remaining: Duration,
    },
}

impl PluginHost {
    /// Makes the engine and starts its threads.
    ///
    /// # Errors
    /// [`PluginError::Engine`] if the address space can't be reserved, [`PluginError::CodeDir`] if others may write where
    /// compiled code is kept.
    pub fn start(_settings: &settings::PluginHost) -> Result<Arc<Self>, PluginError> {
        Ok(Arc::new(Self {}))
    }

    /// All policies of a route, in their order, each tried once; none if the route has none.
    ///
    /// # Errors
    /// The first policy that can't be loaded; see [`PluginError`].
    ///
    /// # Cancel safety
    /// Safe: a compilation begun goes on, and its result is kept for the next ask.
    pub async fn chain(self: &Arc<Self>, route: &Route) -> Result<Option<Arc<Chain>>, PluginError> {
        tokio::task::yield_now().await;
        match route.plugins.first() {
            None => Ok(None),
            Some(first) => Err(PluginError::Engine { message: format!("can't run {} yet", first.plugin.id) }),
        }
    }

    /// What a component is, without running it.
    ///
    /// # Errors
    /// As [`PluginHost::chain`].
    ///
    /// # Cancel safety
    /// Safe, as [`PluginHost::chain`].
    pub async fn inspect(self: &Arc<Self>, _bytes: Bytes) -> Result<Inspection, PluginError> {
        tokio::task::yield_now().await;
        Err(PluginError::Engine { message: "can't inspect yet".into() })
    }

    /// Every policy that is in use.
    pub fn policies(&self) -> Vec<PolicyStatus> {
        Vec::new()
    }
}
