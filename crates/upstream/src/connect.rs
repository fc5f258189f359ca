//! Opening a connection: resolve, TCP, TLS, HTTP/1.1 handshake. And closing it: dropping is closing, at once.
//!
//! No task drives a connection: whoever has a request on it polls it along, which spares two switches of tasks each way.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use refrain_core::DeadlineTimer;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tracing::warn;

use crate::UpstreamError;
use crate::bell::Bell;
use crate::endpoint::EndpointState;
use crate::request::SentBody;

/// Largest response head, in bytes. Also bounds trailers.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Largest read buffer of a connection, in bytes.
const READ_BUFFER_BYTES_MAX: usize = 128 * 1024;

/// Whom to trust upstream. Cheap to clone; make one for the process, since it also keeps the TLS sessions.
#[derive(Clone)]
pub struct ClientTls(Arc<ClientConfig>);

impl ClientTls {
    /// Trusts what the operating system trusts. Reads certificate files: call it before serving.
    pub fn native() -> Self {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            warn!(%error, "system certificates skipped");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(loaded.certs);
        Self::with_roots(roots)
    }

    /// Trusts these roots only.
    pub fn with_roots(roots: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            match ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions() {
                Ok(builder) => builder,
                Err(error) => unreachable!("aws-lc-rs supports the default protocol versions: {error}"),
            };
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self(Arc::new(config))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls(..)")
    }
}

/// One HTTP/1.1 connection. Dropping it closes the socket, whatever is under way.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<SentBody>,
    /// None once the connection has ended.
    driver: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    pub(crate) bell: Bell,
    /// Kept from request to request: most never get near a deadline.
    timer: DeadlineTimer,
    /// Requests sent on it.
    pub(crate) served: u32,
    /// Requests it takes in all, if the upstream said so.
    pub(crate) served_max: Option<u32>,
}

impl Connection {
    /// Reads and writes what it can. From then on its bell rings for this task.
    pub(crate) fn drive(&mut self, cx: &Context<'_>) {
        self.bell.attach(cx);
        self.turn();
    }

    /// Reads and writes what it can, for nobody who waits: an idle connection learns only so that the server closed it.
    pub(crate) fn look(&mut self) {
        self.bell.detach();
        self.turn();
    }

    fn turn(&mut self) {
        let Some(driver) = &mut self.driver else { return };
        if driver.as_mut().poll(&mut self.bell.context()).is_ready() {
            self.driver = None;
        }
    }

    /// Ready once `deadline` has passed. The bell rings for it.
    pub(crate) fn poll_deadline(&mut self, deadline: Instant) -> Poll<()> {
        self.timer.poll(&mut self.bell.context(), deadline)
    }

    /// Whether it takes another request now.
    pub(crate) fn is_ready(&self) -> bool {
        self.driver.is_some() && self.sender.is_ready()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { served, served_max, .. } = self;
        f.debug_struct("Connection").field("served", served).field("served_max", served_max).finish()
    }
}

/// Connects to an endpoint, within `limit` overall.
pub(crate) async fn open(
    endpoint: &EndpointState,
    limit: Duration,
    tls: &ClientTls,
) -> Result<Connection, UpstreamError> {
    match timeout(limit, Box::pin(open_unlimited(endpoint, limit, tls))).await {
        Ok(opened) => opened,
        Err(_elapsed) => Err(UpstreamError::ConnectTimeout { endpoint: endpoint.id().clone() }),
    }
}

async fn open_unlimited(
    endpoint: &EndpointState,
    limit: Duration,
    tls: &ClientTls,
) -> Result<Connection, UpstreamError> {
    let tcp = open_tcp(endpoint, Instant::now() + limit).await.map_err(|source| UpstreamError::Connect {
        endpoint: endpoint.id().clone(),
        source: Arc::new(source),
    })?;
    if endpoint.config.tls.is_none() {
        return handshake(endpoint, tcp).await;
    }
    let tls = open_tls(endpoint, tcp, tls)
        .await
        .map_err(|source| UpstreamError::Tls { endpoint: endpoint.id().clone(), source: Arc::new(source) })?;
    handshake(endpoint, tls).await
}

/// Tries every address in turn; each gets an even share of the time that is left.
async fn open_tcp(endpoint: &EndpointState, deadline: Instant) -> io::Result<TcpStream> {
    let config = &endpoint.config;
    let addresses: Vec<_> = tokio::net::lookup_host((config.host.as_str(), config.port)).await?.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = (addresses.len() - tried) as u32;
        let share = now + deadline.saturating_duration_since(now) / left;
        match timeout_at(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Ok(Err(error)) => last = error,
            Err(_elapsed) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

async fn open_tls(
    endpoint: &EndpointState,
    tcp: TcpStream,
    tls: &ClientTls,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(endpoint.config.host.clone())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    TlsConnector::from(tls.0.clone()).connect(name, tcp).await
}

async fn handshake<T>(endpoint: &EndpointState, io: T) -> Result<Connection, UpstreamError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(READ_BUFFER_BYTES_MAX)
        .handshake::<_, SentBody>(TokioIo::new(io))
        .await
        .map_err(|_| UpstreamError::Reset { endpoint: endpoint.id().clone() })?;
    // Errors of the connection reach whoever waits for an answer on it; an idle one has nobody to tell.
    let driver = Box::pin(async move { drop(connection.await) });
    let mut connection = Connection {
        sender,
        driver: Some(driver),
        bell: Bell::new(),
        timer: DeadlineTimer::default(),
        served: 0,
        served_max: None,
    };
    connection.look();
    Ok(connection)
}
