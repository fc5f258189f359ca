//! Which HTTP a client speaks that comes without TLS: told by its first bytes, which stay where they are.

use std::io;
use std::mem::MaybeUninit;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::Protocol;

/// How a connection of HTTP/2 by prior knowledge begins (RFC 9113, section 3.4), as far as no request of HTTP/1 does: no method
/// starts with `PR` but PROPFIND and its kin, whose third letter differs.
const PREFACE: [u8; 3] = *b"PRI";

/// Waits for as many bytes as tell: the first one, but of HTTP/2. `None`: the client left without a word.
///
/// # Cancel safety
/// Safe: nothing is taken from the stream.
pub(super) async fn detect(stream: &TcpStream) -> Option<Protocol> {
    let mut first = PREFACE.map(|_| 0);
    loop {
        let count = stream.peek(&mut first).await.ok()?;
        match first.get(..count)? {
            [] => return None,
            begun if !PREFACE.starts_with(begun) => return Some(Protocol::Http1),
            begun if begun.len() == PREFACE.len() => return Some(Protocol::Http2),
            // hyper says what is wrong with it.
            _ if !has_more(stream, count).await.ok()? => return Some(Protocol::Http1),
            _ => {}
        }
    }
}

/// Waits for more bytes than these, which were seen; false: none follow. A stream with bytes is ready to be read, so that
/// readiness says nothing: it is put away for as long as there are no more of them.
async fn has_more(stream: &TcpStream, seen: usize) -> io::Result<bool> {
    let look = || {
        let mut bytes = [MaybeUninit::uninit(); PREFACE.len()];
        let count = SockRef::from(stream).peek(&mut bytes)?;
        if count > seen { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    };
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        match stream.try_io(Interest::READABLE, look) {
            Ok(()) => return Ok(true),
            // It stays ready, and would be looked at without end.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && ready.is_read_closed() => {
                return Ok(false);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, server) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    /// What is told when the client sends these pieces, each once the ones before it have been looked at.
    async fn told(pieces: &[&[u8]]) -> Option<Protocol> {
        let (mut client, server) = pair().await;
        client.set_nodelay(true).unwrap();
        let mut detected = pin!(detect(&server));
        let (last, before) = pieces.split_last().unwrap();
        for piece in before {
            client.write_all(piece).await.unwrap();
            server.readable().await.unwrap();
            let looked = detected.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(looked, Poll::Pending, "{piece:?} of {pieces:?}");
        }
        client.write_all(last).await.unwrap();
        client.shutdown().await.unwrap();
        detected.await
    }

    #[tokio::test]
    async fn http2_is_told_however_its_first_bytes_come() {
        for pieces in [&[&b"PRI * HTTP/2.0"[..]][..], &[b"P", b"RI *"], &[b"PR", b"I *"], &[b"P", b"R", b"I"]]
        {
            assert_eq!(told(pieces).await, Some(Protocol::Http2), "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn what_differs_is_http1_as_soon_as_it_does() {
        for pieces in [&[&b"G"[..]][..], &[b"P", b"O"], &[b"P", b"R", b"OPFIND / HTTP/1.1"]] {
            assert_eq!(told(pieces).await, Some(Protocol::Http1), "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn who_stops_in_the_middle_is_no_longer_waited_for_than_he_stays() {
        for pieces in [&[&b"P"[..]][..], &[b"PR"], &[b"P", b"R"]] {
            assert_eq!(told(pieces).await, Some(Protocol::Http1), "{pieces:?}");
        }
        assert_eq!(told(&[b""]).await, None);
    }
}
