//! The real llama-server that set-up prepared, on a free port of this machine.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::child::{Server, free_port};
use crate::manifest::{Manifest, require};

/// All slots together.
const CONTEXT_TOKENS: &str = "4096";
const SLOTS: &str = "4";

/// A running llama-server.
pub(crate) struct LlamaServer {
    _server: Server,
    port: u16,
}

impl LlamaServer {
    /// Starts it with the prepared weights and waits until they are loaded. It logs into `log_dir`.
    pub(crate) fn start(manifest: &Manifest, log_dir: &Path) -> Result<Self> {
        let program = require("llama-server", "llm", manifest.llama_server.as_ref())?;
        let weights = require("language model", "llm", manifest.gguf.as_ref())?;
        let port = free_port()?;
        let threads = std::thread::available_parallelism()?;
        let mut command = Command::new(program);
        command.arg("--model").arg(weights).args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--ctx-size", CONTEXT_TOKENS, "--parallel", SLOTS, "--threads", &threads.to_string()]);
        // Nothing is fetched, and no graphics driver is looked for.
        command.args(["--no-webui", "--offline", "--device", "none"]);
        let ready = format!("http://127.0.0.1:{port}/health");
        let server = Server::start("llama-server", &mut command, log_dir.join("llama-server.log"), &ready)?;
        Ok(Self { _server: server, port })
    }

    /// `127.0.0.1:port`.
    pub(crate) fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::Client;
    use crate::{run, workspace};

    /// Only such answers are stored, so `cargo xtask run` and the end-to-end tests rest on this.
    #[test]
    fn real_llm_answers_end_by_stop() {
        let manifest = Manifest::load(&workspace::setup_dir()).unwrap();
        let logs = tempfile::tempdir().unwrap();
        let server = LlamaServer::start(&manifest, logs.path()).unwrap();
        let url = format!("http://{}/v1/chat/completions", server.authority());
        let client = Client::new(Duration::from_secs(60));
        for question in run::questions() {
            let answer = client.post(&url, &run::body("gemma-3-270m", question, false), &[]).unwrap();
            let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(json["choices"][0]["finish_reason"], "stop", "{question}: {json}");
        }
    }
}
