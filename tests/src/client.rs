//! An HTTP client without habits: one connection an ask, no retries, no decoding. HTTP/1.1, HTTP/2, TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::{Ask, wire, within};

/// Where and how to connect.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    h2: bool,
    tls: Option<(Arc<rustls::ClientConfig>, String)>,
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A response whose body is still coming. Dropping it closes the connection.
pub struct Streaming {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// The leaf certificate of the server, with TLS.
    pub certificate: Option<CertificateDer<'static>>,
    body: Incoming,
    _connection: JoinSet<()>,
}

/// A connection that is kept for many asks, one after another.
pub struct Connection {
    client: Client,
    sender: http1::SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

impl Client {
    /// HTTP/1.1 in clear.
    pub fn http(address: SocketAddr) -> Self {
        Self { address, h2: false, tls: None }
    }

    /// HTTP/2 in clear, by prior knowledge.
    pub fn h2(address: SocketAddr) -> Self {
        Self { h2: true, ..Self::http(address) }
    }

    /// HTTPS with this server name; ALPN chooses the HTTP version among those that `config` offers.
    pub fn tls(address: SocketAddr, config: Arc<rustls::ClientConfig>, name: &str) -> Self {
        Self { tls: Some((config, name.to_owned())), ..Self::http(address) }
    }

    /// Sends and waits for the head.
    ///
    /// # Errors
    /// The connection was closed before a head.
    pub async fn try_open(&self, ask: &Ask) -> Result<Streaming, String> {
        // Boxed: TLS and both HTTP versions make a large future, and every test holds several.
        within(&format!("response to {} {}", ask.method, ask.path), Box::pin(self.open_now(ask))).await
    }

    /// Sends and waits for the head.
    pub async fn open(&self, ask: &Ask) -> Streaming {
        self.try_open(ask).await.unwrap_or_else(|error| panic!("{} {}: {error}", ask.method, ask.path))
    }

    /// Sends and waits for the whole response.
    pub async fn send(&self, ask: &Ask) -> Reply {
        self.open(ask).await.whole().await
    }

    /// Connects by HTTP/1.1 in clear.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn connect(&self) -> Result<Connection, String> {
        let tcp = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(tcp)).await.map_err(|error| error.to_string())?;
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        Ok(Connection { client: self.clone(), sender, _driver: driver })
    }

    async fn open_now(&self, ask: &Ask) -> Result<Streaming, String> {
        let tcp = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let Some((config, name)) = &self.tls else { return exchange(tcp, self.h2, self.request(ask)).await };
        let name = ServerName::try_from(name.clone()).map_err(|error| error.to_string())?;
        let tls =
            TlsConnector::from(config.clone()).connect(name, tcp).await.map_err(|error| error.to_string())?;
        let session = tls.get_ref().1;
        let h2 = session.alpn_protocol() == Some(b"h2");
        let certificate = session.peer_certificates().and_then(|chain| chain.first()).cloned();
        let streaming = exchange(tls, h2, self.request(ask)).await?;
        Ok(Streaming { certificate: certificate.map(CertificateDer::into_owned), ..streaming })
    }

    fn request(&self, ask: &Ask) -> Request<Full<Bytes>> {
        let authority = match &self.tls {
            Some((_, name)) => format!("{name}:{}", self.address.port()),
            None => self.address.to_string(),
        };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let uri = if self.h2 || self.tls.is_some() {
            format!("{scheme}://{authority}{}", ask.path)
        } else {
            ask.path.clone()
        };
        let mut request = Request::builder().method(ask.method.clone()).uri(uri);
        if !self.h2 && !ask.headers.iter().any(|(name, _)| name == "host") {
            request = request.header(HOST, authority);
        }
        for (name, value) in &ask.headers {
            request = request.header(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        request.body(Full::new(ask.body())).unwrap()
    }
}

async fn exchange<S>(stream: S, h2: bool, request: Request<Full<Bytes>>) -> Result<Streaming, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (io, mut connection) = (TokioIo::new(stream), JoinSet::new());
    let response = if h2 {
        let (mut sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .map_err(|error| error.to_string())?;
        connection.spawn(async move { drop(driver.await) });
        sender.send_request(request).await
    } else {
        let (mut sender, driver) = http1::handshake(io).await.map_err(|error| error.to_string())?;
        connection.spawn(async move { drop(driver.await) });
        sender.send_request(request).await
    };
    let (parts, body) = response.map_err(|error| error.to_string())?.into_parts();
    let (status, headers) = (parts.status.as_u16(), parts.headers);
    Ok(Streaming { status, headers, certificate: None, body, _connection: connection })
}

impl Connection {
    /// Sends and waits for the whole response.
    ///
    /// # Errors
    /// The connection ended before the response did.
    pub async fn send(&mut self, ask: &Ask) -> Result<Reply, String> {
        let exchange = async {
            let response = self.sender.send_request(self.client.request(ask)).await?;
            let (parts, body) = response.into_parts();
            Ok((parts, body.collect().await?.to_bytes()))
        };
        let exchanged: hyper::Result<_> = within("response on a kept connection", exchange).await;
        let (parts, body) = exchanged.map_err(|error| error.to_string())?;
        Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
    }
}

impl Streaming {
    /// The next piece of the body; none at its proper end.
    ///
    /// # Errors
    /// The body broke off.
    pub async fn try_chunk(&mut self) -> Result<Option<Bytes>, String> {
        let frame = within("next piece of a body", self.body.frame()).await;
        match frame {
            None => Ok(None),
            Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
            Some(Err(error)) => Err(error.to_string()),
        }
    }

    /// Reads until the body so far holds `text`; returns all that was read.
    pub async fn until(&mut self, text: &str) -> String {
        let mut read = String::new();
        while !read.contains(text) {
            match self.try_chunk().await {
                Ok(Some(chunk)) => read.push_str(&String::from_utf8_lossy(&chunk)),
                end => panic!("no {text:?} before the end ({end:?}); got {read:?}"),
            }
        }
        read
    }

    /// The rest of the body, and how it ended.
    pub async fn rest(mut self) -> (Bytes, Result<(), String>) {
        let mut read = BytesMut::new();
        loop {
            match self.try_chunk().await {
                Ok(Some(chunk)) => read.extend_from_slice(&chunk),
                Ok(None) => return (read.freeze(), Ok(())),
                Err(error) => return (read.freeze(), Err(error)),
            }
        }
    }

    /// The whole response; its body must end properly.
    pub async fn whole(self) -> Reply {
        let (status, headers) = (self.status, self.headers.clone());
        let (body, end) = self.rest().await;
        if let Err(error) = end {
            panic!("the body broke off: {error}; got {:?}", String::from_utf8_lossy(&body));
        }
        Reply { status, headers, body }
    }

    /// `Cache-Status`.
    pub fn cache_status(&self) -> String {
        header(&self.headers, "cache-status")
    }
}

impl Reply {
    /// `Cache-Status`; empty if it is not there.
    pub fn cache_status(&self) -> String {
        self.header("cache-status")
    }

    /// A header's value; empty if it is not there.
    pub fn header(&self, name: &str) -> String {
        header(&self.headers, name)
    }

    /// Whether `Cache-Status` says hit.
    pub fn is_hit(&self) -> bool {
        self.cache_status().starts_with("refrain; hit;")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What the model said, whatever the dialect and form.
    pub fn answer(&self) -> String {
        wire::answer(&self.header("content-type"), &self.text())
    }
}

fn header(headers: &HeaderMap, name: &str) -> String {
    let values: Vec<&str> = headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
    values.join(", ")
}
