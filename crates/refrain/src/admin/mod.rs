//! The operators' listener: HTTP/1.1 on the control runtime, apart from the data threads.
//!
//! Where config has no tokens for it, everybody who can connect may do everything: then it belongs on loopback or a private
//! network. [`guard`] keeps web pages out, [`login`] everybody without a token; [`places`] keeps such from holding the door shut.

mod body;
mod feedback;
mod guard;
mod login;
mod pages;
mod places;
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
use refrain_core::settings::Admin;
use refrain_core::{Drain, Tasks};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::control::Control;
use places::{Place, Places};

/// Open connections; whoever comes then has another's place.
const CONNECTIONS_MAX: usize = 64;
/// From accept, or the end of the last answer, to a whole request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// After this a connection is closed once its answer has ended, so that none holds its place for ever.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
/// And after this whatever it does: a client that stalls.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Request line and headers, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The bound listener.
pub(crate) struct AdminListener {
    socket: TcpListener,
    address: SocketAddr,
    /// Who may come in until the first configuration is in force.
    settings: Arc<Admin>,
}

/// What is known of a connection, and whom it may let in.
struct Door {
    /// It came over loopback.
    is_local: bool,
    settings: Arc<Admin>,
    /// Its place.
    place: Place,
}

impl Door {
    fn new(stream: &TcpStream, settings: Arc<Admin>, place: Place) -> Self {
        let is_local = stream.local_addr().is_ok_and(|address| address.ip().is_loopback());
        Self { is_local, settings, place }
    }

    /// Who may come in now: a reload can change it.
    fn admin(&self, control: &Control) -> Arc<Admin> {
        let live = control.running().and_then(|running| running.live.load().settings.admin.clone());
        live.map_or_else(|| self.settings.clone(), Arc::new)
    }
}

impl AdminListener {
    /// Binds it; port 0 takes any free port.
    ///
    /// # Errors
    /// The address can't be had.
    pub(crate) async fn bind(settings: &Admin) -> anyhow::Result<Self> {
        let address = settings.address;
        let bind = async {
            let socket = TcpListener::bind(address).await?;
            let settings = Arc::new(settings.clone());
            Ok::<_, std::io::Error>(Self { address: socket.local_addr()?, socket, settings })
        };
        let bound = bind.await.with_context(|| {
            format!("can't listen on {address} for operators; change admin.address, or use --admin ADDR")
        })?;
        if !address.ip().is_loopback() && settings.tokens.is_empty() {
            tracing::warn!(%address, "the admin listener asks for no login and isn't on loopback; keep its network private");
        }
        Ok(bound)
    }

    /// Takes over a socket that listens already.
    ///
    /// # Errors
    /// It listens elsewhere than config says.
    pub(crate) fn inherit(socket: std::net::TcpListener, settings: &Admin) -> anyhow::Result<Self> {
        let (address, expected) = (socket.local_addr()?, settings.address);
        if address != expected && expected.port() != 0 {
            bail!(
                "the socket handed over for operators listens on {address}, and admin.address is {expected}; make them the same"
            );
        }
        socket.set_nonblocking(true)?;
        Ok(Self { socket: TcpListener::from_std(socket)?, address, settings: Arc::new(settings.clone()) })
    }

    /// Where it listens, port resolved.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `end` is raised. Connections are tasks of `tasks`.
    pub(crate) async fn run(self, control: Arc<Control>, tasks: Tasks, end: Drain) {
        let places = Places::new(CONNECTIONS_MAX);
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = end.begun() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let place = tokio::select! {
                        place = places.take(peer.ip()) => place,
                        () = end.begun() => return,
                    };
                    let door = Arc::new(Door::new(&stream, self.settings.clone(), place));
                    let (control, end) = (control.clone(), end.clone());
                    tasks.spawn(async move {
                        tokio::select! {
                            () = serve(stream, control, door.clone()) => {}
                            () = door.place.lost() => tracing::debug!(%peer, "its place on the admin listener is another's"),
                            () = end.begun() => {}
                        }
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

async fn serve(stream: TcpStream, control: Arc<Control>, door: Arc<Door>) {
    let service = service_fn(move |request| {
        let (control, door) = (control.clone(), door.clone());
        async move { Ok::<_, Infallible>(pages::answer(&control, request, &door).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // Broken and stalled connections are the client's business.
    if timeout(CONNECTION_AGE_MAX, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWER_TIMEOUT, connection).await;
    }
}

#[cfg(test)]
mod tests;
