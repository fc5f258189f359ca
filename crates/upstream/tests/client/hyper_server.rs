//! A server that follows the rules: hyper's, for tests about many requests.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::server::{Server, within};

/// When a server has had enough of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Streams at once.
    pub(crate) streams: u32,
    /// Requests of one connection, after which it goes away.
    pub(crate) requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { streams: 200, requests: usize::MAX }
    }
}

/// Does something while a server speaks HTTP/2.
pub(crate) async fn serving<A, F, T>(
    server: &Server,
    limits: Limits,
    answer: A,
    does: impl Future<Output = T>,
) -> T
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = String> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let accept = async {
        loop {
            let tcp = server.accept_whenever().await.into_stream();
            connections.spawn(connection(tcp, limits, answer.clone()));
        }
    };
    tokio::select! {
        done = within(does) => done,
        () = accept => unreachable!(),
    }
}

/// Serves one HTTP/2 connection to its end.
pub(crate) async fn connection<A, F>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    limits: Limits,
    answer: A,
) where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = String> + Send + 'static,
{
    let (served, enough) = (AtomicUsize::new(0), Notify::new());
    let service = service_fn(|request| {
        if served.fetch_add(1, Relaxed) + 1 >= limits.requests {
            enough.notify_one();
        }
        let answered = answer(request);
        async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answered.await)))) }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).max_concurrent_streams(limits.streams);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = enough.notified() => connection.as_mut().graceful_shutdown(),
    }
    let _ended = connection.await;
}
