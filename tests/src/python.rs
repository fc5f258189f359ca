//! The official Python clients, unmodified: scripts in `tests/python` call them and print what they parsed.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::{Manifest, within_time};

/// Importing an SDK takes seconds on a busy machine, answers of a real model too.
const DEADLINE: Duration = Duration::from_secs(120);

/// Runs a script of `tests/python` with a job on its stdin; its stdout is the result.
pub async fn python(script: &str, job: &Value) -> Value {
    let manifest = Manifest::load();
    let mut child = Command::new(manifest.python())
        .arg(format!("{}/python/{script}", env!("CARGO_MANIFEST_DIR")))
        .env_clear()
        .env("PYTHONPATH", manifest.python_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(job.to_string().as_bytes()).await.unwrap();
    let output = within_time(DEADLINE, script, child.wait_with_output()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} failed:\n{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{script}: {error}\n{said}"))
}
