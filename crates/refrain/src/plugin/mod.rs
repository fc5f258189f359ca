//! `refrain plugin`: cache policies from the first line to the figures.
//!
//! What is tried here runs on the host that serves, and sees a request as the proxy shows it; only the request, the stored
//! answers and the upstream's answer are made up.

mod build;
mod new;

mod bench;
mod inspect;
mod run;
mod test;

pub(crate) mod decision;
mod rehearse;
mod request;
mod trial;

use std::process::ExitCode;

use crate::cli::PluginCommand;

/// Does what the command says.
///
/// # Errors
/// What it was given can't be used, in words that say what to do.
pub(crate) fn run(command: &PluginCommand) -> anyhow::Result<ExitCode> {
    match command {
        PluginCommand::New(arguments) => new::new(arguments),
        PluginCommand::Build(arguments) => build::build(arguments),
        PluginCommand::Inspect(arguments) => wait_for(inspect::inspect(arguments)),
        PluginCommand::Run(arguments) => wait_for(run::run(arguments)),
        PluginCommand::Test(arguments) => wait_for(test::test(arguments)),
        PluginCommand::Bench(arguments) => wait_for(bench::bench(arguments)),
    }
}

/// On one thread, as a data runtime is.
fn wait_for(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
