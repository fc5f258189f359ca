//! The real llama.cpp server with Gemma-3-270M, one a test process.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::refrain::free_addresses;
use crate::{Ask, Client, Manifest};

/// Reading the weights on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(90);

/// A running `llama-server`.
pub struct RealLlm {
    address: SocketAddr,
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
        format!("http://{}", self.address)
    }

    async fn start(more: &[&str]) -> Self {
        let manifest = Manifest::load();
        let [address] = free_addresses().await;
        let said = tempfile::NamedTempFile::new().unwrap();
        let shell = Command::new("sh")
            .args(["-c", r#""$@" & server=$!; read -r end; kill $server"#, "sh"])
            .arg(manifest.llama_server())
            .args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()])
            .args(["--alias", "gemma", "--offline", "--no-webui"])
            .args(["--threads", "2", "--ctx-size", "2048", "--parallel", "1", "--model"])
            .arg(manifest.gguf())
            .args(more)
            .stdin(Stdio::piped())
            .stdout(File::create(said.path()).unwrap())
            .stderr(File::options().append(true).open(said.path()).unwrap())
            .spawn()
            .unwrap();
        if tokio::time::timeout(START_DEADLINE, ready(address)).await.is_err() {
            let said = std::fs::read_to_string(said.path()).unwrap_or_default();
            panic!("llama-server is not ready after {START_DEADLINE:?}:\n{said}");
        }
        Self { address, _shell: shell }
    }
}

async fn ready(address: SocketAddr) {
    let client = Client::http(address);
    let mut interval = tokio::time::interval(Duration::from_millis(50));
    loop {
        interval.tick().await;
        if client.try_open(&Ask::get("/health")).await.is_ok_and(|response| response.status == 200) {
            return;
        }
    }
}
