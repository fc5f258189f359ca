//! One server as a process: started, frozen, killed, started again.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;

use super::options::HARNESS;
use super::{Flavour, RedisConnection, RedisOptions, Value};
use crate::refrain::free_addresses;
use crate::within;

/// How often a server that starts is asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

pub(super) const DATA: &str = "data";
pub(super) const SOCKET: &str = "redis.sock";
pub(super) const ROOT: &str = "root.pem";
const LOG: &str = "log";

/// A Redis server, killed when dropped.
pub struct RedisServer {
    flavour: Flavour,
    address: SocketAddr,
    bus_port: u16,
    scheme: &'static str,
    asks_who: bool,
    config: PathBuf,
    child: Option<Child>,
    dir: TempDir,
}

impl RedisServer {
    /// Starts one on a free port and waits until it answers.
    pub async fn start(flavour: Flavour) -> Self {
        Self::start_with(RedisOptions::new(flavour)).await
    }

    /// Starts one that is set up so and waits until it answers.
    pub async fn start_with(options: RedisOptions<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [free, bus] = free_addresses().await;
        let address = options.address.unwrap_or(free);
        let mut server = Self {
            flavour: options.flavour,
            address,
            bus_port: bus.port(),
            scheme: if options.tls.is_some() { "rediss" } else { "redis" },
            asks_who: options.asks_who(),
            config: options.write(dir.path(), address, bus.port()),
            child: None,
            dir,
        };
        server.start_again().await;
        server
    }

    /// What it can do.
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// Where it listens, also after a restart.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens to other nodes of its cluster.
    pub(super) fn bus_port(&self) -> u16 {
        self.bus_port
    }

    /// Whether the harness must say who it is.
    pub(super) fn asks_who(&self) -> bool {
        self.asks_who
    }

    /// `redis://ADDRESS`, with TLS `rediss://ADDRESS`.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The same with a name and a password, percent-encoded by the caller: `app:p%40ss`.
    pub fn url_as(&self, user: &str) -> String {
        format!("{}://{user}@{}", self.scheme, self.address)
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join(SOCKET)
    }

    /// The certificate of the authority behind its own, if it speaks TLS.
    pub fn root_file(&self) -> PathBuf {
        self.dir.path().join(ROOT)
    }

    /// A folder for the test's files about it (client certificates, password files); not its data.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Everything that it has logged.
    pub fn logs(&self) -> String {
        std::fs::read_to_string(self.dir.path().join(LOG)).unwrap_or_default()
    }

    /// Sends one command with all rights, by the Unix socket: passwords and TLS don't matter. A refusal is an answer too.
    pub async fn command<A: AsRef<[u8]>>(&self, arguments: &[A]) -> Value {
        self.connection().await.command(arguments).await
    }

    /// A connection with all rights, by the Unix socket.
    pub async fn connection(&self) -> RedisConnection {
        self.try_connection().await.unwrap()
    }

    /// A line of `INFO`: `info("used_memory")`.
    pub async fn info(&self, field: &str) -> Option<String> {
        let info = self.command(&["INFO", "everything"]).await.text();
        let value = |line: &str| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned);
        info.lines().find_map(value)
    }

    /// Whether it was started and not killed.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// SIGSTOP, in effect when this returns: connections stay, nothing is answered.
    pub fn sigstop(&self) {
        self.signal(Signal::STOP);
        waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap();
    }

    /// SIGCONT: what was asked meanwhile is answered.
    pub fn sigcont(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL; returns when it has gone and its port is refused.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself, which is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it after [`kill9`](Self::kill9), on the same address, with what its data folder holds, and waits until it
    /// answers.
    pub async fn start_again(&mut self) {
        assert!(self.child.is_none(), "redis still runs");
        let log = File::options().create(true).append(true).open(self.dir.path().join(LOG)).unwrap();
        let child = Command::new(self.flavour.program())
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        within("redis' first answer", self.ready()).await;
    }

    /// [`kill9`](Self::kill9) and [`start_again`](Self::start_again).
    pub async fn restart(&mut self) {
        self.kill9();
        self.start_again().await;
    }

    /// The same with an empty data folder.
    pub async fn restart_empty(&mut self) {
        self.kill9();
        let data = self.dir.path().join(DATA);
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::create_dir(&data).unwrap();
        self.start_again().await;
    }

    async fn ready(&mut self) {
        let mut interval = tokio::time::interval(LOOK_INTERVAL);
        loop {
            interval.tick().await;
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("redis ended at start with {status}:\n{}", self.logs());
            }
            if self.answers().await {
                return;
            }
        }
    }

    async fn answers(&self) -> bool {
        let Ok(mut connection) = self.try_connection().await else { return false };
        // It says LOADING while it reads its data.
        matches!(connection.try_command(&["PING"]).await, Ok(Value::Bytes(answer)) if answer == b"PONG")
    }

    async fn try_connection(&self) -> std::io::Result<RedisConnection> {
        let mut connection = RedisConnection::unix(&self.socket()).await?;
        if self.asks_who {
            let [name, password] = HARNESS;
            connection.try_command(&["AUTH", name, password]).await?;
        }
        Ok(connection)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        let child = self.child.as_ref().expect("redis runs");
        Pid::from_child(child)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill9();
    }
}
