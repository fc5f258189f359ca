//! Serving: the order in which the parts start, and the order in which they stop.
//!
//! Start: config, log, metrics, admin listener (alive, not ready), cache, policies, pools, data workers, ready. Stop: not ready,
//! wait for balancers to see that, drain the data workers, close the store, end the admin listener. A second signal ends the process at once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use refrain_config::{Loaded, Watcher};
use refrain_core::{Drain, Settings, Tasks};
use refrain_proxy::{
    AnswerCache, Live, Policies, RequestTrace, Server, Snapshot, TraceSink, keep_signing_keys,
};
use refrain_upstream::{Client, ClientTls, Upstreams, keep_gpu_use, keep_members, keep_scaling, watch};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::admin::AdminListener;
use crate::cli::ServeArguments;
use crate::control::Control;
use crate::fleet;
use crate::health;
use crate::origin::Origin;
use crate::reload::{self, Reloader, Triggers};
use crate::service::{ServiceManager, Sockets, Sorted};
use crate::signals::{ReloadSignal, StopSignals};
use crate::telemetry::{self, Exporter, Logs};

/// How long the control side's own tasks may take to end.
const CONTROL_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the start waits for what sources of endpoints list.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the start waits for what endpoints say of their models.
const IDENTITIES_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves until told to stop.
///
/// # Errors
/// What is wrong before logging starts; what goes wrong later is logged.
pub(crate) fn serve(arguments: &ServeArguments) -> anyhow::Result<ExitCode> {
    // Before anything else: it changes the environment.
    let sockets = Sockets::take()?;
    let origin = Origin::new(arguments, Origin::file_of_environment())?;
    let loaded = origin.load()?;
    let sockets = sockets.sort(&loaded.settings)?;
    let logs = Logs::start(&loaded.settings.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(run(origin, loaded, sockets, &logs));
    // A drain that was cut short still waits on a thread of the runtime.
    runtime.shutdown_background();
    Ok(ended.unwrap_or_else(|error| {
        tracing::error!(error = format!("{error:#}"), "can't serve");
        ExitCode::FAILURE
    }))
}

/// Finished requests.
type Traces = mpsc::Receiver<Box<RequestTrace>>;

/// The control side: everything but the data workers.
struct Side {
    control: Arc<Control>,
    /// Its tasks; they end after the data side has drained.
    tasks: Tasks,
    /// Told how far it is.
    service: ServiceManager,
}

async fn run(origin: Origin, loaded: Loaded, sockets: Sorted, logs: &Logs) -> anyhow::Result<ExitCode> {
    let mut stop = StopSignals::install().context("signal handlers")?;
    // Before anything that takes time: by default this signal ends the process, and whoever sends it means well.
    let reload = ReloadSignal::install().context("signal handlers")?;
    let (sink, traces) = TraceSink::new();
    let side = Side {
        control: Arc::new(Control::new(telemetry::install()?, logs.lines_dropped(), sink)),
        tasks: Tasks::new(),
        service: ServiceManager::of_environment(),
    };
    let server = tokio::select! {
        server = side.start((origin, loaded, sockets), reload, logs, traces) => server?,
        signal = stop.next() => {
            tracing::info!(signal, "stopped before it was ready");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let signal = stop.next().await;
    tracing::info!(signal, "draining; a second signal stops at once");
    tokio::select! {
        () = side.stop(server) => Ok(ExitCode::SUCCESS),
        signal = stop.next() => {
            tracing::warn!(signal, "stopped with requests in flight");
            Ok(ExitCode::FAILURE)
        }
    }
}

impl Side {
    /// Starts everything; gives the data workers once they accept.
    async fn start(
        &self,
        (origin, loaded, sockets): (Origin, Loaded, Sorted),
        reload: ReloadSignal,
        logs: &Logs,
        traces: Traces,
    ) -> anyhow::Result<Server> {
        let Loaded { settings, warnings, files } = loaded;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let admin = self.start_admin(&settings, sockets.admin).await?;
        let (cache, health) = health::open(&settings).await?;
        let policies = self.control.policies.load(&settings).await?;
        let live = live(settings, cache, &policies, &self.control.traces)?;
        let client = Client::new(ClientTls::native(), self.tasks.clone());
        self.find_members(&live, &client).await;
        // So that the first requests know their models. An Ollama that is away holds the start up no longer than this.
        let upstreams = live.load_full().upstreams.clone();
        if timeout(IDENTITIES_TIMEOUT, upstreams.look_at_all(&client)).await.is_err() {
            tracing::warn!(
                "not every endpoint has told its models yet; requests for them are not cached until it does"
            );
        }
        let server = Server::start(&live, &sockets.data)?;
        self.start_exporter(&live, client.clone(), traces);
        self.start_upkeep(&live, client);
        let (asks, requests) = mpsc::channel(reload::REQUESTS_MAX);
        let triggers = Triggers { watcher: watcher(&origin, files), signal: reload, requests };
        let policies = self.control.policies.clone();
        let tasks = self.tasks.clone();
        let (filter, traces, service) = (logs.filter(), self.control.traces.clone(), self.service.clone());
        let reloader = Reloader { origin, policies, filter, traces, tasks, triggers, service };
        let degraded = health.degraded(live.load().cache.as_deref());
        self.control.ready(live, health, asks);
        self.start_reloader(reloader);
        announce(&server, admin, &degraded);
        self.service.ready();
        let alive = self.service.clone().keep_alive(server.pulses(), self.control.drain.clone());
        let ended = self.tasks.draining();
        self.tasks.spawn(async move {
            tokio::select! {
                () = alive => {}
                () = ended.begun() => {}
            }
        });
        Ok(server)
    }

    async fn start_admin(
        &self,
        settings: &Settings,
        inherited: Option<std::net::TcpListener>,
    ) -> anyhow::Result<Option<SocketAddr>> {
        let Some(admin) = &settings.admin else { return Ok(None) };
        let listener = match inherited {
            Some(socket) => AdminListener::inherit(socket, admin)?,
            None => AdminListener::bind(admin).await?,
        };
        let address = listener.address();
        self.tasks.spawn(listener.run(self.control.clone(), self.tasks.clone(), self.tasks.draining()));
        Ok(Some(address))
    }

    /// Follows the sources of endpoints from now on. So that the first requests find some, the first look is waited for; a
    /// source that is away holds the start up no longer than this.
    async fn find_members(&self, live: &Live, client: &Client) {
        let upstreams = live.load_full().upstreams.clone();
        let (live, client, drain) = (live.clone(), client.clone(), self.tasks.draining());
        self.tasks.spawn(keep_members(move || live.load().upstreams.clone(), client, drain));
        if timeout(MEMBERS_TIMEOUT, upstreams.discoveries().settled()).await.is_err() {
            tracing::warn!(
                "not every source of endpoints has answered yet; its pool has no more than it lists itself"
            );
        }
    }

    fn start_upkeep(&self, live: &Live, client: Client) {
        let (live, drain) = (live.clone(), self.tasks.draining());
        self.tasks.spawn(fleet::keep_proxies(live.clone(), drain.clone()));
        let snapshots = live.clone();
        let signing_keys = keep_signing_keys(move || snapshots.load_full(), client.clone(), drain.clone());
        self.tasks.spawn(signing_keys);
        let current = move || live.load().upstreams.clone();
        self.tasks.spawn(watch(current.clone(), client.clone(), drain.clone()));
        self.tasks.spawn(keep_gpu_use(current.clone(), client, drain.clone()));
        self.tasks.spawn(keep_scaling(current, drain));
        self.tasks.spawn(keep_metrics(self.control.clone(), self.tasks.draining()));
    }

    /// It waits for requests that are still under way once the process drains, so it stops with the tasks.
    fn start_exporter(&self, live: &Live, client: Client, traces: Traces) {
        let exporter = Exporter { live: live.clone(), control: self.control.clone(), client, traces };
        self.tasks.spawn(exporter.run(self.tasks.draining()));
    }

    fn start_reloader(&self, reloader: Reloader) {
        let control = self.control.clone();
        self.tasks.spawn(async move {
            if let Some(running) = control.running() {
                reloader.run(running, control.drain.clone()).await;
            }
        });
    }

    /// Requests are still taken for as long as balancers may need to see that it isn't ready any more.
    async fn leave(&self, server: &Server) {
        server.leave();
        let delay = self.control.running().map(|running| running.live.load().settings.runtime.shutdown_delay);
        sleep(delay.unwrap_or_default()).await;
    }

    /// Not ready first, so that balancers look elsewhere; the admin listener ends last, so that the drain can be seen.
    async fn stop(&self, server: Server) {
        self.service.stopping();
        self.control.drain.begin();
        self.leave(&server).await;
        // Each waits on a thread. What they return is nothing, and a panic was reported where it happened.
        let _ = tokio::task::spawn_blocking(move || server.drain()).await;
        let cache = self.control.running().and_then(|running| running.live.load().cache.clone());
        if let Some(cache) = cache {
            cache.store.leave().await;
            let _ = tokio::task::spawn_blocking(move || cache.store.close()).await;
        }
        self.tasks.drain(CONTROL_DRAIN_TIMEOUT).await;
        tracing::info!("stopped");
    }
}

fn live(
    settings: Settings,
    cache: Option<Arc<AnswerCache>>,
    policies: &Policies,
    traces: &TraceSink,
) -> anyhow::Result<Live> {
    let upstreams = Arc::new(Upstreams::new(&settings.pools)?);
    upstreams.set_proxies(fleet::proxies(&settings, cache.as_deref()));
    let snapshot = Snapshot::build(settings, upstreams, cache, policies, None)?.traced(traces);
    Ok(Arc::new(ArcSwap::from_pointee(snapshot)))
}

/// Watches the config file and what it names. Without it, reloads are still made by signal and admin call.
fn watcher(origin: &Origin, files: Vec<PathBuf>) -> Option<Watcher> {
    origin.config_file()?;
    Watcher::new(files).inspect_err(|error| tracing::warn!("{error}")).ok()
}

/// Folds metrics into their buckets now and then.
async fn keep_metrics(control: Arc<Control>, drain: Drain) {
    let mut ticks = interval(telemetry::UPKEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = drain.begun() => return,
            _ = ticks.tick() => control.recorder.run_upkeep(),
        }
    }
}

fn announce(server: &Server, admin: Option<SocketAddr>, degraded: &[&str]) {
    for (listener, address) in server.addresses() {
        tracing::info!(%listener, %address, "listening");
    }
    let admin = admin.map_or_else(|| "off".to_owned(), |address| address.to_string());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), admin, ?degraded, "ready");
}
