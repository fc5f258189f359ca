//! Reads the configuration again and swaps it in as a whole, or keeps the old one as a whole.
//!
//! One task does it, whoever asks (a changed file, SIGHUP, the admin page), so that reloads never overlap.

use std::path::PathBuf;
use std::sync::Arc;

use refrain_config::Watcher;
use refrain_core::Drain;
use refrain_proxy::{Live, Snapshot};
use tokio::sync::{mpsc, oneshot};
use tracing_subscriber::EnvFilter;

use crate::control::Running;
use crate::origin::Origin;
use crate::restart;
use crate::signals::ReloadSignal;
use crate::telemetry::{self, LogFilter};

/// Admin calls that may wait for a reload.
pub(crate) const REQUESTS_MAX: usize = 4;

/// Asks for a reload, and is told how it went.
pub(crate) type Request = oneshot::Sender<Result<Report, Refused>>;

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// What is allowed but probably not meant.
    pub(crate) warnings: Vec<String>,
    /// Settings that wait for a restart.
    pub(crate) restart_needed: Vec<String>,
}

/// Why the old configuration stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// At least one.
    pub(crate) problems: Vec<String>,
}

/// Who asked for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trigger {
    File,
    Signal,
    Admin,
}

/// The task that reloads.
pub(crate) struct Reloader {
    /// What to read.
    pub(crate) origin: Origin,
    /// Changes what is logged.
    pub(crate) filter: LogFilter,
    /// Tells that files changed; none: they can't be watched, or there are none.
    pub(crate) watcher: Option<Watcher>,
    /// Asks for a reload.
    pub(crate) signal: ReloadSignal,
    /// Asks for a reload.
    pub(crate) requests: mpsc::Receiver<Request>,
}

/// A configuration that was swapped in.
struct Swapped {
    report: Report,
    filter: EnvFilter,
    files: Vec<PathBuf>,
}

impl Reloader {
    /// Reloads whenever asked, until the process drains.
    pub(crate) async fn run(mut self, running: &Running, drain: Drain) {
        loop {
            let (trigger, asker) = tokio::select! {
                () = drain.begun() => return,
                files = changed(&mut self.watcher) => {
                    tracing::info!(?files, "config files changed");
                    (Trigger::File, None)
                }
                () = self.signal.next() => (Trigger::Signal, None),
                Some(asker) = self.requests.recv() => (Trigger::Admin, Some(asker)),
            };
            let result = self.reload(running).await;
            log(trigger, &result);
            running.note(&result);
            if let Some(asker) = asker {
                // Who asked may have hung up.
                let _ = asker.send(result);
            }
        }
    }

    async fn reload(&mut self, running: &Running) -> Result<Report, Refused> {
        let (origin, live) = (self.origin.clone(), running.live.clone());
        let swapped = tokio::task::spawn_blocking(move || swap(&origin, &live)).await;
        let Swapped { report, filter, files } = swapped.map_err(refused)??;
        self.filter.set(filter);
        if let Some(watcher) = &mut self.watcher {
            watcher.watch(files);
        }
        Ok(report)
    }
}

/// Reads, builds, and swaps if all went well. Blocks on files.
fn swap(origin: &Origin, live: &Live) -> Result<Swapped, Refused> {
    let loaded = origin.load().map_err(|errors| Refused { problems: texts(errors.problems()) })?;
    let mut settings = loaded.settings;
    let filter = telemetry::parse(&settings.log.filter).map_err(|error| refused(format!("{error:#}")))?;
    let old = live.load_full();
    let restart_needed = restart::keep_running(&old.settings, &mut settings);
    let upstreams = old.upstreams.reload(&settings.pools).map_err(refused)?;
    let snapshot = Snapshot::build(settings, Arc::new(upstreams), old.cache.clone()).map_err(refused)?;
    live.store(Arc::new(snapshot));
    Ok(Swapped {
        report: Report { warnings: texts(&loaded.warnings), restart_needed },
        filter,
        files: loaded.files,
    })
}

async fn changed(watcher: &mut Option<Watcher>) -> Vec<PathBuf> {
    match watcher {
        Some(watcher) => watcher.changed().await,
        None => std::future::pending().await,
    }
}

fn refused(problem: impl ToString) -> Refused {
    Refused { problems: vec![problem.to_string()] }
}

fn texts(problems: &[refrain_config::Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn log(trigger: Trigger, result: &Result<Report, Refused>) {
    let trigger = trigger.as_str();
    match result {
        Ok(report) => {
            for warning in &report.warnings {
                tracing::warn!(trigger, "{warning}");
            }
            if !report.restart_needed.is_empty() {
                tracing::warn!(trigger, fields = ?report.restart_needed, "restart to apply these; the rest is applied");
            }
            tracing::info!(trigger, "configuration reloaded");
        }
        Err(refused) => {
            for problem in &refused.problems {
                tracing::error!(trigger, "{problem}");
            }
            tracing::error!(trigger, "configuration refused; the old one stays in force");
        }
    }
}

impl Trigger {
    fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Signal => "sighup",
            Self::Admin => "admin",
        }
    }
}
