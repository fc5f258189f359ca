//! The real llama.cpp server with Gemma-3-270M: one that the tests of a process share, or a fleet of a test's own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::refrain::free_addresses;
use crate::{Ask, Client, Manifest, eventually};

/// Reading the weights on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(90);

/// A running `llama-server`.
pub struct RealLlm {
    address: SocketAddr,
    arguments: Vec<String>,
    server: Pid,
    /// Ends the server when this process is gone and the pipe to it closes: statics are never dropped.
    shell: Child,
}

impl RealLlm {
    /// The one that generates.
    pub async fn shared() -> &'static Self {
        static SERVER: OnceCell<RealLlm> = OnceCell::const_new();
        SERVER.get_or_init(|| Self::start(&["--threads", "2", "--ctx-size", "2048", "--parallel", "1"])).await
    }

    /// The one that embeds: llama.cpp's server does one or the other.
    pub async fn shared_embedding() -> &'static Self {
        static SERVER: OnceCell<RealLlm> = OnceCell::const_new();
        let more =
            ["--threads", "2", "--ctx-size", "2048", "--parallel", "1", "--embeddings", "--pooling", "mean"];
        SERVER.get_or_init(|| Self::start(&more)).await
    }

    /// One of a fleet, which keeps the prompts of so many conversations of 2,048 tokens. Its prefix cache takes any common
    /// beginning, though the model has sliding windows (`--swa-full`).
    pub async fn of_fleet(conversations: usize) -> Self {
        let (parallel, context) = (conversations.to_string(), (2048 * conversations).to_string());
        Self::start(&["--threads", "1", "--parallel", &parallel, "--ctx-size", &context, "--swa-full"]).await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// SIGKILL; waits until nobody listens.
    pub async fn kill9(&mut self) {
        kill_process(self.server, Signal::KILL).unwrap();
        let address = self.address;
        eventually("the end of llama-server", async || {
            TcpStream::connect(address).await.is_err().then_some(())
        })
        .await;
    }

    /// Starts it once more, after it was killed, on the same address.
    pub async fn start_again(&mut self) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        *self = Self::start_at(self.address, &arguments).await;
    }

    async fn start(arguments: &[&str]) -> Self {
        let [address] = free_addresses().await;
        Self::start_at(address, arguments).await
    }

    async fn start_at(address: SocketAddr, arguments: &[&str]) -> Self {
        let manifest = Manifest::load();
        let said = tempfile::NamedTempFile::new().unwrap();
        let mut shell = Command::new("sh")
            .args(["-c", r#""$@" >"$SAID" 2>&1 & server=$!; echo $server; read -r end; kill $server"#, "sh"])
            .arg(manifest.llama_server())
            .args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()])
            .args(["--alias", "gemma", "--offline", "--no-webui", "--model"])
            .arg(manifest.gguf())
            .args(arguments)
            .env("SAID", said.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pid = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        let server = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        if tokio::time::timeout(START_DEADLINE, ready(address)).await.is_err() {
            let said = std::fs::read_to_string(said.path()).unwrap_or_default();
            panic!("llama-server is not ready after {START_DEADLINE:?}:\n{said}");
        }
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self { address, arguments, server, shell }
    }
}

impl Drop for RealLlm {
    fn drop(&mut self) {
        // Its pipe closes, and it ends the server.
        drop(self.shell.stdin.take());
        drop(self.shell.wait());
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
