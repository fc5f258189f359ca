//! The program under test, as a process of its own: started with a config file, watched, signalled, killed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::{
    Ask, Client, Config, Metrics, Reply, Streaming, eventually, refrain_binary, within, within_time,
};

/// A start reads models and opens stores on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Somebody else may take a port between the look and the start.
const STARTS_MAX: usize = 5;

/// A running Refrain, killed when dropped.
pub struct Refrain {
    child: Child,
    logs: Logs,
    data: SocketAddr,
    admin: SocketAddr,
    /// Its config file and data folder; kept over restarts.
    dir: Arc<TempDir>,
    environment: Vec<(String, String)>,
    _readers: JoinSet<()>,
}

/// Everything that it wrote to stdout and stderr, also before restarts.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl Refrain {
    /// Starts one with a config and waits until it is ready.
    pub async fn start(config: &Config) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        for _ in 0..STARTS_MAX {
            let [data, admin] = free_addresses().await;
            let path = dir.path().join("refrain.toml");
            std::fs::write(&path, config.render(data, admin, dir.path())).unwrap();
            let arguments = ["--config".as_ref(), path.as_os_str()];
            let place = (data, admin);
            let mut started =
                Self::spawn(&arguments, place, dir.clone(), Logs::default(), config.environment());
            if started.wait_ready().await {
                return started;
            }
            let logs = started.logs();
            assert!(logs.contains("in use"), "refrain ended at start:\n{logs}");
        }
        panic!("no free ports in {STARTS_MAX} starts");
    }

    /// Starts one with a config and waits until it is alive, but not until it is [ready](Self::ready).
    pub async fn start_alive(config: &Config) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let [data, admin] = free_addresses().await;
        let path = dir.path().join("refrain.toml");
        std::fs::write(&path, config.render(data, admin, dir.path())).unwrap();
        let arguments = ["--config".as_ref(), path.as_os_str()];
        let started = Self::spawn(&arguments, (data, admin), dir, Logs::default(), config.environment());
        within_time(START_DEADLINE, "refrain's life", eventually_well(admin, "/livez")).await;
        started
    }

    /// Waits until it is ready.
    pub async fn ready(&mut self) {
        assert!(self.wait_ready().await, "refrain ended at start:\n{}", self.logs());
    }

    /// Starts one without a config file: `refrain --upstream URL`.
    pub async fn start_for(upstream: &str) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let [data, admin] = free_addresses().await;
        let (listen, admin_text) = (data.to_string(), admin.to_string());
        let arguments =
            ["--upstream", upstream, "--listen", &listen, "--admin", &admin_text].map(AsRef::as_ref);
        let mut started = Self::spawn(&arguments, (data, admin), dir, Logs::default(), &[]);
        assert!(started.wait_ready().await, "refrain ended at start:\n{}", started.logs());
        started
    }

    /// Starts the next version beside this one: at the same address, with an admin listener of its own, and waits until it is
    /// ready.
    pub async fn successor(&self, config: &Config) -> Self {
        let [admin] = free_addresses().await;
        let path = self.dir().join("next.toml");
        std::fs::write(&path, config.render(self.data, admin, self.dir())).unwrap();
        let arguments = ["--config".as_ref(), path.as_os_str()];
        let place = (self.data, admin);
        let mut next =
            Self::spawn(&arguments, place, self.dir.clone(), Logs::default(), config.environment());
        assert!(next.wait_ready().await, "the next refrain ended at its start:\n{}", next.logs());
        next
    }

    /// Starts one that is handed a socket as systemd does it, under a name, and waits until it is ready.
    pub async fn start_with_socket(config: &Config, socket: &std::net::TcpListener, name: &str) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let (data, [admin]) = (socket.local_addr().unwrap(), free_addresses().await);
        let path = dir.path().join("refrain.toml");
        std::fs::write(&path, config.render(data, admin, dir.path())).unwrap();
        let mut command = Command::new("sh");
        // The socket comes as standard input and becomes descriptor 3; `exec` keeps the process's number.
        let launch = r#"LISTEN_PID=$$ exec "$@" 3<&0 </dev/null"#;
        command.args(["-c", launch, "sh"]).arg(refrain_binary()).arg("--config").arg(path);
        command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
        command.stdin(std::os::fd::OwnedFd::from(socket.try_clone().unwrap()));
        let mut started =
            Self::spawn_command(command, (data, admin), dir, Logs::default(), config.environment());
        assert!(started.wait_ready().await, "refrain ended at start:\n{}", started.logs());
        started
    }

    /// Runs the binary with a config to its end: for configs that must be refused.
    pub async fn run_to_end(config: &Config) -> (ExitStatus, String) {
        let dir = tempfile::tempdir().unwrap();
        let [data, admin] = free_addresses().await;
        let path = dir.path().join("refrain.toml");
        std::fs::write(&path, config.render(data, admin, dir.path())).unwrap();
        let mut command = Command::new(refrain_binary());
        command.envs(config.environment().iter().cloned());
        let output = command.arg("--config").arg(path).kill_on_drop(true).output();
        let output = within_time(START_DEADLINE, "end of refrain", output).await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&said).into_owned())
    }

    fn spawn(
        arguments: &[&std::ffi::OsStr],
        (data, admin): (SocketAddr, SocketAddr),
        dir: Arc<TempDir>,
        logs: Logs,
        environment: &[(String, String)],
    ) -> Self {
        let mut command = Command::new(refrain_binary());
        command.args(arguments).stdin(Stdio::null());
        Self::spawn_command(command, (data, admin), dir, logs, environment)
    }

    fn spawn_command(
        mut command: Command,
        (data, admin): (SocketAddr, SocketAddr),
        dir: Arc<TempDir>,
        logs: Logs,
        environment: &[(String, String)],
    ) -> Self {
        let mut child = command
            .envs(environment.iter().cloned())
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut readers = JoinSet::new();
        readers.spawn(logs.clone().collect(child.stdout.take().unwrap()));
        readers.spawn(logs.clone().collect(child.stderr.take().unwrap()));
        let environment = environment.to_vec();
        Self { child, logs, data, admin, dir, environment, _readers: readers }
    }

    /// False if it ended instead.
    async fn wait_ready(&mut self) -> bool {
        let admin = self.admin;
        let ready = eventually_well(admin, "/readyz");
        tokio::select! {
            () = within_time(START_DEADLINE, "refrain's readiness", ready) => true,
            _ = self.child.wait() => {
                // What it said last is still in the pipes.
                while self._readers.join_next().await.is_some() {}
                false
            }
        }
    }

    /// The data listener.
    pub fn address(&self) -> SocketAddr {
        self.data
    }

    /// The admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.data)
    }

    /// The folder with its config file (`refrain.toml`) and its data.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its config file.
    pub fn config_path(&self) -> PathBuf {
        self.dir().join("refrain.toml")
    }

    /// Sends to the data listener and waits for the whole response.
    pub async fn send(&self, ask: &Ask) -> Reply {
        Client::http(self.data).send(ask).await
    }

    /// Sends to the data listener and waits for the head.
    pub async fn open(&self, ask: &Ask) -> Streaming {
        Client::http(self.data).open(ask).await
    }

    /// Sends to the admin listener.
    pub async fn admin(&self, ask: &Ask) -> Reply {
        Client::http(self.admin).send(ask).await
    }

    /// `/readyz` as JSON.
    pub async fn readiness(&self) -> Value {
        self.admin(&Ask::get("/readyz")).await.json()
    }

    /// `/metrics`.
    pub async fn metrics(&self) -> Metrics {
        Metrics(self.admin(&Ask::get("/metrics")).await.text())
    }

    /// Waits until a counter has reached a value.
    pub async fn counted(&self, name: &str, labels: &[(&str, &str)], least: f64) {
        let look = async || (self.metrics().await.sum(name, labels) >= least).then_some(());
        eventually(&format!("{name} {labels:?} at {least}"), look).await;
    }

    /// Everything that it has logged so far.
    pub fn logs(&self) -> String {
        String::from_utf8_lossy(&self.logs.0.lock()).into_owned()
    }

    /// Waits until its log holds a text, after what it held at `from` bytes.
    pub async fn logged(&self, from: usize, text: &str) {
        let look = async || self.logs().get(from..).is_some_and(|new| new.contains(text)).then_some(());
        eventually(&format!("{text:?} in the log"), look).await;
    }

    /// Writes another config for the same addresses; it is not told of it.
    pub fn write_config(&self, config: &Config) {
        self.write_config_text(&config.render(self.data, self.admin, self.dir()));
    }

    /// Writes any text as its config file, at once.
    pub fn write_config_text(&self, text: &str) {
        let staged = self.dir().join("refrain.toml.new");
        std::fs::write(&staged, text).unwrap();
        std::fs::rename(staged, self.config_path()).unwrap();
    }

    /// Asks for a reload by the admin listener and gives its answer.
    pub async fn reload(&self) -> Reply {
        self.admin(&Ask::new(http::Method::POST, "/reload")).await
    }

    /// Sends SIGHUP.
    pub fn sighup(&self) {
        self.signal(Signal::HUP);
    }

    /// Sends SIGTERM.
    pub fn sigterm(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        within("refrain's end", self.child.wait()).await.unwrap()
    }

    /// SIGTERM, and a start with the same config file, data and addresses.
    pub async fn restart(mut self) -> Self {
        self.sigterm();
        let status = self.ended().await;
        assert!(status.success(), "refrain ended with {status} after SIGTERM:\n{}", self.logs());
        self.start_again().await
    }

    /// SIGKILL, and a start with the same config file, data and addresses.
    pub async fn kill9_and_restart(mut self) -> Self {
        self.signal(Signal::KILL);
        self.ended().await;
        self.start_again().await
    }

    /// Starts it once more, after it has [ended](Self::ended), with the same config file, data and addresses.
    pub async fn start_again(self) -> Self {
        let path = self.config_path();
        let arguments = ["--config".as_ref(), path.as_os_str()];
        let place = (self.data, self.admin);
        let mut started =
            Self::spawn(&arguments, place, self.dir.clone(), self.logs.clone(), &self.environment);
        assert!(started.wait_ready().await, "refrain ended at its second start:\n{}", started.logs());
        started
    }

    /// Whether the process is still there.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.try_into().unwrap())).expect("refrain runs");
        kill_process(pid, signal).unwrap();
    }
}

impl Logs {
    async fn collect(self, mut pipe: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
            self.0.lock().extend_from_slice(&buffer[..count]);
        }
    }
}

/// Until a page of the admin listener is a 200.
async fn eventually_well(admin: SocketAddr, page: &str) {
    let mut interval = tokio::time::interval(Duration::from_millis(15));
    loop {
        interval.tick().await;
        if let Ok(response) = Client::http(admin).try_open(&Ask::get(page)).await
            && response.status == 200
        {
            return;
        }
    }
}

/// Different addresses that were free a moment ago. Refrain shares its ports among its workers, so that two processes of
/// the tests could share one unnoticed: on Linux, where all of 127/8 is this machine, each process has its own address.
pub(crate) async fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 64 + a % 64, b, c.max(1));
    let ip = if cfg!(target_os = "linux") { own } else { Ipv4Addr::LOCALHOST };
    let mut held = Vec::new();
    for _ in 0..N {
        held.push(TcpListener::bind((ip, 0)).await.unwrap());
    }
    std::array::from_fn(|nth| held[nth].local_addr().unwrap())
}
