//! Data workers: one thread and one current-thread runtime each, all accepting on the same addresses.
//!
//! `SO_REUSEPORT` lets the kernel spread connections, so that no accept lock and no hand-over between threads exists.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use refrain_core::{Drain, ListenerId, Tasks};
use refrain_upstream::ClientTls;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::connection::{self, Ended, Peers};
use crate::listen::{self, Bound, HANDSHAKES_END, Inherited, Owner};
use crate::metrics;
use crate::room::BodyMemory;
use crate::snapshot::Live;
use crate::worker::Worker;

/// Wait after a failed accept: descriptors are used up, and come back as connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a worker shows that it is alive.
const PULSE: Duration = Duration::from_secs(1);

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
    /// A socket that was handed over listens elsewhere than config says.
    #[error(
        "listener {listener:?}: the socket handed over listens on {actual}, and config says {expected}; make them the same"
    )]
    Inherited {
        /// Its name in config.
        listener: ListenerId,
        /// Where it listens.
        actual: SocketAddr,
        /// Where it should.
        expected: SocketAddr,
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
    leaving: Drain,
    pulses: Vec<Pulse>,
}

/// Whether workers go on.
#[derive(Clone)]
pub struct Pulses(Vec<Pulse>);

/// When a worker was last at work, in whole seconds since the server's start.
#[derive(Clone)]
struct Pulse {
    started: Instant,
    at: Arc<AtomicU64>,
}

/// What every worker is given.
#[derive(Clone)]
struct Common {
    live: Live,
    bodies: BodyMemory,
    tls: ClientTls,
    peers: Arc<Peers>,
    drain: Drain,
    leaving: Drain,
}

impl Server {
    /// Takes over what was inherited, binds every other listener once a worker, and starts the workers. Returns when all
    /// addresses accept.
    pub fn start(live: &Live, inherited: &Inherited) -> Result<Self, ServerError> {
        connection::register();
        metrics::register();
        let settings = live.load().settings.clone();
        let common = Common {
            bodies: BodyMemory::default(),
            live: live.clone(),
            // Reading the system's roots takes milliseconds: once, not once a worker.
            tls: ClientTls::native(),
            peers: Arc::default(),
            drain: Drain::default(),
            leaving: Drain::default(),
        };
        let (drain, leaving) = (common.drain.clone(), common.leaving.clone());
        let mut server =
            Self { addresses: Vec::new(), threads: Vec::new(), drain, leaving, pulses: Vec::new() };
        for index in 0..settings.runtime.workers.max(1) {
            let mut bound = Vec::new();
            for (nth, listener) in settings.listeners.iter().enumerate() {
                let address = server.addresses.get(nth).map_or(listener.address, |(_, address)| *address);
                let opened = listen::open(listener, address, inherited, index)?;
                if index == 0 {
                    let actual = opened.socket.local_addr().map_err(ServerError::Worker)?;
                    server.addresses.push((listener.id.clone(), actual));
                }
                bound.push(opened);
            }
            let pulse = Pulse { started: Instant::now(), at: Arc::default() };
            server.pulses.push(pulse.clone());
            server.threads.push(spawn_worker(index, common.clone(), bound, pulse)?);
        }
        Ok(server)
    }

    /// Where each listener listens, ports resolved.
    pub fn addresses(&self) -> &[(ListenerId, SocketAddr)] {
        &self.addresses
    }

    /// Tells whether workers go on.
    pub fn pulses(&self) -> Pulses {
        Pulses(self.pulses.clone())
    }

    /// Tells clients of HTTP/1 to connect anew after their answers, and goes on accepting.
    pub fn leave(&self) {
        self.leaving.begin();
    }

