//! The end of an HTTP/1 connection whose client is still sending a body that nobody reads any more.
//!
//! A system that closes a connection with bytes unread resets it, and a client that is reset may lose the answer that says
//! why: a 401, a 413, a 429 with its `Retry-After`. So, for a moment, what still comes is taken and thrown away.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use refrain_core::DeadlineTimer;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

/// How long, at most. A client that has its answer mostly leaves at once.
const LINGER_MAX: Duration = Duration::from_secs(5);

/// Bytes thrown away at once.
const PIECE_BYTES: usize = 8 * 1024;

/// Whether the client may still be sending what its last answer did not wait for.
#[derive(Clone, Default)]
pub(super) struct Unread(Arc<AtomicBool>);

impl Unread {
    /// Told with each answer, and when the next request is waited for.
    pub(super) fn set(&self, is_unread: bool) {
        self.0.store(is_unread, Ordering::Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Takes what still comes once all was said.
#[derive(Default)]
pub(super) struct Linger {
    unread: Unread,
    until: Option<Instant>,
    timer: DeadlineTimer,
}

impl Linger {
    /// Of a connection whose service tells of bodies here.
    pub(super) fn new(unread: Unread) -> Self {
        Self { unread, ..Self::default() }
    }

    /// Ready when the client has left, or has had its time, or nothing is left unread.
    pub(super) fn poll<S: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, stream: &mut S) -> Poll<()> {
        if !self.unread.is_set() {
            return Poll::Ready(());
        }
        let until = *self.until.get_or_insert_with(|| Instant::now() + LINGER_MAX);
        let mut piece = [0; PIECE_BYTES];
        while Instant::now() < until {
            let mut piece = ReadBuf::new(&mut piece);
            match Pin::new(&mut *stream).poll_read(cx, &mut piece) {
                Poll::Ready(Ok(())) if !piece.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.timer.poll(cx, until),
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn lingered(is_unread: bool, stream: &mut (impl AsyncRead + Unpin)) -> Duration {
        let (unread, begun) = (Unread::default(), Instant::now());
        unread.set(is_unread);
        let mut linger = Linger::new(unread);
        poll_fn(|cx| linger.poll(cx, stream)).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_still_sends_is_taken_until_it_leaves() {
        let (mut client, mut server) = tokio::io::duplex(100);
        let sending = async move { client.write_all(&[7; 100_000]).await };
        let (sent, lingered) = tokio::join!(sending, lingered(true, &mut server));
        sent.unwrap();
        assert!(lingered < LINGER_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_neither_sends_nor_leaves_has_its_time() {
        let (_client, mut server) = tokio::io::duplex(100);
        assert_eq!(lingered(true, &mut server).await, LINGER_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_where_all_was_read() {
        let (_client, mut server) = tokio::io::duplex(100);
        assert_eq!(lingered(false, &mut server).await, Duration::ZERO);
    }
}
