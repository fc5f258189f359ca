//! What one data thread has of its own: its upstream connections and its tasks.

use refrain_core::Tasks;
use refrain_upstream::{Client, ClientTls};

use crate::snapshot::Live;

/// One data thread's state. Shared by its connections, never with another thread's.
pub(crate) struct Worker {
    /// The configuration in force.
    pub(crate) live: Live,
    /// Upstream connections.
    pub(crate) client: Client,
    /// What shutdown waits for.
    pub(crate) tasks: Tasks,
}

impl Worker {
    /// A worker without connections yet.
    pub(crate) fn new(live: Live, tls: ClientTls, tasks: Tasks) -> Self {
        Self { live, client: Client::new(tls, tasks.clone()), tasks }
    }
}
