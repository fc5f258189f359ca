//! Opening a connection: resolve, TCP, TLS, and the HTTP version that config or the server chooses.

use std::sync::Arc;

use refrain_core::Tasks;
use refrain_core::settings::HttpVersion;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::dial;
use crate::endpoint::EndpointState;
use crate::http1::Http1;
use crate::http2::Http2;
use crate::tls::ALPN_HTTP2;
use crate::{ClientTls, UpstreamError};

/// Largest response head, in bytes. Also bounds trailers.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A connection that nothing was asked on.
pub(crate) enum Opened {
    Http1(Box<Http1>),
    Http2(Http2),
}

/// What it takes to open connections, beside the endpoint.
pub(crate) struct Opener<'a> {
    pub(crate) tls: &'a ClientTls,
    /// What drives an HTTP/2 connection.
    pub(crate) tasks: &'a Tasks,
}

impl Opener<'_> {
    /// Connects to an endpoint, until `deadline` at most.
    ///
    /// # Cancel safety
    /// Dropping the future gives the connection up.
    pub(crate) async fn open(
        &self,
        endpoint: &EndpointState,
        deadline: Instant,
    ) -> Result<Opened, UpstreamError> {
        match timeout_at(deadline, Box::pin(self.open_unlimited(endpoint))).await {
            Ok(opened) => opened,
            Err(_elapsed) => Err(UpstreamError::ConnectTimeout { endpoint: endpoint.id().clone() }),
        }
    }

    async fn open_unlimited(&self, endpoint: &EndpointState) -> Result<Opened, UpstreamError> {
        let config = &endpoint.config;
        let dialled = dial::dial(&config.host, config.port).await;
        let tcp = dialled.map_err(|source| UpstreamError::Connect {
            endpoint: endpoint.id().clone(),
            source: Arc::new(source),
        })?;
        let Some(tls) = endpoint.tls.load_full() else {
            return self.begin(endpoint, config.http, tcp).await;
        };
        let connecting = TlsConnector::from(tls.config(self.tls)).connect(tls.server_name.clone(), tcp);
        let tls = connecting.await.map_err(|source| UpstreamError::Tls {
            endpoint: endpoint.id().clone(),
            source: Arc::new(source),
        })?;
        let http = match (config.http, tls.get_ref().1.alpn_protocol()) {
            (HttpVersion::Auto, Some(ALPN_HTTP2)) => HttpVersion::Http2,
            (configured, _) => configured,
        };
        self.begin(endpoint, http, tls).await
    }

    async fn begin<T>(
        &self,
        endpoint: &EndpointState,
        http: HttpVersion,
        io: T,
    ) -> Result<Opened, UpstreamError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match http {
            HttpVersion::Http2 => {
                let begun = Http2::begin(io, self.tasks).await.map(Opened::Http2);
                begun.map_err(|_| UpstreamError::Reset { endpoint: endpoint.id().clone() })
            }
            HttpVersion::Auto | HttpVersion::Http1 => Ok(Opened::Http1(Box::new(Http1::begin(io)))),
        }
    }
}
