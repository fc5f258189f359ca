//! The operators' listener: HTTP/1.1 on the control runtime, apart from the data threads.
//!
//! It asks for no credentials, so it belongs on loopback or a private network; [`guard`] keeps web pages out.

mod body;
mod guard;
mod pages;
mod purge;
mod readiness;
mod upstreams;
mod why;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use refrain_core::{Drain, Tasks};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::control::Control;

/// Open connections; more wait in the kernel.
const CONNECTIONS_MAX: usize = 64;
/// From accept, or the end of the last answer, to a whole request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// After this a connection is closed whatever it does, so that a client that stalls holds no place for ever.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
/// Request line and headers, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The bound listener.
pub(crate) struct AdminListener {
    socket: TcpListener,
    address: SocketAddr,
}

impl AdminListener {
    /// Binds it; port 0 takes any free port.
    ///
    /// # Errors
    /// The address can't be had.
    pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let bind = async {
            let socket = TcpListener::bind(address).await?;
            Ok::<_, std::io::Error>(Self { address: socket.local_addr()?, socket })
        };
        let bound = bind.await.with_context(|| {
            format!("can't listen on {address} for operators; change admin.address, or use --admin ADDR")
        })?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "the admin listener asks for no login and isn't on loopback; keep its network private");
        }
        Ok(bound)
    }

    /// Takes over a socket that listens already.
    ///
    /// # Errors
    /// It listens elsewhere than config says.
    pub(crate) fn inherit(socket: std::net::TcpListener, expected: SocketAddr) -> anyhow::Result<Self> {
        let address = socket.local_addr()?;
        if address != expected && expected.port() != 0 {
            bail!(
                "the socket handed over for operators listens on {address}, and admin.address is {expected}; make them the same"
            );
        }
        socket.set_nonblocking(true)?;
        Ok(Self { socket: TcpListener::from_std(socket)?, address })
    }

    /// Where it listens, port resolved.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `end` is raised. Connections are tasks of `tasks`.
    pub(crate) async fn run(self, control: Arc<Control>, tasks: Tasks, end: Drain) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = end.begun() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (control, end) = (control.clone(), end.clone());
                    tasks.spawn(async move {
                        tokio::select! {
                            () = serve(stream, control) => {}
                            () = end.begun() => {}
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "admin accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, control: Arc<Control>) {
    let is_local = stream.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let service = service_fn(move |request| {
        let control = control.clone();
        async move { Ok::<_, Infallible>(pages::answer(&control, request, is_local).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // Broken and stalled connections are the client's business.
    let _ = timeout(CONNECTION_AGE_MAX, connection).await;
}

#[cfg(test)]
mod tests;
