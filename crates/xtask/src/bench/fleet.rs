//! What a request pays for balance: the benchmarks of the crates that do it.

use anyhow::{Result, bail};

use crate::{command, workspace};

/// Package and benchmark.
const BENCHMARKS: [(&str, &str); 2] = [("refrain-upstream", "choose"), ("refrain-llm", "prefix")];

/// Runs them; they print for themselves.
pub(super) fn run() -> Result<()> {
    for (package, benchmark) in BENCHMARKS {
        println!("\n{package}, {benchmark}");
        let status = command::cargo()
            .args(["bench", "--quiet", "--package", package, "--bench", benchmark])
            .current_dir(workspace::root())
            .status()?;
        if !status.success() {
            bail!("the benchmark {benchmark} of {package} ended with {status}");
        }
    }
    Ok(())
}
