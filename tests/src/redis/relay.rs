//! A TCP relay before a server, which delays, holds, refuses and cuts: the faults between hosts that no server itself shows.
//!
//! It passes bytes on as they are and knows no protocol but, if asked to, TLS.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;

use crate::{Authority, within};

const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks on their way in one direction of a connection; more wait in the sender's socket.
const CHUNKS_MAX: usize = 256;

/// What becomes of bytes and of new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Everything passes.
    Open,
    /// Answers come that much later; many may be on their way.
    Delayed(Duration),
    /// Nothing passes in either direction, though connections are accepted; it goes on its way when that ends.
    Held,
    /// New connections are refused; those that are there go on (see [`Relay::cut`]).
    Refused,
}

/// A relay on a port of its own; it ends, with its connections, when dropped.
pub struct Relay {
    address: SocketAddr,
    wanted: watch::Sender<Wanted>,
    done: watch::Receiver<u64>,
    accepted: Arc<AtomicUsize>,
    _listening: JoinSet<()>,
}

/// Where connections lead, and what clients speak.
#[derive(Clone)]
struct Way {
    server: SocketAddr,
    tls: Option<TlsAcceptor>,
}

#[derive(Clone, Copy)]
struct Wanted {
    passage: Passage,
    /// How often connections were cut.
    cuts: u64,
    /// How often anything changed.
    version: u64,
}

impl Relay {
    /// Starts one before a server, which need not be there yet.
    pub async fn start(server: SocketAddr) -> Self {
        Self::start_before(server, None).await
    }

    /// Starts one that speaks TLS with clients, with a certificate for `localhost` and its address, and plainly with the
    /// server: the packaged Redis 8 has no TLS.
    pub async fn start_tls(server: SocketAddr, authority: &Authority) -> Self {
        let config = authority.server(&["localhost", &server.ip().to_string()]);
        Self::start_before(server, Some(TlsAcceptor::from(config))).await
    }

    async fn start_before(server: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((server.ip(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Way { server, tls };
        let (wanted, changes) = watch::channel(Wanted { passage: Passage::Open, cuts: 0, version: 0 });
        let (doing, done) = watch::channel(0);
        let accepted = Arc::new(AtomicUsize::new(0));
        let mut listening = JoinSet::new();
        listening.spawn(listen(listener, way, changes, doing, accepted.clone()));
        Self { address, wanted, done, accepted, _listening: listening }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what passes, from now on and on all connections.
    pub async fn set(&self, passage: Passage) {
        self.change(|wanted| wanted.passage = passage).await;
    }

    /// Closes all connections.
    pub async fn cut(&self) {
        self.change(|wanted| wanted.cuts += 1).await;
    }

    /// How many connections it has accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Returns when the change is in effect.
    async fn change(&self, change: impl FnOnce(&mut Wanted)) {
        self.wanted.send_modify(|wanted| {
            change(wanted);
            wanted.version += 1;
        });
        let version = self.wanted.borrow().version;
        within("the relay's change", self.done.clone().wait_for(|done| *done >= version)).await.unwrap();
    }
}

async fn listen(
    listener: TcpListener,
    way: Way,
    mut changes: watch::Receiver<Wanted>,
    doing: watch::Sender<u64>,
    accepted: Arc<AtomicUsize>,
) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    let mut cuts = 0;
    loop {
        let wanted = *changes.borrow_and_update();
        if wanted.cuts > cuts {
            cuts = wanted.cuts;
            connections.shutdown().await;
        }
        if wanted.passage == Passage::Refused {
            listener = None;
        } else if listener.is_none() {
            listener = Some(TcpListener::bind(address).await.unwrap());
        }
        doing.send_replace(wanted.version);
        tokio::select! {
            client = accept(listener.as_ref()) => {
                accepted.fetch_add(1, Ordering::Relaxed);
                connections.spawn(connect(client, way.clone(), changes.clone()));
            }
            Some(_) = connections.join_next() => {}
            change = changes.changed() => if change.is_err() { return },
        }
    }
}

/// Never, without a listener.
async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => listener.accept().await.unwrap().0,
        None => pending().await,
    }
}

async fn connect(client: TcpStream, way: Way, changes: watch::Receiver<Wanted>) {
    let Ok(server) = TcpStream::connect(way.server).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    match way.tls {
        None => join(client, server, changes).await,
        Some(tls) => {
            if let Ok(client) = tls.accept(client).await {
                join(client, server, changes).await;
            }
        }
    }
}

/// Until either side closes.
async fn join(client: impl AsyncRead + AsyncWrite, server: TcpStream, changes: watch::Receiver<Wanted>) {
    let ((questions, to_client), (answers, to_server)) = (split(client), server.into_split());
    tokio::select! {
        () = pass(questions, to_server, Direction::Question, changes.clone()) => {}
        () = pass(answers, to_client, Direction::Answer, changes) => {}
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Question,
    Answer,
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    mut changes: watch::Receiver<Wanted>,
) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let read = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if sender.send((Instant::now(), buffer[..count].to_vec())).await.is_err() {
                break;
            }
        }
        drop(sender);
        // What was read is still to be written.
        pending().await
    };
    let write = async {
        while let Some((came, bytes)) = chunks.recv().await {
            let_pass(came, direction, &mut changes).await;
            if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}

/// Waits until what came at that time may go on.
async fn let_pass(came: Instant, direction: Direction, changes: &mut watch::Receiver<Wanted>) {
    loop {
        let passage = changes.borrow_and_update().passage;
        let time = match passage {
            Passage::Delayed(time) if direction == Direction::Answer => Some(came + time),
            Passage::Held => None,
            Passage::Open | Passage::Refused | Passage::Delayed(_) => return,
        };
        let due = async {
            match time {
                Some(time) => sleep_until(time).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = due => return,
            change = changes.changed() => if change.is_err() { return },
        }
    }
}
