//! `refrain bench`: it measures what was done, says what it did not do, and compares what it says it compares.

mod bad;
mod compare;
mod page;
mod results;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use refrain_tests::{refrain_binary, within_time};
use serde_json::Value;
use tokio::process::{Child, Command};

/// Measurements are short, starts of several proxies on a busy machine are not.
const DEADLINE: Duration = Duration::from_secs(100);

/// A folder for what it writes.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Runs `refrain bench` to its end.
    async fn run(&self, line: &str) -> Output {
        let output = command(self.0.path(), line).output();
        within_time(DEADLINE, "the end of a measurement", output).await.unwrap()
    }

    /// The same; it must succeed. Its results as JSON.
    async fn measure(&self, line: &str) -> Value {
        let output = self.run(&format!("{line} --json results.json")).await;
        assert!(output.status.success(), "{}", told(&output));
        serde_json::from_str(&self.read("results.json")).unwrap()
    }

    /// The same; it must fail. What it says on stderr.
    async fn refused(&self, line: &str) -> (Option<i32>, String) {
        let output = self.run(line).await;
        assert!(!output.status.success(), "{}", told(&output));
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    fn spawn(&self, line: &str) -> Child {
        command(self.0.path(), line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

fn command(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(refrain_binary());
    command.current_dir(dir).env_remove("REFRAIN_API_KEY").arg("bench").args(line.split_whitespace());
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn told(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

fn count(report: &Value, pointer: &str) -> u64 {
    report.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer} in {report:#}"))
}
