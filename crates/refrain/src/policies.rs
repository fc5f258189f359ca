//! The process's policies: the host that runs them, which is started when a route first has one.

use std::sync::Arc;

use refrain_core::Settings;
use refrain_plugin::{PluginError, PluginHost, PolicyStatus};
use refrain_proxy::{Policies, load_policies};
use tokio::sync::OnceCell;

/// Runs the policies of all configurations, one after the other. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct PolicyRunner {
    host: Arc<OnceCell<Arc<PluginHost>>>,
}

impl PolicyRunner {
    /// Loads what the settings name; what runs already is shared. Takes as long as compiling what is new takes.
    ///
    /// # Errors
    /// A policy can't be loaded, or refuses its configuration.
    ///
    /// # Cancel safety
    /// Safe: what was begun to be compiled is compiled, and there for the next call.
    pub(crate) async fn load(&self, settings: &Settings) -> Result<Policies, PluginError> {
        if settings.routes.iter().all(|route| route.plugins.is_empty()) {
            return Ok(Policies::new());
        }
        let start = || async { PluginHost::start(&settings.plugin_host) };
        let host = self.host.get_or_try_init(start).await?;
        load_policies(host, settings).await
    }

    /// How each policy is.
    pub(crate) fn statuses(&self) -> Vec<PolicyStatus> {
        self.host.get().map(|host| host.policies()).unwrap_or_default()
    }
}
