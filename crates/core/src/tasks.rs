//! Tracked tasks and the drain signal: nothing is spawned that shutdown does not know of.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns tasks that shutdown waits for.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    drain: Drain,
}

/// Tells long-lived loops that the process is shutting down. Cloned freely.
#[derive(Clone, Debug, Default)]
pub struct Drain(CancellationToken);

impl Tasks {
    /// A new, empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns onto the current runtime.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Spawns onto a runtime, from wherever.
    pub fn spawn_on<F>(&self, task: F, runtime: &Handle) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn_on(task, runtime)
    }

    /// The signal that [`Tasks::drain`] raises.
    pub fn draining(&self) -> Drain {
        self.drain.clone()
    }

    /// Number of tasks that have not ended.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether no task is left.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Raises the drain signal and waits until every task has ended; false if `deadline` came first.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the signal raised and the tasks running; call again to go on waiting.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.drain.begin();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

impl Drain {
    /// Raises the signal. Idempotent.
    pub fn begin(&self) {
        self.0.cancel();
    }

    /// Whether the signal is raised.
    pub fn is_draining(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits for the signal.
    ///
    /// # Cancel safety
    /// Safe: dropping the future forgets nothing.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_tasks_until_the_deadline() {
        let tasks = Tasks::new();
        let drain = tasks.draining();
        tasks.spawn(async move { drain.begun().await });
        assert!(tasks.drain(Duration::from_secs(1)).await);

        let stuck = Tasks::new();
        stuck.spawn(std::future::pending::<()>());
        assert!(!stuck.drain(Duration::from_secs(1)).await);
        assert_eq!(stuck.len(), 1);
    }
}
