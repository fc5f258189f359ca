//! `refrain check`: is the config file right, and is everything that it names there and answering?
//!
//! Nothing is changed: what would be created is tried and taken away again, and the store itself isn't opened, since a
//! running Refrain holds it.

mod policies;
mod probes;
mod redis;
mod table;

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::cli::CheckArguments;
use crate::origin::Origin;

/// Checks, prints what was found, and says by the exit code whether all is well.
///
/// # Errors
/// Mistakes of the config file, all of them.
pub(crate) fn check(arguments: &CheckArguments) -> anyhow::Result<ExitCode> {
    let CheckArguments { config, running } = arguments;
    let loaded = Origin::file(config.clone()).load()?;
    crate::telemetry::parse(&loaded.settings.log.filter)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}: no mistakes", config.display())?;
    for warning in &loaded.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(probes::all(&loaded.settings, *running));
    out.write_all(table::render(&findings).as_bytes())?;
    let well = findings.iter().all(|finding| finding.result.is_ok());
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What one probe found.
#[derive(Clone, Debug)]
struct Finding {
    /// Its name in config.
    name: String,
    /// What was asked.
    what: String,
    /// How it went.
    result: Result<Well, Failed>,
}

/// All is well.
#[derive(Clone, Debug, Default)]
struct Well {
    latency: Option<std::time::Duration>,
    note: String,
}

/// Something is not, and what to do about it.
#[derive(Clone, Debug)]
struct Failed {
    hint: String,
}
