//! One measurement from its first request to its report.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Uri;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::drive::{Extent, Loop, drive};
use super::log::RequestLog;
use super::process::CpuTime;
use super::random::Random;
use super::report::{Report, Setup};
use super::schedule::Schedule;
use super::tally::Tally;
use super::workload::Workload;
use crate::cli::{Arrivals, AskingArguments, LoadArguments, WorkloadArguments};

/// Outcomes that wait to be counted.
const OUTCOMES_MAX: usize = 1024;
/// Conversations at once, where nothing is said.
const CONCURRENCY: u32 = 8;
/// How long, where nothing is said and the workload has no end.
const DURATION: Duration = Duration::from_secs(30);
/// How often a terminal is told.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// What is measured.
pub(super) struct Measurement<'a> {
    pub(super) urls: &'a [Uri],
    pub(super) asking: &'a AskingArguments,
    pub(super) arguments: &'a WorkloadArguments,
    pub(super) load: &'a LoadArguments,
    pub(super) key: Option<&'a str>,
    pub(super) log: Option<&'a Path>,
    /// Raised to end early.
    pub(super) stop: CancellationToken,
}

impl Measurement<'_> {
    /// Sends the workload and reports.
    ///
    /// # Errors
    /// A server can't be reached, or the log not be written. Failed requests are part of the report.
    pub(super) async fn run(&self, workload: Arc<Workload>) -> anyhow::Result<Report> {
        let client = Client::new(self.urls, self.asking, self.key)?;
        client.reach().await?;
        let log = RequestLog::create(self.log)?;
        let started = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let (how, load) = self.how(&workload);
        let cpu = CpuTime::of_this_process();
        let began = Instant::now();
        let tally = self.count(client, workload, how, log).await?;
        let used = CpuTime::of_this_process().zip(cpu).map(|(now, before)| now.since(before));
        let client_cpu = used.map(|used| used.as_secs_f64() / began.elapsed().as_secs_f64().max(0.001));
        let objective = self.load.objective.map(|objective| objective.to_string());
        Ok(Report::new(&tally, self.setup(started, load), objective, client_cpu))
    }

    async fn count(
        &self,
        client: Client,
        workload: Arc<Workload>,
        how: Loop,
        mut log: RequestLog,
    ) -> anyhow::Result<Tally> {
        let start = Instant::now();
        let extent = self.extent(start, &workload);
        let mut tally = Tally::new(extent.from, self.load.objective);
        let (sender, mut outcomes) = mpsc::channel(OUTCOMES_MAX);
        let mut progress = Progress::new(start);
        let driving = drive(client, workload, how, extent, sender, self.stop.clone());
        tokio::pin!(driving);
        let mut undone = None;
        loop {
            tokio::select! {
                over = &mut driving, if undone.is_none() => undone = Some(over),
                done = outcomes.recv() => match done {
                    Some(done) => {
                        tally.add(&done);
                        log.add(start, &done)?;
                    }
                    None => break,
                },
                () = progress.due() => progress.tell(&tally),
            }
        }
        progress.end();
        tally.add_undone(&undone.unwrap_or_default());
        log.finish()?;
        Ok(tally)
    }

    fn extent(&self, start: Instant, workload: &Workload) -> Extent {
        let load = self.load;
        let is_endless = load.requests.is_none() && workload.len().is_none();
        let duration = load.duration.or(is_endless.then_some(DURATION));
        Extent {
            from: start + load.warm_up,
            until: duration.map(|duration| start + duration),
            requests: load.requests.unwrap_or(u64::MAX),
            in_flight: usize::try_from(load.in_flight).unwrap_or(usize::MAX),
            grace: load.grace,
        }
    }

    /// Which loop, and its name.
    fn how(&self, workload: &Workload) -> (Loop, String) {
        let users = self.load.concurrency.unwrap_or(CONCURRENCY);
        let width = usize::try_from(users).unwrap_or(usize::MAX);
        let replays = workload.has_times() && self.load.concurrency.is_none();
        match self.load.rate {
            Some(rate) => {
                let distance = Duration::from_secs_f64(1.0 / rate);
                let random = Random::new(self.arguments.seed, "arrivals", 0);
                let (schedule, word) = match self.load.arrivals {
                    Arrivals::Constant => (Schedule::Constant(distance), "evenly"),
                    Arrivals::Poisson => (Schedule::Poisson(distance, random), "at random"),
                };
                (Loop::Open(schedule, width), format!("open loop, {rate}/s {word}"))
            }
            // A trace's requests come in its order, one session each.
            None if replays => (
                Loop::Open(Schedule::Recorded, 1),
                format!("open loop, as recorded x {}", self.arguments.speed),
            ),
            None => (Loop::Closed(width), format!("closed loop, {users} at once")),
        }
    }

    fn setup(&self, started: String, load: String) -> Setup {
        Setup {
            version: env!("CARGO_PKG_VERSION"),
            debug_build: cfg!(debug_assertions),
            started,
            urls: self.urls.iter().map(|url| url.to_string().trim_end_matches('/').to_owned()).collect(),
            model: self.asking.model.clone().unwrap_or_default(),
            path: self.asking.api.api().path(),
            streamed: !self.asking.whole,
            workload: self.arguments.workload.as_str(),
            seed: self.arguments.seed,
            load,
        }
    }
}

/// A line on the terminal that is written over each second; nothing if stderr isn't one.
struct Progress {
    start: Instant,
    ticks: Option<tokio::time::Interval>,
}

impl Progress {
    fn new(start: Instant) -> Self {
        let ticks = io::stderr().is_terminal().then(|| {
            let mut ticks = interval(PROGRESS_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            ticks
        });
        Self { start, ticks }
    }

    async fn due(&mut self) {
        match &mut self.ticks {
            Some(ticks) => _ = ticks.tick().await,
            None => std::future::pending().await,
        }
    }

    fn tell(&self, tally: &Tally) {
        let second = self.start.elapsed().as_secs();
        let p50 = |times: &super::tally::Times| times.0.value_at_quantile(0.5) / 1000;
        // Nobody is left to tell if stderr is closed.
        let _ = write!(
            io::stderr(),
            "\r\x1b[K{second} s: {} answered, {} failed, p50 {} ms to the first token, {} ms to the end (Ctrl-C ends it)",
            tally.answered,
            tally.failed,
            p50(&tally.all.ttft),
            p50(&tally.all.e2e)
        );
    }

    fn end(&self) {
        if self.ticks.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
