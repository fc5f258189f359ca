//! `refrain store`: looks after what is in Redis. It asks the servers itself: no proxy needs to run.

mod collect;
mod drop;
mod list;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use refrain_cache::{Embedder, StoreTrouble, StoreUpkeep, UpkeepMode};
use refrain_core::settings::Store;

use crate::cli::StoreCommand;
use crate::origin::Origin;

/// How often long work says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// What is said after a dry run that found something.
const REPEAT: &str = "Nothing was removed yet. To remove this, repeat the command with --yes.";

/// Does what the command says.
///
/// # Errors
/// The config file is wrong or names no Redis, or Redis can't be asked.
pub(crate) fn run(command: &StoreCommand) -> anyhow::Result<ExitCode> {
    let work = async {
        match command {
            StoreCommand::Ls(arguments) => list::list(&open(&arguments.config)?).await,
            StoreCommand::Gc(arguments) => collect::collect(&open(&arguments.config)?, arguments).await,
            StoreCommand::Drop(arguments) => drop::drop(&open(&arguments.config)?, arguments).await,
        }
    };
    let page = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)?;
    crate::print(&page)
}

fn open(config: &Path) -> anyhow::Result<StoreUpkeep> {
    let settings = Origin::file(config.to_owned()).load()?.settings;
    let Store::Redis(store) = &settings.store else {
        bail!("{}: store.kind is not \"redis\": nothing there to look after", config.display());
    };
    let model = settings.embedder.as_ref().map(Embedder::identity_in).transpose();
    Ok(StoreUpkeep::new(store, model.context("which model is the configured one can't be known")?))
}

fn mode(yes: bool) -> UpkeepMode {
    if yes { UpkeepMode::Real } else { UpkeepMode::DryRun }
}

/// Waits for work, and says on stderr how far it is.
async fn watched<T>(
    upkeep: &StoreUpkeep,
    work: impl Future<Output = Result<T, StoreTrouble>>,
) -> anyhow::Result<T> {
    let mut work = std::pin::pin!(work);
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    ticks.tick().await;
    loop {
        tokio::select! {
            done = &mut work => return Ok(done?),
            _ = ticks.tick() => {
                let progress = upkeep.progress();
                // Nobody is left to tell if stderr is closed.
                let _ = writeln!(io::stderr(), "... {} names seen, {} removed", progress.seen, progress.removed);
            }
        }
    }
}

/// `1 key`, `2 keys`.
fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The sum, and what to say of it.
fn ending(total: u64, yes: bool) -> &'static str {
    match (total, yes) {
        (0, _) => "Nothing to remove.",
        (_, false) => REPEAT,
        (_, true) => "Removed.",
    }
}
