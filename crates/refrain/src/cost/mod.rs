//! `refrain cost`: what the servers cost, who they worked for, and what the cache is worth.
//!
//! Every figure here is the proxy's own since it started; nothing is asked of a provider but prices.

mod books;
mod figures;
mod page;
mod wire;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::CostArguments;
use crate::operator::Operator;

pub(crate) use books::Books;
pub(crate) use figures::{PoolFigures, report};
pub(crate) use wire::CostReport;

/// Nothing is computed for long.
const PATIENCE: Duration = Duration::from_secs(15);

/// Shows what it costs.
///
/// # Errors
/// Refrain can't be reached.
pub(crate) fn run(arguments: &CostArguments) -> anyhow::Result<ExitCode> {
    let operator = Operator::new(&arguments.admin, PATIENCE)?;
    let report: CostReport = operator.get("/cost")?;
    let text =
        if arguments.json { serde_json::to_string_pretty(&report)? + "\n" } else { page::page(&report) };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
