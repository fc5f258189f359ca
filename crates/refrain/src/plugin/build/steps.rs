//! Steps of a build: each says what it does before, and how long it took after.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Counts the steps of one build.
pub(super) struct Steps {
    total: u32,
    begun: u32,
}

impl Steps {
    pub(super) fn of(total: u32) -> Self {
        Self { total, begun: 0 }
    }

    /// Runs a tool; what it writes is shown only if it fails.
    pub(super) fn run(&mut self, title: &str, command: &mut Command) -> Result<()> {
        let start = self.begin(title)?;
        let output = command.stdin(Stdio::null()).output().with_context(|| cant_start(command))?;
        if !output.status.success() {
            let said = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
            bail!("{title}: {}\n{}", output.status, said.trim());
        }
        writeln!(io::stderr(), "{:.1} s", start.elapsed().as_secs_f32())?;
        Ok(())
    }

    /// Runs a tool that shows its own progress on stderr, and gives what it wrote to stdout.
    pub(super) fn run_shown(&mut self, title: &str, command: &mut Command) -> Result<String> {
        self.begin(title)?;
        writeln!(io::stderr())?;
        let output = command
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| cant_start(command))?;
        if !output.status.success() {
            bail!("{title}: {}", output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn begin(&mut self, title: &str) -> Result<Instant> {
        self.begun += 1;
        let mut stderr = io::stderr();
        write!(stderr, "[{}/{}] {title} ... ", self.begun, self.total)?;
        stderr.flush()?;
        Ok(Instant::now())
    }
}

fn cant_start(command: &Command) -> String {
    format!("can't start {}", command.get_program().to_string_lossy())
}
