//! What one data thread has of its own: its upstream connections and its tasks.

use std::sync::Arc;

use refrain_core::{Drain, Tasks};
use refrain_upstream::{Client, ClientTls};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::audit;
use crate::room::BodyMemory;
use crate::snapshot::Live;

/// One data thread's state. Shared by its connections, never with another thread's.
pub(crate) struct Worker {
    /// The configuration in force.
    pub(crate) live: Live,
    /// Upstream connections.
    pub(crate) client: Client,
    /// What all workers' request bodies hold.
    pub(crate) bodies: BodyMemory,
    /// Turns of audits.
    pub(crate) audits: Arc<Semaphore>,
    /// What shutdown waits for.
    pub(crate) tasks: Tasks,
    /// Raised when the process is about to stop: clients are told to connect anew, wherever they are led then.
    pub(crate) leaving: Drain,
    /// Where they run.
    runtime: Handle,
}

impl Worker {
    /// A worker without connections yet, of the current runtime.
    pub(crate) fn new(
        (live, bodies): (Live, BodyMemory),
        tls: ClientTls,
        tasks: Tasks,
        leaving: Drain,
    ) -> Self {
        let client = Client::new(tls, tasks.clone());
        let audits = Arc::new(Semaphore::new(audit::UNDER_WAY_MAX));
        Self { live, client, bodies, audits, tasks, leaving, runtime: Handle::current() }
    }

    /// Spawns a task of this thread, from whichever thread: connections stay with the runtime that opened them.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }
}
