//! Opening a connection: resolve, TCP, TLS, HTTP/1.1 handshake. And closing it: dropping is closing, at once.
//!
//! No task drives a connection: whoever has a request on it polls it along, which spares two switches of tasks each way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use refrain_core::DeadlineTimer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::bell::Bell;
use crate::dial;
use crate::endpoint::EndpointState;
use crate::request::SentBody;
use crate::{ClientTls, UpstreamError};

/// Largest response head, in bytes. Also bounds trailers.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Largest read buffer of a connection, in bytes.
const READ_BUFFER_BYTES_MAX: usize = 128 * 1024;

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
    match timeout(limit, Box::pin(open_unlimited(endpoint, tls))).await {
        Ok(opened) => opened,
        Err(_elapsed) => Err(UpstreamError::ConnectTimeout { endpoint: endpoint.id().clone() }),
    }
}

async fn open_unlimited(endpoint: &EndpointState, system: &ClientTls) -> Result<Connection, UpstreamError> {
    let config = &endpoint.config;
    let dialled = dial::dial(&config.host, config.port).await;
    let tcp = dialled.map_err(|source| UpstreamError::Connect {
        endpoint: endpoint.id().clone(),
        source: Arc::new(source),
    })?;
    let Some(tls) = endpoint.tls.load_full() else { return handshake(endpoint, tcp).await };
    let connecting = TlsConnector::from(tls.config(system)).connect(tls.server_name.clone(), tcp);
    let tls = connecting
        .await
        .map_err(|source| UpstreamError::Tls { endpoint: endpoint.id().clone(), source: Arc::new(source) })?;
    handshake(endpoint, tls).await
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
