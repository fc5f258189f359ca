//! The `refrain` binary: built as released, configured for one upstream and a semantic route, started.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::rows::POLICY_HEADER;
use crate::child::Server;
use crate::command;
use crate::manifest::{Manifest, require};

pub(super) struct Proxy {
    server: Server,
}

impl Proxy {
    /// Starts it and waits until it is ready.
    pub(super) fn start(program: &Path, config: &str, dir: &Path, admin: SocketAddr) -> Result<Self> {
        let file = dir.join("refrain.toml");
        fs::write(&file, config).with_context(|| format!("can't write {}", file.display()))?;
        let mut command = Command::new(program);
        command.arg("--config").arg(&file);
        remove_overrides(&mut command);
        let ready = format!("http://{admin}/readyz");
        Ok(Self { server: Server::start("refrain", &mut command, dir.join("refrain.log"), &ready)? })
    }

    pub(super) fn log(&self) -> &Path {
        self.server.log()
    }

    pub(super) fn wait(&mut self) -> Result<ExitStatus> {
        self.server.wait()
    }
}

/// How the binary is built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As users have it.
    Release,
    /// As the tests are built, so that they share their dependencies.
    Dev,
}

/// Builds the binary with cargo's own progress and gives its path.
pub(crate) fn build(profile: Profile) -> Result<PathBuf> {
    let mut cargo = command::cargo();
    cargo.args(["build", "--package", "refrain", "--message-format", "json-render-diagnostics"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    let messages = command::stdout(cargo.stderr(Stdio::inherit()))?;
    executable(&messages).context("cargo built no binary `refrain`")
}

/// The config file: one route with exact and semantic caching before one upstream, and one with a policy.
pub(super) fn config(
    manifest: &Manifest,
    (data, admin): (SocketAddr, SocketAddr),
    upstream: SocketAddr,
    policy: &Path,
) -> Result<String> {
    let policy = toml_string(policy)?;
    let (header, route) = POLICY_HEADER;
    let model_dir = toml_string(require("embedding model", "model", manifest.model_dir.as_ref())?)?;
    let runtime = toml_string(require("ONNX Runtime", "model", manifest.onnxruntime.as_ref())?)?;
    Ok(format!(
        r#"# Written by `cargo xtask run`.
[listener.main]
address = "{data}"

[admin]
address = "{admin}"

[log]
access_sample = 1

[embedder]
model_dir = {model_dir}
runtime_library = {runtime}
# The machine may be busy with the model itself.
budget = "2s"

[pool.llm]
endpoints = ["http://{upstream}"]

[route.chat]
pool = "llm"

[route.chat.cache.semantic]

[plugin.ttl-by-intent]
file = {policy}

[route.policy]
headers = {{ {header} = "{route}" }}
pool = "llm"
plugins = ["ttl-by-intent"]

[route.policy.cache]
ttl_max = "7d"
"#
    ))
}

/// JSON's strings are TOML basic strings.
fn toml_string(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(serde_json::to_string(text)?)
}

/// Settings come from the file alone.
fn remove_overrides(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("REFRAIN_") {
            command.env_remove(&name);
        }
    }
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
struct Target {
    name: String,
}

fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    messages
        .filter(|message| message.target.name == "refrain")
        .filter_map(|message| message.executable)
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"serde"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"refrain"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"refrain"},"executable":"/t/release/refrain"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages).unwrap(), Path::new("/t/release/refrain"));
        assert_eq!(executable(""), None);
    }

    #[test]
    fn the_config_file_is_valid() {
        let dir = tempfile::tempdir().unwrap();
        let there = Some(dir.path().to_owned());
        let manifest = Manifest { model_dir: there.clone(), onnxruntime: there, ..Manifest::new() };
        let address = "127.0.0.1:1234".parse().unwrap();
        let text = config(
            &manifest,
            (address, "127.0.0.1:2345".parse().unwrap()),
            address,
            Path::new("policy.wasm"),
        )
        .unwrap();
        let file = dir.path().join("refrain.toml");
        fs::write(&file, text).unwrap();
        let source = refrain_config::Source::read(&file, []).unwrap();
        refrain_config::load(&source).unwrap();
    }
}
