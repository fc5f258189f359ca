//! The `refrain` program: reads what it is told, wires the parts together, and looks after them while they run.
//!
//! Requests never pass through here: the data side belongs to `refrain-proxy`. This crate has the command line, the
//! order of start and stop, reloads, the admin listener, logs and the metrics exporter.

mod cli;
mod origin;
mod policies;

mod control;
mod fleet;
mod health;
mod reload;
mod restart;
mod serve;
mod service;
mod signals;
mod store_change;

mod admin;
mod telemetry;

mod bench;
mod check;
mod columns;
mod cost;
mod key;
mod operator;
mod plugin;
mod purge;
mod store;
mod upstreams;
mod why;

use std::io::{self, Write as _};
use std::process::ExitCode;

pub use cli::Cli;
use cli::Command;

/// What [`run`] returns when the configuration or the command line, not the world around them, is wrong.
const EXIT_CONFIG: u8 = 2;

/// Does what the command line says; returns when it is done.
pub fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        None => serve::serve(&cli.serve),
        Some(Command::Bench(arguments)) => bench::run(&arguments),
        Some(Command::Check(arguments)) => check::check(&arguments),
        Some(Command::Cost(arguments)) => cost::run(&arguments),
        Some(Command::Explain(arguments)) => why::explain(&arguments),
        Some(Command::Feedback(arguments)) => why::feedback(&arguments),
        Some(Command::Misses(arguments)) => why::misses(&arguments),
        Some(Command::Key { command }) => key::run(&command).and_then(|text| print(&text)),
        Some(Command::Plugin { command }) => plugin::run(&command),
        Some(Command::Purge(arguments)) => purge::run(&arguments),
        Some(Command::Schema) => print(&refrain_config::schema_json()),
        Some(Command::Store { command }) => store::run(&command),
        Some(Command::Tune(arguments)) => why::tune(&arguments),
        Some(Command::Upstreams(arguments)) => upstreams::run(&arguments),
    };
    done.unwrap_or_else(|error| report(&error))
}

/// Writes a result for people or pipes.
fn print(text: &str) -> anyhow::Result<ExitCode> {
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Says on stderr why the program ends: mistakes of the configuration one a line, as a compiler does.
fn report(error: &anyhow::Error) -> ExitCode {
    let (text, code) = if let Some(errors) = error.downcast_ref::<refrain_config::Errors>() {
        (format!("{errors}\n\n{}", origin::MISTAKES_HINT), ExitCode::from(EXIT_CONFIG))
    } else if error.is::<origin::NothingToServe>() {
        (format!("refrain: {error}"), ExitCode::from(EXIT_CONFIG))
    } else {
        (format!("refrain: {error:#}"), ExitCode::FAILURE)
    };
    // Nobody is left to tell if stderr is closed.
    let _ = writeln!(io::stderr(), "{text}");
    code
}
