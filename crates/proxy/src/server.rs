//! Data workers: one thread and one current-thread runtime each, all accepting on the same addresses.
//!
//! `SO_REUSEPORT` lets the kernel spread connections, so that no accept lock and no hand-over between threads exists.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use refrain_core::settings::Listener;
use refrain_core::{Drain, ListenerId, Tasks};
use refrain_upstream::ClientTls;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::connection;
use crate::snapshot::Live;
use crate::worker::Worker;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// Why the server can't start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address can't be listened on.
    #[error("listener {listener:?}: can't listen on {address}: {source}; is another server running there?")]
    Bind {
        /// Its name in config.
        listener: ListenerId,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A thread or runtime can't be made.
    #[error("can't start a worker: {0}")]
    Worker(io::Error),
}

/// The running data side.
pub struct Server {
    addresses: Vec<(ListenerId, SocketAddr)>,
    threads: Vec<thread::JoinHandle<()>>,
    drain: Drain,
}

/// A listening socket with the name of what it belongs to.
struct Bound {
    id: ListenerId,
    socket: std::net::TcpListener,
}

impl Server {
    /// Binds every listener once a worker and starts the workers. Returns when all addresses accept.
    pub fn start(live: &Live) -> Result<Self, ServerError> {
        let settings = live.load().settings.clone();
        let drain = Drain::default();
        // Reading the system's roots takes milliseconds: once, not once a worker.
        let tls = ClientTls::native();
        let mut addresses = Vec::new();
        let mut threads = Vec::new();
        for index in 0..settings.runtime.workers.max(1) {
            let mut bound = Vec::new();
            for (nth, listener) in settings.listeners.iter().enumerate() {
                let address = addresses.get(nth).map_or(listener.address, |(_, address)| *address);
                let socket = bind(listener, address)?;
                if index == 0 {
                    let actual = socket.local_addr().map_err(ServerError::Worker)?;
                    addresses.push((listener.id.clone(), actual));
                }
                bound.push(Bound { id: listener.id.clone(), socket });
            }
            threads.push(spawn_worker(index, live.clone(), tls.clone(), bound, drain.clone())?);
        }
        Ok(Self { addresses, threads, drain })
    }

    /// Where each listener listens, ports resolved.
    pub fn addresses(&self) -> &[(ListenerId, SocketAddr)] {
        &self.addresses
    }

    /// Stops accepting, tells clients to leave after their answers, and waits for the workers to end: at most the
    /// drain time-out of the configuration. Blocks the calling thread.
    pub fn drain(self) {
        self.drain.begin();
        for thread in self.threads {
            // A worker that panicked has ended too; the panic was reported where it happened.
            let _ = thread.join();
        }
    }
}

fn bind(listener: &Listener, address: SocketAddr) -> Result<std::net::TcpListener, ServerError> {
    let bind = || -> io::Result<std::net::TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|source| ServerError::Bind { listener: listener.id.clone(), address, source })
}

fn spawn_worker(
    index: usize,
    live: Live,
    tls: ClientTls,
    bound: Vec<Bound>,
    drain: Drain,
) -> Result<thread::JoinHandle<()>, ServerError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServerError::Worker)?;
    thread::Builder::new()
        .name(format!("refrain-data-{index}"))
        .spawn(move || runtime.block_on(run(live, tls, bound, drain)))
        .map_err(ServerError::Worker)
}

async fn run(live: Live, tls: ClientTls, bound: Vec<Bound>, drain: Drain) {
    let tasks = Tasks::new();
    let settings = live.load().settings.clone();
    let worker = Arc::new(Worker::new(live, tls, tasks.clone()));
    let room = Arc::new(Semaphore::new(settings.limits.connections_max));
    for Bound { id, socket } in bound {
        match TcpListener::from_std(socket) {
            Ok(listener) => {
                tasks.spawn(accept(worker.clone(), id, listener, room.clone(), tasks.clone()));
            }
            Err(error) => tracing::error!(listener = %id, %error, "can't register the listener"),
        }
    }
    drain.begun().await;
    let left = worker.live.load().settings.runtime.drain_timeout;
    if !tasks.drain(left).await {
        tracing::warn!(tasks = tasks.len(), "drain timed out; closing what is left");
    }
}

async fn accept(
    worker: Arc<Worker>,
    id: ListenerId,
    listener: TcpListener,
    room: Arc<Semaphore>,
    tasks: Tasks,
) {
    let drain = tasks.draining();
    loop {
        // At the limit, new connections wait in the kernel's backlog.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.begun() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (worker, id, drain) = (worker.clone(), id.clone(), drain.clone());
                tasks.spawn(async move {
                    connection::serve(&worker, &id, stream, peer, drain).await;
                    drop(permit);
                });
            }
            // Out of descriptors, or the client left already: the next may do better, but don't spin.
            Err(error) => {
                tracing::warn!(listener = %id, %error, "accept failed");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
}
