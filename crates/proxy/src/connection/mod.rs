//! One client connection: TLS, HTTP version, bounds, and the end of it.

mod client_io;
mod ended;
mod frames;
mod head_timer;
mod linger;
mod peers;
mod preface;
mod streams;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use refrain_core::settings::Limits;
use refrain_core::{Drain, ListenerId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::auth::PeerCertificate;
use crate::body::Body;
use crate::request::{self, Entrance};
use crate::worker::Worker;
use client_io::ClientIo;
pub(crate) use ended::{Ended, count, register};
use frames::FrameBudget;
use head_timer::{Arrivals, HeadTimer};
use linger::{Linger, Unread};
pub(crate) use peers::{Peers, client};
use streams::Streams;

/// hyper refuses a smaller buffer.
const HEAD_BYTES_MIN: usize = 8 * 1024;

/// hyper's own bounds answer without a body, so they stand this much above those that `head` tells in the dialect.
const OWN_LIMIT_FACTOR: usize = 2;

/// Bytes of a stream's answer that HTTP/2 may hold for a client with a large window.
const H2_SEND_BYTES_MAX: usize = 256 * 1024;

/// Once the server drains: how long a client that has asked nothing yet, or asks by a kept connection, may still do so. Its
/// request may be on its way.
const LATE_REQUEST: Duration = Duration::from_millis(500);

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
    let tls = snapshot.tls.get(listener).map(|tls| tls.config.clone());
    drop(snapshot);
    match tls {
        None => {
            let Some(Some(protocol)) = begun(&limits, &drain, preface::detect(&stream)).await else { return };
            let entrance = Entrance { listener: listener.clone(), peer: peer.ip(), certificate: None };
            drive(worker, entrance, stream, protocol, &limits, drain).await;
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
            let certificate = stream.get_ref().1.peer_certificates().and_then(PeerCertificate::of);
            let entrance = Entrance { listener: listener.clone(), peer: peer.ip(), certificate };
            drive(worker, entrance, stream, protocol, &limits, drain).await;
        }
    }
}

/// What a connection begins with: none if it takes too long. Once the server drains that is soon, since nothing was asked yet.
async fn begun<T>(limits: &Limits, drain: &Drain, beginning: impl Future<Output = T>) -> Option<T> {
    let mut beginning = std::pin::pin!(timeout(limits.head_timeout, beginning));
    tokio::select! {
        begun = beginning.as_mut() => begun.ok(),
        () = drain.begun() => timeout(LATE_REQUEST, beginning).await.ok()?.ok(),
    }
}

async fn drive<S>(
    worker: &Arc<Worker>,
    entrance: Entrance,
    stream: S,
    protocol: Protocol,
    limits: &Limits,
    drain: Drain,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ended = match protocol {
        Protocol::Http1 => drive_http1(worker, Arc::new(entrance), stream, limits, drain).await,
        Protocol::Http2 => drive_http2(worker, Arc::new(entrance), stream, limits, drain).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

async fn drive_http1<S>(
    worker: &Arc<Worker>,
    entrance: Arc<Entrance>,
    stream: S,
    limits: &Limits,
    drain: Drain,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (arrivals, unread) = (Arrivals::default(), Unread::default());
    let service = service_fn(|request: Request<Incoming>| {
        let (worker, entrance, unread) = (worker.clone(), entrance.clone(), unread.clone());
        async move {
            let has_body = !request.body().is_end_stream();
            let mut response = request::serve(&worker, &entrance, request).await;
            unread.set(has_body && !response.status().is_success());
            if worker.leaving.is_draining() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<Response<Body>, std::convert::Infallible>(response)
        }
    });
    let io = ClientIo::new(stream, arrivals.clone(), limits.write_timeout)
        .with_linger(Linger::new(unread.clone()));
    let connection = http1_builder(limits, HeadTimer::new(arrivals, unread.clone(), limits.head_timeout))
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    let drained = async {
        drain.begun().await;
        sleep(LATE_REQUEST).await;
    };
    tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = drained => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

async fn drive_http2<S>(
    worker: &Arc<Worker>,
    entrance: Arc<Entrance>,
    stream: S,
    limits: &Limits,
    drain: Drain,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let (worker, entrance) = (worker.clone(), entrance.clone());
        async move {
            let is_head = *request.method() == Method::HEAD;
            let response = request::serve(&worker, &entrance, request).await;
            let response = if is_head { streams::without_body(response) } else { response };
            Ok::<_, std::convert::Infallible>(streams::paced(response))
        }
    });
    let io = ClientIo::new(stream, Arrivals::default(), limits.write_timeout)
        .with_frames(FrameBudget::new(Instant::now()));
    let streams = Streams::new(worker.tasks.clone(), limits.write_timeout);
    let connection = http2_builder(limits, streams.clone()).serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = drain.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = streams.idle(limits.idle_timeout) => {
            count(Ended::Idle);
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                // What was asked at the last moment is answered, however long that takes. Whoever holds on to the connection
                // otherwise, by a window that stays shut or a head without end, is let go.
                () = streams.idle(limits.head_timeout) => Ok(()),
            }
        }
    }
}

fn http1_builder(limits: &Limits, timer: HeadTimer) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(timer)
        .header_read_timeout(limits.idle_timeout)
        .max_buf_size((limits.head_bytes_max * OWN_LIMIT_FACTOR).max(HEAD_BYTES_MIN))
        .max_headers(limits.headers_max * OWN_LIMIT_FACTOR)
        .keep_alive(true);
    builder
}

fn http2_builder(limits: &Limits, streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams_max)
        .max_header_list_size(u32::try_from(limits.head_bytes_max * OWN_LIMIT_FACTOR).unwrap_or(u32::MAX))
        .max_send_buf_size(H2_SEND_BYTES_MAX)
        // Finds peers that are gone without a word.
        .keep_alive_interval(limits.head_timeout)
        .keep_alive_timeout(limits.head_timeout);
    builder
}
