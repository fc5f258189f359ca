//! What the admin listener, the reloader and the shutdown share: how far the process is, and how its reloads went.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use metrics_exporter_prometheus::PrometheusHandle;
use refrain_core::Drain;
use refrain_proxy::{Live, TraceSink};
use tokio::sync::mpsc;

use crate::health::Health;
use crate::policies::PolicyRunner;
use crate::reload;
use crate::telemetry::LinesDropped;

/// The control side's state. Shared by its tasks.
pub(crate) struct Control {
    started: Instant,
    /// Where metrics are collected.
    pub(crate) recorder: PrometheusHandle,
    /// What the log dropped.
    pub(crate) lines_dropped: LinesDropped,
    /// Raised when the process begins to stop.
    pub(crate) drain: Drain,
    /// Where requests tell their spans.
    pub(crate) traces: TraceSink,
    /// Runs policies.
    pub(crate) policies: PolicyRunner,
    running: OnceLock<Running>,
}

/// What exists from the moment of readiness on.
pub(crate) struct Running {
    /// The configuration in force.
    pub(crate) live: Live,
    /// What was found at start.
    pub(crate) health: Health,
    /// How reloads went.
    pub(crate) reloads: ArcSwap<ReloadRecord>,
    /// Asks for a reload.
    pub(crate) reload: mpsc::Sender<reload::Request>,
}

/// How reloads went so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReloadRecord {
    /// Reloads that were applied.
    pub(crate) applied: u64,
    /// Reloads that were refused.
    pub(crate) refused: u64,
    /// Why the last one was refused; empty: it was applied, or there was none.
    pub(crate) problems: Vec<String>,
    /// Settings of the file that wait for a restart.
    pub(crate) restart_needed: Vec<String>,
}

/// How far the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Opening the cache, binding addresses.
    Starting,
    /// Serving.
    Ready,
    /// Finishing what is under way.
    Draining,
}

impl Control {
    /// Starting now.
    pub(crate) fn new(recorder: PrometheusHandle, lines_dropped: LinesDropped, traces: TraceSink) -> Self {
        Self {
            started: Instant::now(),
            recorder,
            lines_dropped,
            traces,
            drain: Drain::default(),
            policies: PolicyRunner::default(),
            running: OnceLock::new(),
        }
    }

    /// Serving from now on. Only the first call counts.
    pub(crate) fn ready(&self, live: Live, health: Health, reload: mpsc::Sender<reload::Request>) {
        let reloads = ArcSwap::from_pointee(ReloadRecord::default());
        let _ = self.running.set(Running { live, health, reloads, reload });
    }

    /// What runs, once it does.
    pub(crate) fn running(&self) -> Option<&Running> {
        self.running.get()
    }

    /// How far the process is.
    pub(crate) fn phase(&self) -> Phase {
        match (self.drain.is_draining(), &self.running.get()) {
            (true, _) => Phase::Draining,
            (false, Some(_)) => Phase::Ready,
            (false, None) => Phase::Starting,
        }
    }

    /// Time since the start.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Running {
    /// Notes how a reload went.
    pub(crate) fn note(&self, result: &Result<reload::Report, reload::Refused>) {
        let mut record = ReloadRecord::clone(&self.reloads.load());
        match result {
            Ok(report) => {
                record.applied += 1;
                record.problems.clear();
                record.restart_needed.clone_from(&report.restart_needed);
            }
            Err(refused) => {
                record.refused += 1;
                record.problems.clone_from(&refused.problems);
            }
        }
        self.reloads.store(Arc::new(record));
    }
}

impl ReloadRecord {
    /// Counts configurations in force: 1 at start.
    pub(crate) fn generation(&self) -> u64 {
        self.applied + 1
    }

    /// Whether the file's last content is in force.
    pub(crate) fn is_successful(&self) -> bool {
        self.problems.is_empty()
    }
}

impl Phase {
    /// The word on the readiness page.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}
