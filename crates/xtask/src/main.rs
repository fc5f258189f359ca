//! Developer commands: `cargo xtask setup | lint | test | run | ...`.
//!
//! Nothing of the product lives here. What is downloaded goes to one folder, `.refrain/` at the repository's root (or where
//! `REFRAIN_SETUP_DIR` says), never to the home directory.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "talking to the developer is what it is for")]

mod bench;
mod child;
mod command;
mod http;
mod lint;
mod llama;
mod manifest;
mod plugins;
mod run;
mod setup;
mod soak;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

/// Developer commands of Refrain.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
enum Task {
    /// Prepare the embedding model, the LLM server, the clients and the tools that tests use.
    Setup(setup::Args),
    /// Check format, clippy, crate directions, licenses, the config schema and the policy reference.
    Lint,
    /// Check which crate of ours uses which.
    CheckDeps,
    /// Write config/refrain.schema.json anew.
    Schema,
    /// Write docs/policy-reference.md anew.
    WitDocs,
    /// Build the cache policies in plugins/ into target/plugins/.
    Plugins(plugins::Args),
    /// Prepare what is missing and run all tests through nextest.
    Test(test::Args),
    /// Measure what a request costs beside nginx.
    Bench(bench::Args),
    /// Load the proxy for minutes while its configuration and its policy change: nothing may fail, and memory must stay.
    Soak(soak::Args),
    /// Run the proxy before a real LLM server and show what the cache does.
    Run(run::Args),
}

fn main() -> ExitCode {
    match perform(Task::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Setup(args) => setup::run(&args),
        Task::Lint => lint::run(),
        Task::CheckDeps => lint::check_directions(),
        Task::Schema => lint::regenerate_schema(),
        Task::WitDocs => lint::regenerate_policy_reference(),
        Task::Plugins(args) => plugins::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Soak(args) => soak::run(&args),
        Task::Run(args) => run::run(&args),
    }
}
