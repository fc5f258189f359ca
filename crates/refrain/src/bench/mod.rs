//! `refrain bench`: how fast answers come, and how many come from the cache. Measures any server that speaks one of the APIs.
//!
//! It sends a [`workload`] in an open or closed loop ([`drive`]), reads the streams as they come ([`client`]) and sums up
//! ([`tally`], [`report`]). It measures what clients see: what happens within a proxy or a server is for their own metrics.

mod cache_status;
mod client;
mod compare;
mod connect;
mod csv;
mod drive;
mod log;
mod measure;
mod objective;
mod outcome;
mod process;
mod random;
mod report;
mod schedule;
mod table;
mod tally;
mod workload;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use refrain_core::Tasks;
use tokio_util::sync::CancellationToken;

use crate::cli::{AskingArguments, BenchArguments, BenchCommand};
use crate::signals::StopSignals;
use measure::Measurement;
pub(crate) use objective::Objective;
use report::Report;
use workload::Workload;

/// Holds the API key, unless a file does.
const KEY_VARIABLE: &str = "REFRAIN_API_KEY";

/// Measures or compares.
///
/// # Errors
/// A file can't be read or written, a server can't be reached.
pub(crate) fn run(arguments: &BenchArguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match &arguments.command {
            None => measure(arguments).await,
            Some(BenchCommand::Compare(arguments)) => compare::run(arguments, stop_by_signal()?).await,
        }
    })
}

async fn measure(arguments: &BenchArguments) -> anyhow::Result<ExitCode> {
    let workload = Arc::new(Workload::read(&arguments.asking, &arguments.workload)?);
    let key = key(&arguments.asking)?;
    let measurement = Measurement {
        urls: &arguments.url,
        asking: &arguments.asking,
        arguments: &arguments.workload,
        load: &arguments.load,
        key: key.as_deref(),
        log: arguments.log.as_deref(),
        stop: stop_by_signal()?,
    };
    let report = measurement.run(workload).await?;
    if let Some(file) = &arguments.json {
        write(file, &(serde_json::to_string_pretty(&report)? + "\n"))?;
    }
    if let Some(file) = &arguments.csv {
        write(file, &csv::lines(&[csv::cells(&report)]))?;
    }
    io::stdout().write_all(table::page(&report).as_bytes())?;
    Ok(verdict(&report))
}

/// A measurement of failures alone has failed.
fn verdict(report: &Report) -> ExitCode {
    if report.requests.answered > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The API key, if there is one.
fn key(asking: &AskingArguments) -> anyhow::Result<Option<String>> {
    let key = match &asking.key_file {
        Some(file) => {
            let read = std::fs::read_to_string(file);
            Some(read.with_context(|| format!("can't read the API key in {}", file.display()))?)
        }
        None => std::env::var(KEY_VARIABLE).ok(),
    };
    Ok(key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()))
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("can't write {}", file.display()))
}

/// Raised by Ctrl-C or SIGTERM: what there is, is reported.
///
/// # Errors
/// The system gives no signals.
fn stop_by_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let raised = stop.clone();
    let mut signals = StopSignals::install().context("signal handlers")?;
    Tasks::new().spawn(async move {
        signals.next().await;
        raised.cancel();
    });
    Ok(stop)
}
