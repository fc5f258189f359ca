//! Listening sockets: bound here or handed over by whoever started the process, and let go of without losing a client.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use refrain_core::ListenerId;
use refrain_core::settings::Listener;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

use crate::server::ServerError;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// How long a socket that takes no new handshakes is still accepted from: those that were begun come to their end.
pub(crate) const HANDSHAKES_END: Duration = Duration::from_millis(500);

/// Sockets that listen already, handed over by a service manager, by listener. Several of one are spread over the workers.
#[derive(Default)]
pub struct Inherited(HashMap<ListenerId, Vec<std::net::TcpListener>>);

/// A listening socket of one worker, with the name of what it belongs to.
pub(crate) struct Bound {
    pub(crate) id: ListenerId,
    pub(crate) socket: std::net::TcpListener,
    pub(crate) owner: Owner,
}

/// Who keeps a socket open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// This process: when it closes the socket, what waits in it is lost.
    Own,
    /// Whoever handed it over: what waits in it waits for the next process.
    Other,
}

impl Inherited {
    /// Adds one.
    pub fn add(&mut self, listener: ListenerId, socket: std::net::TcpListener) {
        self.0.entry(listener).or_default().push(socket);
    }

    fn of(&self, listener: &Listener, worker: usize) -> Option<Result<std::net::TcpListener, ServerError>> {
        let sockets = self.0.get(&listener.id)?;
        let socket = sockets.get(worker % sockets.len())?;
        Some(check_address(socket, listener).and_then(|()| {
            let cloned = socket.set_nonblocking(true).and_then(|()| socket.try_clone());
            cloned.map_err(ServerError::Worker)
        }))
    }
}

/// Who may come in without a key follows from the configured address, so the socket must have that one.
fn check_address(socket: &std::net::TcpListener, listener: &Listener) -> Result<(), ServerError> {
    let actual = socket.local_addr().map_err(ServerError::Worker)?;
    let expected = listener.address;
    if actual.ip() == expected.ip() && (expected.port() == 0 || actual.port() == expected.port()) {
        return Ok(());
    }
    Err(ServerError::Inherited { listener: listener.id.clone(), actual, expected })
}

/// One worker's socket of a listener: inherited, or bound to `address`.
pub(crate) fn open(
    listener: &Listener,
    address: SocketAddr,
    inherited: &Inherited,
    worker: usize,
) -> Result<Bound, ServerError> {
    let id = listener.id.clone();
    match inherited.of(listener, worker) {
        Some(socket) => Ok(Bound { id, socket: socket?, owner: Owner::Other }),
        None => match bind(address) {
            Ok(socket) => Ok(Bound { id, socket, owner: Owner::Own }),
            Err(source) => Err(ServerError::Bind { listener: id, address, source }),
        },
    }
}

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Also with the sockets of another process of this user: the next version, which takes over.
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// From now on the kernel takes no new handshake for this socket. A closed socket's unaccepted connections are reset, so one
/// that goes out of service first refuses new ones, in silence: the client's system tries again within a second, and by then
/// the address has other sockets (or none).
///
/// A classic BPF filter on the socket sees TCP segments from their header on: it drops those with SYN and without ACK.
#[cfg(target_os = "linux")]
pub(crate) fn refuse_handshakes(socket: &TcpListener) {
    use socket2::SockFilter;
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const SYN_ACK: u32 = 0x12;
    let drop_syn = [
        SockFilter::new(0x30, 0, 0, FLAGS_AT), // load the byte of flags
        SockFilter::new(0x54, 0, 0, SYN_ACK),  // of them, SYN and ACK
        SockFilter::new(0x15, 0, 1, SYN),      // SYN alone?
        SockFilter::new(0x06, 0, 0, 0),        // then drop it
        SockFilter::new(0x06, 0, 0, u32::MAX), // else take it whole
    ];
    if let Err(error) = SockRef::from(socket).attach_filter(&drop_syn) {
        tracing::debug!(%error, "can't refuse handshakes; connections of this moment may be reset");
    }
}

/// Other systems have no such filter.
#[cfg(not(target_os = "linux"))]
pub(crate) fn refuse_handshakes(_: &TcpListener) {}

#[cfg(test)]
mod tests {
    use refrain_core::Role;

    use super::*;

    fn listener(address: SocketAddr) -> Listener {
        let id = ListenerId::new("main");
        Listener { id, address, tls: None, allow_anonymous: true, anonymous_role: Role::Caller }
    }

    fn loopback(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn a_socket_on_another_address_than_config_says_is_refused() {
        for (actual, expected, fits) in [
            (loopback(0), loopback(0), true),
            (([0, 0, 0, 0], 0).into(), loopback(0), false),
            (loopback(0), loopback(1), false),
        ] {
            let mut inherited = Inherited::default();
            inherited
                .add(ListenerId::new("main"), std::net::TcpListener::bind::<SocketAddr>(actual).unwrap());
            let opened = open(&listener(expected), expected, &inherited, 3);
            assert_eq!(opened.is_ok(), fits, "{actual} for {expected}");
        }
    }

    #[tokio::test]
    async fn a_socket_that_refuses_handshakes_still_has_those_that_waited() {
        let socket = TcpListener::from_std(bind(loopback(0)).unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let waiting = tokio::net::TcpStream::connect(address).await.unwrap();
        refuse_handshakes(&socket);
        let (_accepted, peer) = socket.accept().await.unwrap();
        assert_eq!(peer, waiting.local_addr().unwrap());
        if cfg!(target_os = "linux") {
            let late = tokio::time::timeout(HANDSHAKES_END, tokio::net::TcpStream::connect(address)).await;
            assert!(late.is_err(), "a handshake came through");
        }
    }
}
