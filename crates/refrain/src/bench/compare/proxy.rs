//! Refrain as child processes: this same binary, with generated configs, on free ports.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

use super::arm::{Arm, Site};
use crate::bench::connect::Connector;
use crate::bench::process::{CpuTime, peak_memory_kib};

/// Until it is ready.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Until it is asked again whether it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// For the removal of what was written into Redis.
const DROP_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of a log is shown when a proxy doesn't start.
const LOG_LINES_SHOWN: usize = 10;
/// Settings in the environment would hold for every set-up.
const VARIABLE_PREFIX: &str = "REFRAIN_";

/// A running proxy, killed when dropped.
pub(super) struct Proxy {
    child: Child,
    data: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
}

/// What a proxy took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// CPU time since its start.
    pub(super) cpu: Duration,
    /// Most memory that it held, in KiB.
    pub(super) memory_kib: u64,
}

impl Proxy {
    /// Starts one and waits until it is ready. `log` takes what it says.
    ///
    /// # Errors
    /// It ended, or isn't ready in time: with the end of its log.
    pub(super) async fn start(
        arm: &Arm,
        site: &Site<'_>,
        config: &Path,
        log: PathBuf,
    ) -> anyhow::Result<Self> {
        let [data, admin] = free_addresses()?;
        std::fs::write(config, arm.config(site, data, admin))?;
        let file = File::create(&log).with_context(|| format!("can't write {}", log.display()))?;
        let child = command()?
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            // Ctrl-C is for the measurement, which then ends them.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("can't start refrain")?;
        let mut proxy = Self { child, data, admin, log };
        timeout(START_TIMEOUT, proxy.ready()).await.unwrap_or_else(|_| Err(proxy.failure("isn't ready")))?;
        Ok(proxy)
    }

    /// Where clients connect.
    pub(super) fn url(&self) -> anyhow::Result<Uri> {
        Ok(format!("http://{}", self.data).parse()?)
    }

    /// What it took so far.
    pub(super) fn usage(&self) -> Option<(CpuTime, u64)> {
        let process = self.child.id()?;
        Some((CpuTime::of(process)?, peak_memory_kib(process)?))
    }

    /// Kills it: nothing that it holds is needed.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let url: Uri = format!("http://{}", self.admin).parse()?;
        let connector = Connector::new(std::slice::from_ref(&url), None)?;
        let mut looks = interval(LOOK_INTERVAL);
        loop {
            looks.tick().await;
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failure(&format!("ended at its start with {status}")));
            }
            if is_ready(&connector, &url, self.admin).await {
                return Ok(());
            }
        }
    }

    fn failure(&self, what: &str) -> anyhow::Error {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
        anyhow::anyhow!("a refrain that was started {what}; {} ends with:\n{end}", self.log.display())
    }
}

async fn is_ready(connector: &Connector, url: &Uri, admin: SocketAddr) -> bool {
    let Ok(mut sender) = connector.connect(url).await else { return false };
    let request = Request::get("/readyz").header(HOST, admin.to_string()).body(Full::<Bytes>::default());
    let Ok(request) = request else { return false };
    sender.send_request(request).await.is_ok_and(|response| response.status() == StatusCode::OK)
}

/// Removes what the proxies of a config wrote into Redis.
///
/// # Errors
/// It could not be removed.
pub(super) async fn drop_store(config: &Path) -> anyhow::Result<()> {
    let mut drop = command()?;
    drop.args(["store", "drop", "--yes", "--config"]).arg(config).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(DROP_TIMEOUT, drop.output()).await.context("Redis takes too long")??;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// This program, without the settings of its environment.
fn command() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    let settings = std::env::vars_os().map(|(name, _)| name);
    for name in settings.filter(|name| name.to_string_lossy().starts_with(VARIABLE_PREFIX)) {
        command.env_remove(name);
    }
    Ok(command)
}

/// Two addresses that were free a moment ago.
fn free_addresses() -> anyhow::Result<[SocketAddr; 2]> {
    let held = [TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?];
    Ok([held[0].local_addr()?, held[1].local_addr()?])
}