    /// Stops accepting, tells clients to leave after their answers, and waits for the workers to end: at most the
    /// drain time-out of the configuration. Blocks the calling thread.
    pub fn drain(self) {
        self.leaving.begin();
        self.drain.begin();
        for thread in self.threads {
            // A worker that panicked has ended too; the panic was reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Pulses {
    /// Whether every worker was at work within `patience`, and some seconds.
    pub fn are_alive(&self, patience: Duration) -> bool {
        self.0.iter().all(|pulse| pulse.age() <= patience + 2 * PULSE)
    }
}

impl Pulse {
    fn age(&self) -> Duration {
        let at = Duration::from_secs(self.at.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(at)
    }

    async fn beat(self, drain: Drain) {
        let mut ticks = interval(PULSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.at.store(self.started.elapsed().as_secs(), Ordering::Relaxed),
                () = drain.begun() => return,
            }
        }
    }
}

fn spawn_worker(
    index: usize,
    common: Common,
    bound: Vec<Bound>,
    pulse: Pulse,
) -> Result<thread::JoinHandle<()>, ServerError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServerError::Worker)?;
    thread::Builder::new()
        .name(format!("refrain-data-{index}"))
        .spawn(move || runtime.block_on(run(common, bound, pulse)))
        .map_err(ServerError::Worker)
}

async fn run(common: Common, bound: Vec<Bound>, pulse: Pulse) {
    let Common { live, bodies, tls, peers, drain, leaving } = common;
    let tasks = Tasks::new();
    let settings = live.load().settings.clone();
    tasks.spawn(pulse.beat(tasks.draining()));
    let worker = Arc::new(Worker::new((live, bodies), tls, tasks.clone(), leaving));
    let room = Arc::new(Semaphore::new(settings.limits.connections_max));
    for Bound { id, socket, owner } in bound {
        match TcpListener::from_std(socket) {
            Ok(socket) => {
                let (worker, room, peers) = (worker.clone(), room.clone(), peers.clone());
                tasks.spawn(Acceptor { worker, id, socket, owner, room, peers }.run());
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

/// Accepts on one socket of one worker.
struct Acceptor {
    worker: Arc<Worker>,
    id: ListenerId,
    socket: TcpListener,
    owner: Owner,
    room: Arc<Semaphore>,
    peers: Arc<Peers>,
}

impl Acceptor {
    async fn run(self) {
        let drain = self.worker.tasks.draining();
        tokio::select! {
            () = self.accept() => {}
            () = drain.begun() => {}
        }
        if self.owner == Owner::Own {
            listen::refuse_handshakes(&self.socket);
            let _ = timeout(HANDSHAKES_END, self.accept()).await;
            self.accept_last();
        }
    }

    /// What came in at the last moment: with the socket, it would be reset. At the limit of connections it is.
    fn accept_last(self) {
        let Self { worker, id, socket, room, peers, .. } = self;
        let Ok(socket) = socket.into_std() else { return };
        while let (Ok(permit), Ok((stream, peer))) = (room.clone().try_acquire_owned(), socket.accept()) {
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                begin(&worker, &id, &peers, (stream, peer), permit);
            }
        }
    }

    /// Accepts for ever.
    ///
    /// # Cancel safety
    /// Safe: nothing that was accepted is lost.
    async fn accept(&self) {
        loop {
            // At the limit, new connections wait in the kernel's backlog.
            let Ok(permit) = self.room.clone().acquire_owned().await else { return };
            match self.socket.accept().await {
                Ok(accepted) => begin(&self.worker, &self.id, &self.peers, accepted, permit),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                    tracing::debug!(listener = %self.id, "a client left before it was accepted");
                }
                Err(error) => {
                    tracing::warn!(listener = %self.id, %error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Serves a connection in a task of its own, if its address has room for it.
fn begin(
    worker: &Arc<Worker>,
    id: &ListenerId,
    peers: &Arc<Peers>,
    (stream, peer): (TcpStream, SocketAddr),
    permit: OwnedSemaphorePermit,
) {
    let Some(place) = peers.admit(peer.ip(), &worker.live.load().settings.limits) else {
        tracing::debug!(%peer, "its address has too many connections");
        return connection::count(Ended::Address);
    };
    let (tasks, worker, id) = (worker.tasks.clone(), worker.clone(), id.clone());
    let drain = tasks.draining();
    tasks.spawn(async move {
        connection::serve(&worker, &id, stream, peer, drain).await;
        drop((permit, place));
    });
}
