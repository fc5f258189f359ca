//! What commands ask a running Refrain: requests to its admin listener.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::cli::AdminArguments;

/// Holds the token, if the command line names no file.
const TOKEN_VARIABLE: &str = "REFRAIN_ADMIN_TOKEN";
/// To connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer: a large fleet has thousands of models to name.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The admin listener of a running Refrain, and how long to wait for what it answers.
#[derive(Clone)]
pub(crate) struct Operator {
    /// Where it listens.
    pub(crate) admin: SocketAddr,
    /// Longest wait for a whole answer.
    pub(crate) patience: Duration,
    /// What lets us in, where one is needed.
    token: Option<Zeroizing<String>>,
}

impl Operator {
    /// At the listener that the command line names, with the token that it or the environment has.
    ///
    /// # Errors
    /// The file of the token can't be read, or is empty.
    pub(crate) fn new(arguments: &AdminArguments, patience: Duration) -> anyhow::Result<Self> {
        let token = match &arguments.token_file {
            Some(file) => Some(token_of(file)?),
            None => std::env::var(TOKEN_VARIABLE).ok().map(|token| Zeroizing::new(token.trim().to_owned())),
        };
        Ok(Self { admin: arguments.admin, patience, token: token.filter(|token| !token.is_empty()) })
    }

    /// Reads a page. Blocks.
    ///
    /// # Errors
    /// Refrain can't be reached, refuses, or answers something else.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask(self.request(Method::GET, path, Bytes::new())?)
    }

    /// Has something done. Blocks.
    ///
    /// # Errors
    /// As [`Operator::get`].
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        self.ask(self.request(Method::POST, path, serde_json::to_vec(body)?.into())?)
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
        let head = Request::builder().method(method).uri(path).header(HOST, self.admin.to_string());
        let mut request = head.header(CONTENT_TYPE, "application/json").body(Full::new(body))?;
        if let Some(token) = &self.token {
            let value = HeaderValue::try_from(format!("Bearer {}", **token));
            let mut value = value.map_err(|_| anyhow!("the token holds what no header can"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    fn ask<T: DeserializeOwned>(&self, request: Request<Full<Bytes>>) -> anyhow::Result<T> {
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

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
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

fn token_of(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    let token = Zeroizing::new(text.trim().to_owned());
    if token.is_empty() {
        Err(anyhow!("{} is empty; it should hold a token", file.display()))
    } else {
        Ok(token)
    }
}
