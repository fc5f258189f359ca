//! One client connection: TLS, HTTP version, bounds, and the end of it.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use refrain_core::settings::Limits;
use refrain_core::{Drain, ListenerId, Tasks};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::body::Body;
use crate::head_timer::HeadTimer;
use crate::request;
use crate::worker::Worker;

/// hyper refuses a smaller buffer.
const HEAD_BYTES_MIN: usize = 8 * 1024;

/// hyper's own bounds answer without a body, so they stand this much above those that `head` tells in the dialect.
const OWN_LIMIT_FACTOR: usize = 2;

/// Protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// Serves a connection to its end. Errors of the client's making end it in silence (at debug level).
pub(crate) async fn serve(
    worker: &Arc<Worker>,
    listener: &ListenerId,
    stream: TcpStream,
    peer: SocketAddr,
    drain: Drain,
) {
    let _ = stream.set_nodelay(true);
    let snapshot = worker.live.load_full();
    let limits = snapshot.settings.limits.clone();
    let tls = snapshot.tls.get(listener).cloned();
    drop(snapshot);
    match tls {
        None => {
            let Some(Some(protocol)) = begun(&limits, &drain, detect(&stream)).await else { return };
            drive(worker, listener, stream, protocol, &limits, drain).await;
        }
        Some(config) => {
            let handshake = begun(&limits, &drain, TlsAcceptor::from(config).accept(stream)).await;
            let stream = match handshake {
                Some(Ok(stream)) => stream,
                Some(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
                None => return tracing::debug!(%peer, "TLS handshake not completed"),
            };
            let protocol = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            };
            drive(worker, listener, stream, protocol, &limits, drain).await;
        }
    }
}

/// What a connection begins with: none if it takes too long, or if the server drains (nothing was asked yet).
async fn begun<T>(limits: &Limits, drain: &Drain, beginning: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        begun = timeout(limits.head_timeout, beginning) => begun.ok(),
        () = drain.begun() => None,
    }
}

/// HTTP/2 by prior knowledge starts with `PRI `; no method of HTTP/1 starts with `PR` but PROPFIND and its kin, whose
/// third letter differs. `None`: the client left without a word.
async fn detect(stream: &TcpStream) -> Option<Protocol> {
    let mut first = [0; 3];
    match stream.peek(&mut first).await {
        Ok(0) | Err(_) => None,
        Ok(_) if first == *b"PRI" => Some(Protocol::Http2),
        Ok(_) => Some(Protocol::Http1),
    }
}

async fn drive<S>(
    worker: &Arc<Worker>,
    listener: &ListenerId,
    stream: S,
    protocol: Protocol,
    limits: &Limits,
    drain: Drain,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let (worker, listener) = (worker.clone(), listener.clone());
        async move {
            Ok::<Response<Body>, std::convert::Infallible>(request::serve(&worker, &listener, request).await)
        }
    });
    let io = TokioIo::new(stream);
    let ended = match protocol {
        Protocol::Http1 => until_end(http1_builder(limits).serve_connection(io, service), &drain).await,
        Protocol::Http2 => {
            let builder = http2_builder(limits, &worker.tasks);
            until_end(builder.serve_connection(io, service), &drain).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// Spawns an HTTP/2 connection's streams so that draining waits for them.
#[derive(Clone)]
struct Tracked(Tasks);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// Serves until the client leaves; once the server drains, until what is under way has been answered.
async fn until_end<C>(connection: C, drain: &Drain) -> Result<(), C::Error>
where
    C: GracefulConnection,
{
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = drain.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(HeadTimer::default())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size((limits.head_bytes_max * OWN_LIMIT_FACTOR).max(HEAD_BYTES_MIN))
        .max_headers(limits.headers_max * OWN_LIMIT_FACTOR)
        .keep_alive(true);
    builder
}

fn http2_builder(limits: &Limits, tasks: &Tasks) -> http2::Builder<Tracked> {
    let mut builder = http2::Builder::new(Tracked(tasks.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams_max)
        .max_header_list_size(u32::try_from(limits.head_bytes_max * OWN_LIMIT_FACTOR).unwrap_or(u32::MAX))
        .keep_alive_interval(limits.head_timeout)
        .keep_alive_timeout(limits.head_timeout);
    builder
}
