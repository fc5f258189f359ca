//! The real llama.cpp server with Gemma-3-270M, one a test process.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::{Ask, Client, Manifest, within_time};

/// Reading the weights on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// A running `llama-server`.
pub struct RealLlm {
    port: u16,
    /// Its shell ends it when this process is gone and the pipe to it closes: statics are never dropped.
    _shell: Child,
}

impl RealLlm {
    /// The one that generates.
    pub async fn shared() -> &'static Self {
        static SERVER: OnceCell<RealLlm> = OnceCell::const_new();
        SERVER.get_or_init(|| Self::start(&[])).await
    }

    /// The one that embeds: llama.cpp's server does one or the other.
    pub async fn shared_embedding() -> &'static Self {
        static SERVER: OnceCell<RealLlm> = OnceCell::const_new();
        SERVER.get_or_init(|| Self::start(&["--embeddings", "--pooling", "mean"])).await
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn start(more: &[&str]) -> Self {
        let manifest = Manifest::load();
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let mut shell = Command::new("sh")
            .args([
                "-c",
                r#""$@" 2>&1 >/dev/null & server=$!; echo started; cat >/dev/null; kill $server"#,
                "sh",
            ])
            .arg(manifest.llama_server())
            .args([
                "--host",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--alias",
                "gemma",
                "--offline",
                "--no-webui",
            ])
            .args(["--threads", "2", "--ctx-size", "2048", "--parallel", "1", "--model"])
            .arg(manifest.gguf())
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(shell.stdout.take().unwrap().take(64)).read_line(&mut first).unwrap();
        within_time(START_DEADLINE, "llama-server's readiness", ready(port)).await;
        Self { port, _shell: shell }
    }
}

async fn ready(port: u16) {
    let client = Client::http(([127, 0, 0, 1], port).into());
    let mut interval = tokio::time::interval(Duration::from_millis(50));
    loop {
        interval.tick().await;
        if client.try_open(&Ask::get("/health")).await.is_ok_and(|response| response.status == 200) {
            return;
        }
    }
}
