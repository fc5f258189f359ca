//! A small Redis client of the tests' own, so that what Refrain's client does is seen from outside: one command at a time, no
//! reconnecting, no cluster.

use std::io::Result;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::value::{self, Value};
use crate::within;

/// A connection; RESP2 until `HELLO 3`.
pub struct RedisConnection(BufStream<Box<dyn Stream>>);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl RedisConnection {
    /// Connects by TCP.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn tcp(address: SocketAddr) -> Result<Self> {
        let stream = within("connection to Redis", TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// Connects by a Unix socket.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn unix(socket: &Path) -> Result<Self> {
        Ok(Self::over(within("connection to Redis", UnixStream::connect(socket)).await?))
    }

    /// Connects by TLS to a server that proves this name.
    ///
    /// # Errors
    /// Nobody listens, or the handshake fails. A server that misses a client's certificate says so only after the handshake:
    /// the first command fails.
    pub async fn tls(address: SocketAddr, name: &str, config: Arc<ClientConfig>) -> Result<Self> {
        let stream = within("connection to Redis", TcpStream::connect(address)).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Ok(Self::over(within("TLS handshake", TlsConnector::from(config).connect(name, stream)).await?))
    }

    fn over(stream: impl Stream + 'static) -> Self {
        Self(BufStream::new(Box::new(stream)))
    }

    /// Sends a command and waits for its answer; a refusal is an answer too.
    pub async fn command<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Value {
        within("Redis' answer", self.try_command(arguments)).await.unwrap()
    }

    /// Sends a command and waits for its answer, for as long as it takes.
    ///
    /// # Errors
    /// The connection ends.
    pub async fn try_command<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Value> {
        self.0.write_all(&encode(arguments)).await?;
        self.0.flush().await?;
        self.answer().await
    }

    /// Waits for one more answer: to what was sent before it was cancelled, or a message by push.
    ///
    /// # Errors
    /// The connection ends.
    pub async fn answer(&mut self) -> Result<Value> {
        value::read(&mut self.0).await
    }
}

/// An array of bulk strings, which is how every command is sent.
fn encode<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments.iter().map(AsRef::as_ref) {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
