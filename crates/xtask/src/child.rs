//! A server as a child process: waits until it is ready, and ends it when dropped.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::command;
use crate::http::Client;

const READY_DEADLINE: Duration = Duration::from_secs(60);
const READY_POLL: Duration = Duration::from_millis(100);

/// How long a server may take to end when asked to.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// A running server. Dropping ends it, and whatever processes it has, and waits for that.
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a server whose output goes to a log, and waits until a GET of `ready` answers 200.
    ///
    /// # Errors
    /// It can't be started, ends early, or isn't ready within a minute; the error shows the log's end.
    pub(crate) fn start(
        name: &'static str,
        command: &mut Command,
        log: PathBuf,
        ready: &str,
    ) -> Result<Self> {
        let client = Client::new(Duration::from_secs(2));
        let mut server = Self::spawn(name, command, log)?;
        server.wait_until(ready, || match client.status(ready) {
            Ok(200) => Ok(()),
            Ok(status) => Err(format!("status {status}")),
            Err(error) => Err(error.to_string()),
        })?;
        Ok(server)
    }

    /// The same for a server that speaks no HTTP: waits until it takes connections.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub(crate) fn start_listening(
        name: &'static str,
        command: &mut Command,
        log: PathBuf,
        address: SocketAddr,
    ) -> Result<Self> {
        let mut server = Self::spawn(name, command, log)?;
        server.wait_until(&address.to_string(), || {
            TcpStream::connect(address).map(drop).map_err(|error| error.to_string())
        })?;
        Ok(server)
    }

    fn spawn(name: &'static str, command: &mut Command, log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("can't create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("can't start {name}"))?;
        Ok(Self { name, child, log })
    }

    /// Where its output goes.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its own end.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    fn wait_until(&mut self, what: &str, is_ready: impl Fn() -> Result<(), String>) -> Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        let mut last = String::from("no answer");
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at once ({status}):\n{}", self.name, self.tail());
            }
            match is_ready() {
                Ok(()) => return Ok(()),
                Err(why) => last = why,
            }
            pause(READY_POLL);
        }
        bail!("{} is not ready after {READY_DEADLINE:?} ({what}: {last}):\n{}", self.name, self.tail());
    }

    fn tail(&self) -> String {
        format!("{}\n(log: {})", command::tail(&self.log, 0), self.log.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good. Killed at once, nginx would leave its workers behind.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::TERM));
        }
        let asked = Instant::now();
        while asked.elapsed() < END_DEADLINE && matches!(self.child.try_wait(), Ok(None)) {
            pause(READY_POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of this machine that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Fails if something listens there.
pub(crate) fn check_free(address: SocketAddr, option: &str) -> Result<()> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("{address} is in use by another program: stop it, or choose another port with {option}")
        }
        Err(error) => Err(error).with_context(|| format!("can't listen on {address}")),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "no reactor runs here; servers of others give no event to wait for"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_is_reported_with_the_option_that_changes_it() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let error = check_free(address, "--port").unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--port"), "{error}");
        drop(taken);
        check_free(address, "--port").unwrap();
    }

    #[test]
    fn a_server_that_ends_early_shows_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such model; exit 3"]);
        let ready = format!("http://127.0.0.1:{}/", free_port().unwrap());
        let error =
            Server::start("server", &mut command, dir.path().join("log"), &ready).err().unwrap().to_string();
        assert!(error.contains("no such model") && error.contains('3'), "{error}");
    }
}
