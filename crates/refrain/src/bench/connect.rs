//! Connections to the servers that are measured: HTTP/1.1, kept alive, with TLS for https.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use refrain_core::Tasks;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// To connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that is ready for a request.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Opens connections.
#[derive(Clone)]
pub(super) struct Connector {
    tls: Option<TlsConnector>,
    tasks: Tasks,
}

impl Connector {
    /// Trusts the authorities of a PEM file, else the system's. Certificates are read only if one of the URLs wants TLS.
    ///
    /// # Errors
    /// The file can't be read or has no certificate.
    pub(super) fn new(urls: &[Uri], ca: Option<&Path>) -> anyhow::Result<Self> {
        let wants_tls = urls.iter().any(|url| url.scheme_str() == Some("https"));
        let tls = if wants_tls { Some(tls(ca)?) } else { None };
        Ok(Self { tls, tasks: Tasks::new() })
    }

    /// A new connection.
    ///
    /// # Errors
    /// What went wrong, with the address.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up.
    pub(super) async fn connect(&self, url: &Uri) -> io::Result<Sender> {
        timeout(CONNECT_TIMEOUT, self.open(url)).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection in {CONNECT_TIMEOUT:?}")))
        })
    }

    async fn open(&self, url: &Uri) -> io::Result<Sender> {
        let host = host(url);
        let is_tls = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = self.tls.as_ref().filter(|_| is_tls) else { return self.handshake(tcp).await };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.handshake(tls.connect(name, tcp).await?).await
    }

    async fn handshake<S>(&self, stream: S) -> io::Result<Sender>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        self.tasks.spawn(async move {
            // The request that it carried has the error.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

/// The URL's host, without the brackets of an IPv6 address.
fn host(url: &Uri) -> &str {
    url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

fn tls(ca: Option<&Path>) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = ca {
        let unusable = || format!("--ca {}: no PEM file with certificates", file.display());
        for certificate in CertificateDer::pem_file_iter(file).with_context(unusable)? {
            roots.add(certificate.with_context(unusable)?).with_context(unusable)?;
        }
        anyhow::ensure!(!roots.is_empty(), unusable());
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
