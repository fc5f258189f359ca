//! `refrain bench compare`: one workload before several set-ups of this program, in rounds, and a report about them.
//!
//! Every measurement has fresh proxies and a fresh store, and the same requests in the same order. The words in them differ from
//! measurement to measurement, so that what an upstream's prefix cache keeps of one doesn't help the next.

mod arm;
mod chart;
mod machine;
mod markdown;
mod proxy;
mod summary;
mod versions;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use http::Uri;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::measure::Measurement;
use super::report::Report;
use super::workload::Workload;
use super::{csv, key};
use crate::cli::{CompareArguments, LoadArguments};
use arm::{Arm, Site, Store};
use machine::Machine;
use proxy::{Proxy, Usage, drop_store};
use summary::Row;

/// Requests of a measurement, where nothing is said and the workload has no end.
const REQUESTS: u64 = 300;

/// Measures everything and writes the report.
///
/// # Errors
/// A proxy doesn't start, an upstream can't be reached, a file can't be written.
pub(super) async fn run(arguments: &CompareArguments, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let (arms, left_out) = arm::arms(arguments.redis.is_some(), arguments.upstream.len());
    let comparison = Comparison::prepare(arguments, stop)?;
    let machine = Machine::here(comparison.servers(&arms).await?);
    comparison.wake().await?;
    let (rows, trouble) = comparison.rounds(&arms).await;
    if rows.is_empty() {
        let stopped = || anyhow!("stopped before the first round was over: there is nothing to report");
        return Err(trouble.unwrap_or_else(stopped));
    }
    comparison.write(&arms, &rows, &left_out, &machine)?;
    if let Some(trouble) = trouble {
        return Err(trouble.context("a measurement failed; the report has the rounds before it"));
    }
    let answered = rows.iter().all(|row| row.report.requests.answered > 0);
    Ok(if answered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Comparison<'a> {
    arguments: &'a CompareArguments,
    load: LoadArguments,
    key: Option<String>,
    stop: CancellationToken,
    /// Config files and secrets; removed at the end.
    dir: TempDir,
    logs: PathBuf,
    /// Tells this run's keys in Redis from all others.
    run: u32,
}

impl<'a> Comparison<'a> {
    fn prepare(arguments: &'a CompareArguments, stop: CancellationToken) -> anyhow::Result<Self> {
        let workload = Workload::read(&arguments.asking, &arguments.workload)?;
        let mut load = arguments.load.clone();
        if load.requests.is_none() && load.duration.is_none() && workload.len().is_none() {
            load.requests = Some(REQUESTS);
        }
        let logs = arguments.out.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("can't make {}", logs.display()))?;
        let dir = tempfile::tempdir()?;
        let key = key(&arguments.asking)?;
        if let Some(key) = &key {
            // The folder is this user's alone.
            fs::write(authorization_file(&dir), format!("Bearer {key}"))?;
        }
        Ok(Self { arguments, load, key, stop, dir, logs, run: rand::random() })
    }

    /// Asks each upstream once, so that no set-up pays for the loading of a model.
    async fn wake(&self) -> anyhow::Result<()> {
        let upstreams = &self.arguments.upstream;
        let requests = Some(u64::try_from(upstreams.len())?);
        // One after the other: they take turns.
        let load = LoadArguments {
            concurrency: Some(1),
            rate: None,
            duration: None,
            requests,
            warm_up: Duration::ZERO,
            ..self.load.clone()
        };
        self.ask(upstreams, "wake", (&load, self.key.as_deref())).await.map(drop)
    }

    /// Measures everything. What was measured of whole rounds, and what went wrong, if anything did.
    async fn rounds(&self, arms: &[Arm]) -> (Vec<Row>, Option<anyhow::Error>) {
        let mut rows = Vec::new();
        for round in 0..usize::from(self.arguments.rounds) {
            // Each begins a round in turn: what comes first is not always the same.
            for at in 0..arms.len() {
                let arm = &arms[(at + round) % arms.len()];
                self.tell(round, arm);
                let measured = self.measure(round, arm).await;
                if measured.is_err() || self.stop.is_cancelled() {
                    // Half a round would compare what was not measured alike.
                    rows.retain(|row: &Row| row.round < round);
                    return (rows, measured.err());
                }
                rows.extend(measured);
            }
        }
        (rows, None)
    }

    fn tell(&self, round: usize, arm: &Arm) {
        // Nobody is left to tell if stderr is closed.
        let _ = writeln!(io::stderr(), "round {} of {}: {}", round + 1, self.arguments.rounds, arm.name);
    }

    /// The servers and their versions; they are there if this succeeds.
    async fn servers(&self, arms: &[Arm]) -> anyhow::Result<Vec<String>> {
        let mut servers = Vec::new();
        for url in &self.arguments.upstream {
            let version = versions::of_upstream(url, self.arguments.asking.ca.as_deref()).await?;
            servers.push(format!("upstream {}: {version}", url.authority().map_or("", |name| name.as_str())));
        }
        if let Some(arm) = arms.iter().find(|arm| arm.store == Store::Redis) {
            let config = self.dir.path().join("look.toml");
            let nowhere = ([127, 0, 0, 1], 0).into();
            fs::write(&config, arm.config(&self.site("look")?, nowhere, nowhere))?;
            servers.push(format!("Redis: {}", versions::of_redis(&config).await?));
        }
        Ok(servers)
    }

    /// One measurement, which leaves nothing in Redis also where it fails.
    async fn measure(&self, round: usize, arm: &Arm) -> anyhow::Result<Row> {
        let name = format!("{}-{}", slug(arm.name), round + 1);
        let site = self.site(&name)?;
        let measured = self.measure_at(&site, &name, arm).await;
        if arm.store == Store::Redis {
            let dropped = drop_store(&self.config(&name, 1)).await;
            let left = || format!("keys named {}* may have been left in Redis", site.prefix);
            // What went wrong before matters more.
            if measured.is_ok() {
                dropped.with_context(left)?;
            }
        }
        let (report, used) = measured?;
        Ok(Row { arm: arm.name, round, report, used })
    }

    async fn measure_at(
        &self,
        site: &Site<'_>,
        name: &str,
        arm: &Arm,
    ) -> anyhow::Result<(Report, Option<Vec<Usage>>)> {
        let mut proxies = Vec::new();
        for nth in 1..=self.arguments.proxies {
            let log = self.logs.join(format!("{name}-{nth}.log"));
            let config = self.config(name, nth);
            let started = tokio::select! {
                started = Proxy::start(arm, site, &config, log) => started,
                () = self.stop.cancelled() => Err(anyhow!("stopped while proxies were started")),
            };
            proxies.push(started?);
        }
        let urls = proxies.iter().map(Proxy::url).collect::<Result<Vec<Uri>, _>>()?;
        let before: Vec<_> = proxies.iter().map(Proxy::usage).collect();
        // On loopback the proxies ask for no key, and send the upstream its own.
        let report = self.ask(&urls, name, (&self.load, None)).await?;
        let used = proxies.iter().zip(before).map(|(proxy, before)| used(before, proxy.usage())).collect();
        for proxy in proxies {
            proxy.end().await?;
        }
        Ok((report, used))
    }

    fn config(&self, name: &str, nth: u16) -> PathBuf {
        self.dir.path().join(format!("{name}-{nth}.toml"))
    }

    /// The workload, with words of this measurement's own.
    async fn ask(
        &self,
        urls: &[Uri],
        name: &str,
        (load, key): (&LoadArguments, Option<&str>),
    ) -> anyhow::Result<Report> {
        let salt = blake3::hash(name.as_bytes());
        let salt = u64::from_le_bytes(*salt.as_bytes().first_chunk().unwrap_or(&[0; 8]));
        let workload = Workload::read(&self.arguments.asking, &self.arguments.workload)?.reworded(salt);
        let measurement = Measurement {
            urls,
            asking: &self.arguments.asking,
            arguments: &self.arguments.workload,
            load,
            key,
            log: None,
            stop: self.stop.clone(),
        };
        measurement.run(Arc::new(workload)).await
    }

    fn site(&self, name: &str) -> anyhow::Result<Site<'_>> {
        let absolute = |file: &Path| std::path::absolute(file);
        Ok(Site {
            upstreams: &self.arguments.upstream,
            api: self.arguments.asking.api.api(),
            redis: self.arguments.redis.as_deref(),
            prefix: format!("refrain-bench-{:08x}-{name}", self.run),
            secret_file: self.dir.path().join("cache.secret"),
            authorization_file: self.key.is_some().then(|| authorization_file(&self.dir)),
            ca_file: self.arguments.asking.ca.as_deref().map(absolute).transpose()?,
            proxies: self.arguments.proxies,
        })
    }

    fn write(&self, arms: &[Arm], rows: &[Row], left_out: &[&str], machine: &Machine) -> anyhow::Result<()> {
        let out = &self.arguments.out;
        let names: Vec<_> = arms.iter().map(|arm| arm.name).collect();
        let cells: Vec<_> = rows.iter().map(|row| row.cells(csv::cells(&row.report))).collect();
        super::write(&out.join("results.csv"), &csv::lines(&cells))?;
        for (file, chart) in summary::charts(&names, rows) {
            chart.write(&names, &out.join(file))?;
        }
        let text = markdown::report(self.arguments, &self.load, &names, rows, left_out, machine);
        super::write(&out.join("report.md"), &text)?;
        io::stdout().write_all(markdown::table(&names, rows).as_bytes())?;
        writeln!(io::stdout(), "\n{}", out.join("report.md").display())?;
        Ok(())
    }
}

/// What a proxy took between two looks.
fn used(
    before: Option<(super::process::CpuTime, u64)>,
    after: Option<(super::process::CpuTime, u64)>,
) -> Option<Usage> {
    let ((before, _), (after, memory_kib)) = before.zip(after)?;
    Some(Usage { cpu: after.since(before), memory_kib })
}

fn authorization_file(dir: &TempDir) -> PathBuf {
    dir.path().join("authorization.txt")
}

/// A name for files and keys.
fn slug(name: &str) -> String {
    let letters = name
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' });
    let spread: String = letters.collect();
    spread.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}
