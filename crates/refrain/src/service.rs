//! What the service manager and this process tell each other, as systemd does it: sockets that listen already (socket
//! activation), and how far the process is (`sd_notify`). Without a service manager nothing of it happens.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use listenfd::ListenFd;
use refrain_core::{Drain, ListenerId, Settings};
use refrain_proxy::{Inherited, Pulses};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval};

/// Name of the admin listener's socket.
const ADMIN: &str = "admin";

/// Sockets that the service manager handed over, with their names (`FileDescriptorName=`).
#[derive(Default)]
pub(crate) struct Sockets(Vec<(String, TcpListener)>);

/// The same, by what they are for.
#[derive(Default)]
pub(crate) struct Sorted {
    /// The data listeners'.
    pub(crate) data: Inherited,
    /// The admin listener's.
    pub(crate) admin: Option<TcpListener>,
}

impl Sockets {
    /// Takes them, once: to be called before there are threads, since it changes the environment.
    ///
    /// # Errors
    /// One of them is no TCP socket that listens.
    pub(crate) fn take() -> anyhow::Result<Self> {
        // For this process, and not for one that it was started by.
        if env::var("LISTEN_PID").ok() != Some(std::process::id().to_string()) {
            return Ok(Self::default());
        }
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut handed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..handed.len() {
            let name = names.next().unwrap_or_default().to_owned();
            let socket = handed.take_tcp_listener(index);
            let socket = socket.with_context(|| {
                format!("socket {index} ({name:?}) of the service manager is no TCP listener")
            })?;
            sockets.extend(socket.map(|socket| (name, socket)));
        }
        Ok(Self(sockets))
    }

    /// Finds out what each is for: by its name, else by its address.
    ///
    /// # Errors
    /// One is for nothing that the configuration has.
    pub(crate) fn sort(self, settings: &Settings) -> anyhow::Result<Sorted> {
        let mut sorted = Sorted::default();
        for (name, socket) in self.0 {
            let address = socket.local_addr().context("a socket of the service manager")?;
            match purpose(&name, address, settings) {
                Some(Purpose::Data(listener)) => sorted.data.add(listener, socket),
                Some(Purpose::Admin) => sorted.admin = Some(socket),
                None => bail!(
                    "the service manager hands over a socket {name:?} on {address}, and no listener has that name or address; \
                     set FileDescriptorName= to the listener's name"
                ),
            }
        }
        Ok(sorted)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Purpose {
    Data(ListenerId),
    Admin,
}

fn purpose(name: &str, address: SocketAddr, settings: &Settings) -> Option<Purpose> {
    let mut listeners = settings.listeners.iter();
    let named = listeners.clone().find(|listener| listener.id.as_str() == name);
    if let Some(listener) = named {
        return Some(Purpose::Data(listener.id.clone()));
    }
    let admin = settings.admin.as_ref();
    if name == ADMIN || admin.is_some_and(|admin| admin.address == address) {
        return admin.map(|_| Purpose::Admin);
    }
    let at_address = listeners.find(|listener| listener.address == address);
    at_address.map(|listener| Purpose::Data(listener.id.clone()))
}

/// Who started the process and wants to know how it is.
#[derive(Clone, Default)]
pub(crate) struct ServiceManager {
    socket: Option<Arc<UnixDatagram>>,
    /// How long it may hear nothing before it takes the process for stuck.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that `NOTIFY_SOCKET` and `WATCHDOG_USEC` tell of, if any.
    pub(crate) fn of_environment() -> Self {
        let address = env::var("NOTIFY_SOCKET").ok();
        let socket = address.and_then(|address| {
            let connected = connect(&address);
            connected
                .inspect_err(|error| tracing::warn!(%error, address, "can't reach the service manager"))
                .ok()
        });
        Self { watchdog: watchdog(), socket: socket.map(Arc::new) }
    }

    /// All addresses accept.
    pub(crate) fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }

    /// The configuration is being read again; [`ServiceManager::ready`] or [`ServiceManager::refused`] says that it was. To be
    /// told anew for each wish: a manager that has asked for a reload (`Type=notify-reload`) waits for one that began after
    /// that, by the time that is told here.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading"));
    }

    /// It goes on as before: the configuration that was read can't be used.
    pub(crate) fn refused(&self) {
        self.tell(
            "READY=1\nSTATUS=serving by the former configuration: the new one was refused, see the log",
        );
    }

    /// What is under way is being finished.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    /// Tells that the process is alive as long as all its data threads are; while it drains, as long as it runs.
    pub(crate) async fn keep_alive(self, pulses: Pulses, drain: Drain) {
        let Some(patience) = self.watchdog.filter(|_| self.socket.is_some()) else { return };
        let mut ticks = interval(patience / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if drain.is_draining() || pulses.are_alive(patience) {
                self.tell("WATCHDOG=1");
            } else {
                tracing::error!("a data thread doesn't go on; the service manager will end the process");
            }
        }
    }

    fn tell(&self, message: &str) {
        if let Some(Err(error)) = self.socket.as_ref().map(|socket| socket.send(message.as_bytes())) {
            tracing::debug!(%error, "the service manager can't be told");
        }
    }
}

/// A path, or `@name` in the abstract namespace.
fn connect(address: &str) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match address.strip_prefix('@') {
        Some(name) => socket.connect_addr(&UnixAddress::from_abstract_name(name)?)?,
        None => socket.connect(address)?,
    }
    Ok(socket)
}

fn watchdog() -> Option<Duration> {
    let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|micros| is_ours && *micros > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        refrain_config::for_upstream("http://127.0.0.1:1", None).unwrap()
    }

    fn check(name: &str, address: &str, expected: Option<Purpose>) {
        let found = purpose(name, address.parse().unwrap(), &settings());
        assert_eq!(found, expected, "{name:?} on {address}");
    }

    #[test]
    fn sockets_are_known_by_name_or_by_address() {
        let main = || Some(Purpose::Data(ListenerId::new("main")));
        check("main", "0.0.0.0:80", main());
        check("refrain.socket", "127.0.0.1:8080", main());
        check("admin", "127.0.0.1:1", Some(Purpose::Admin));
        check("", "127.0.0.1:9090", Some(Purpose::Admin));
        check("other", "127.0.0.1:1", None);
    }

    #[test]
    fn the_service_manager_hears_what_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let heard = UnixDatagram::bind(&path).unwrap();
        let told = ServiceManager {
            socket: Some(Arc::new(connect(path.to_str().unwrap()).unwrap())),
            watchdog: None,
        };
        let hear = || {
            let mut buffer = [0; 200];
            let length = heard.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        told.ready();
        assert!(hear().starts_with("READY=1\n"));
        told.reloading();
        assert!(hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        told.refused();
        assert!(hear().starts_with("READY=1\n"));
        told.stopping();
        assert!(hear().starts_with("STOPPING=1\n"));
    }

    #[test]
    fn without_one_nothing_is_told() {
        ServiceManager::default().ready();
    }
}
