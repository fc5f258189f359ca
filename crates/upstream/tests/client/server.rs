//! Servers that say, byte for byte, what a test tells them to, and pools made of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use refrain_core::Tasks;
use refrain_core::settings::{Balance, Endpoint, Health, Pool, Timeouts};
use refrain_upstream::{
    Client, ClientTls, Demand, EndpointStats, PoolState, UpstreamBody, UpstreamError, UpstreamRequest,
    UpstreamResponse, Upstreams,
};
use rustls::RootCertStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Waits, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(10 * SECOND, future).await.expect("nothing happened for 10 s")
}

/// Moves the clock on, with no timer running by itself in between.
pub(crate) async fn jump(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

/// A listening socket.
pub(crate) struct Server {
    listener: TcpListener,
}

/// A port that refuses connections for as long as this lives: bound, so that nobody else gets it, but not listening.
pub(crate) struct Refusing(TcpSocket);

impl Refusing {
    pub(crate) fn bind() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// A server there from now on.
    pub(crate) fn listen(self) -> Server {
        Server { listener: self.0.listen(16).unwrap() }
    }
}

/// The server's end of one connection.
pub(crate) struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Server {
    pub(crate) async fn bind() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        Peer { stream, unread: Vec::new() }
    }

    /// Accepts, however long that takes.
    pub(crate) async fn accept_whenever(&self) -> Peer {
        let (stream, _) = self.listener.accept().await.unwrap();
        Peer { stream, unread: Vec::new() }
    }

    /// Accepts, reads a request, answers.
    pub(crate) async fn answers(&self, answer: impl AsRef<[u8]>) -> Peer {
        let mut peer = self.accept().await;
        peer.answers(answer).await;
        peer
    }

    pub(crate) async fn is_left_alone(&self) -> bool {
        tokio::time::timeout(Duration::from_millis(50), self.listener.accept()).await.is_err()
    }
}

impl Peer {
    /// Reads up to the end of a head, and of the body if it has a length.
    pub(crate) async fn request(&mut self) -> String {
        loop {
            if let Some(length) = whole_request(&self.unread) {
                let request: Vec<u8> = self.unread.drain(..length).collect();
                return String::from_utf8(request).unwrap();
            }
            let read = within(self.stream.read_buf(&mut self.unread)).await.unwrap();
            assert_ne!(read, 0, "the client closed; so far: {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// Reads the end of a head, and perhaps a little more.
    pub(crate) async fn head(&mut self) {
        while !self.unread.windows(4).any(|window| window == b"\r\n\r\n") {
            assert_ne!(within(self.stream.read_buf(&mut self.unread)).await.unwrap(), 0);
        }
    }

    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Reads what comes until it ends so.
    pub(crate) async fn reads_until(&mut self, end: &str) -> String {
        while !self.unread.ends_with(end.as_bytes()) {
            assert_ne!(within(self.stream.read_buf(&mut self.unread)).await.unwrap(), 0);
        }
        String::from_utf8(std::mem::take(&mut self.unread)).unwrap()
    }

    pub(crate) async fn answers(&mut self, answer: impl AsRef<[u8]>) -> String {
        let request = self.request().await;
        self.say(answer).await;
        request
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// Waits until the client has closed; what it still sent is ignored.
    pub(crate) async fn closed(&mut self) {
        let mut rest = vec![0; 1 << 20];
        while !matches!(within(self.stream.read(&mut rest)).await, Ok(0) | Err(_)) {}
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

fn whole_request(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = head + length.map_or(0, |length| length.parse::<usize>().unwrap());
    (bytes.len() >= length).then_some(length)
}

/// A pool over some servers and a client for it.
pub(crate) struct Fleet {
    pub(crate) client: Client,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) tasks: Tasks,
    pub(crate) timeouts: Timeouts,
}

impl Fleet {
    pub(crate) fn of(servers: &[&Server]) -> Self {
        Self::with(servers, |_| {})
    }

    /// A pool changed before it starts.
    pub(crate) fn with(servers: &[&Server], change: impl FnOnce(&mut Pool)) -> Self {
        let ports: Vec<u16> = servers.iter().map(|server| server.port()).collect();
        Self::at(&ports, ClientTls::with_roots(RootCertStore::empty()), change)
    }

    pub(crate) fn at(ports: &[u16], tls: ClientTls, change: impl FnOnce(&mut Pool)) -> Self {
        let endpoints = ports
            .iter()
            .zip(["a", "b", "c"])
            .map(|(&port, id)| Endpoint::plain(id, "127.0.0.1", port))
            .collect();
        let mut pool = Pool {
            revision: "r1".into(),
            idle_connections_max: 8,
            balance: Balance::RoundRobin,
            // Looks would take the place of what a test answers.
            health: Health { interval: None, ..Health::default() },
            ..Pool::new("gpu".into(), endpoints)
        };
        change(&mut pool);
        let timeouts = pool.timeouts;
        let pools = BTreeMap::from([(pool.id.clone(), Arc::new(pool))]);
        let tasks = Tasks::new();
        let client = Client::new(tls, tasks.clone());
        Self { client, upstreams: Arc::new(Upstreams::new(&pools).unwrap()), tasks, timeouts }
    }

    pub(crate) fn pool(&self) -> &Arc<PoolState> {
        self.upstreams.pool(&"gpu".into()).unwrap()
    }

    pub(crate) fn stats(&self) -> Vec<EndpointStats> {
        self.pool().stats()
    }

    pub(crate) async fn send(&self, request: UpstreamRequest) -> Result<UpstreamResponse, UpstreamError> {
        let request = UpstreamRequest { timeouts: self.timeouts, ..request };
        self.client.send(self.pool(), request).await
    }

    /// Sends a small POST and reads the answer to its end.
    pub(crate) async fn text(&self) -> Result<String, UpstreamError> {
        let body = within(self.send(post("{}"))).await?.body;
        let bytes = within(body.collect(1 << 20)).await?;
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }
}

pub(crate) fn post(body: &'static str) -> UpstreamRequest {
    request(Method::POST, UpstreamBody::Full(Bytes::from_static(body.as_bytes())))
}

pub(crate) fn request(method: Method, body: UpstreamBody) -> UpstreamRequest {
    UpstreamRequest {
        method,
        path_and_query: PathAndQuery::from_static("/v1/chat/completions"),
        headers: HeaderMap::new(),
        body,
        timeouts: Timeouts::default(),
        demand: Demand::default(),
        charge: None,
    }
}

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
