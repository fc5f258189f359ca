//! What commands ask a running Refrain: requests to its admin listener.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// To connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer: a large fleet has thousands of models to name.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The admin listener of a running Refrain, and how long to wait for what it answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operator {
    /// Where it listens.
    pub(crate) admin: SocketAddr,
    /// Longest wait for a whole answer.
    pub(crate) patience: Duration,
}

impl Operator {
    /// Reads a page. Blocks.
    ///
    /// # Errors
    /// Refrain can't be reached, refuses, or answers something else.
    pub(crate) fn get<T: DeserializeOwned>(self, path: &str) -> anyhow::Result<T> {
        self.ask(self.request(Method::GET, path, Bytes::new())?)
    }

    /// Has something done. Blocks.
    ///
    /// # Errors
    /// As [`Operator::get`].
    pub(crate) fn post<T: DeserializeOwned>(self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        self.ask(self.request(Method::POST, path, serde_json::to_vec(body)?.into())?)
    }

    fn request(self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
        let head = Request::builder().method(method).uri(path).header(HOST, self.admin.to_string());
        Ok(head.header(CONTENT_TYPE, "application/json").body(Full::new(body))?)
    }

    fn ask<T: DeserializeOwned>(self, request: Request<Full<Bytes>>) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let asked = runtime.block_on(async { timeout(self.patience, self.exchange(request)).await });
        let late = || {
            format!(
                "no answer in {} s; what was begun goes on: see the log of refrain",
                self.patience.as_secs()
            )
        };
        let (status, body) = asked.with_context(late)??;
        let admin = self.admin;
        if status != StatusCode::OK {
            bail!("{admin} says: {}", String::from_utf8_lossy(&body).trim_end());
        }
        serde_json::from_slice(&body).with_context(|| {
            format!("what listens on {admin} doesn't answer as refrain's admin listener does")
        })
    }

    async fn exchange(self, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
        let admin = self.admin;
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(admin)).await;
        let stream = stream.map_err(io::Error::from).flatten().with_context(|| {
            format!("can't reach the admin listener on {admin}; is refrain running? --admin ADDR is admin.address of its file")
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async move {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            anyhow::Ok((status, body.map_err(|error| anyhow::anyhow!(error))?.to_bytes()))
        };
        let (answered, _closed) = tokio::join!(exchange, connection);
        answered.with_context(|| format!("{admin} broke off"))
    }
}
