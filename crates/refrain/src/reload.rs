//! Reads the configuration again and swaps it in as a whole, or keeps the old one as a whole.
//!
//! One task does it, whoever asks (a changed file, SIGHUP, the admin page), so that reloads never overlap.

use std::path::PathBuf;
use std::sync::Arc;

use refrain_config::{Loaded, Watcher};
use refrain_core::{Drain, Settings, Tasks};
use refrain_proxy::{Live, Policies, Snapshot, TraceSink};
use tokio::sync::{mpsc, oneshot};
use tracing_subscriber::EnvFilter;

use crate::control::Running;
use crate::fleet;
use crate::origin::Origin;
use crate::policies::PolicyRunner;
use crate::restart;
use crate::service::ServiceManager;
use crate::signals::ReloadSignal;
use crate::store_change::{self, NewCache};
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
    /// Runs policies.
    pub(crate) policies: PolicyRunner,
    /// Changes what is logged.
    pub(crate) filter: LogFilter,
    /// Where requests tell their spans.
    pub(crate) traces: TraceSink,
    /// Where what a reload leaves behind is put away.
    pub(crate) tasks: Tasks,
    /// Asks for a reload.
    pub(crate) triggers: Triggers,
    /// Told of it.
    pub(crate) service: ServiceManager,
}

/// Who may ask for a reload.
pub(crate) struct Triggers {
    /// Tells that files changed; none: they can't be watched, or there are none.
    pub(crate) watcher: Option<Watcher>,
    /// SIGHUP.
    pub(crate) signal: ReloadSignal,
    /// The admin page.
    pub(crate) requests: mpsc::Receiver<Request>,
}

/// A reload that was asked for, perhaps by several.
struct Asked {
    trigger: Trigger,
    /// Who wants to be told how it went.
    askers: Vec<Request>,
}

/// A configuration that is ready to be swapped in.
struct Prepared {
    loaded: Loaded,
    filter: EnvFilter,
    policies: Policies,
    /// Where the store changes.
    cache: Option<NewCache>,
}

impl Reloader {
    /// Reloads whenever asked, until the process drains.
    pub(crate) async fn run(mut self, running: &Running, drain: Drain) {
        tokio::select! {
            // First: once the service manager was told of the end, it is told of nothing else.
            biased;
            () = drain.begun() => {}
            () = self.serve(running) => {}
        }
    }

    async fn serve(&mut self, running: &Running) {
        loop {
            let mut asked = self.triggers.next().await;
            self.service.reloading();
            let result = match self.prepared(running, &mut asked).await {
                Ok(prepared) => self.swap(running, prepared).await,
                Err(refused) => Err(refused),
            };
            log(asked.trigger, &result);
            running.note(&result);
            match result {
                Ok(_) => self.service.ready(),
                Err(_) => self.service.refused(),
            }
            for asker in asked.askers {
                // Who asked may have hung up.
                let _ = asker.send(result.clone());
            }
        }
    }

    /// Reads the configuration and loads its policies. Compiling one takes long: who asks meanwhile has the files read anew
    /// at once, and what is being compiled is compiled once.
    async fn prepared(&mut self, running: &Running, asked: &mut Asked) -> Result<Prepared, Refused> {
        loop {
            tokio::select! {
                prepared = prepare(self.origin.clone(), self.policies.clone(), running) => return prepared,
                newer = self.triggers.next() => {
                    self.service.reloading();
                    asked.join(newer);
                }
            }
        }
    }

    async fn swap(&mut self, running: &Running, prepared: Prepared) -> Result<Report, Refused> {
        let Prepared { loaded, filter, policies, cache } = prepared;
        let Loaded { settings, warnings, files } = loaded;
        let (live, traces) = (running.live.clone(), self.traces.clone());
        let former = cache.is_some().then(|| live.load().cache.clone()).flatten();
        let swapped =
            tokio::task::spawn_blocking(move || swap(&live, settings, &policies, cache, &traces)).await;
        let restart_needed = swapped.map_err(refused)??;
        if let Some(former) = former {
            self.tasks.spawn(store_change::retire(former));
        }
        self.filter.set(filter);
        if let Some(watcher) = &mut self.triggers.watcher {
            watcher.watch(files);
        }
        Ok(Report { warnings: texts(&warnings), restart_needed })
    }
}

impl Triggers {
    /// # Cancel safety
    /// Safe: a change of files that was not reported yet is reported by the next call.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            files = changed(&mut self.watcher) => {
                tracing::info!(?files, "config files changed");
                Asked { trigger: Trigger::File, askers: Vec::new() }
            }
            () = self.signal.next() => Asked { trigger: Trigger::Signal, askers: Vec::new() },
            Some(asker) = self.requests.recv() => Asked { trigger: Trigger::Admin, askers: vec![asker] },
        }
    }
}

impl Asked {
    fn join(&mut self, newer: Self) {
        self.trigger = newer.trigger;
        self.askers.extend(newer.askers);
    }
}

async fn prepare(origin: Origin, runner: PolicyRunner, running: &Running) -> Result<Prepared, Refused> {
    let read = tokio::task::spawn_blocking(move || read(&origin)).await;
    let (loaded, filter) = read.map_err(refused)??;
    let policies = runner.load(&loaded.settings).await.map_err(refused)?;
    let snapshot = running.live.load_full();
    let cache = store_change::prepare(&snapshot, &loaded.settings).await;
    let cache = cache.map_err(|error| refused(format!("store: {error:#}")))?;
    Ok(Prepared { loaded, filter, policies, cache })
}

/// Blocks on files.
fn read(origin: &Origin) -> Result<(Loaded, EnvFilter), Refused> {
    let loaded = origin.load().map_err(|errors| Refused { problems: texts(errors.problems()) })?;
    let filter = telemetry::parse(&loaded.settings.log.filter);
    Ok((loaded, filter.map_err(|error| refused(format!("{error:#}")))?))
}

/// Builds, and swaps if all went well; gives the settings that wait for a restart. Blocks on certificate files.
fn swap(
    live: &Live,
    mut settings: Settings,
    policies: &Policies,
    cache: Option<NewCache>,
    traces: &TraceSink,
) -> Result<Vec<String>, Refused> {
    let old = live.load_full();
    let restart_needed = restart::keep_running(&old.settings, &mut settings);
    let upstreams = old.upstreams.reload(&settings.pools).map_err(refused)?;
    let cache = cache.unwrap_or_else(|| old.cache.clone());
    let snapshot =
        Snapshot::build(settings, Arc::new(upstreams), cache, policies, Some(&old)).map_err(refused)?;
    let snapshot = snapshot.traced(traces);
    snapshot.upstreams.set_proxies(fleet::proxies(&snapshot.settings, snapshot.cache.as_deref()));
    snapshot.upstreams.take_effect();
    live.store(Arc::new(snapshot));
    Ok(restart_needed)
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
