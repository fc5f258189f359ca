//! A client's byte stream with bounds that hyper has none for: how long the client may take nothing of what waits for it,
//! and how many HTTP/2 frames it may send that ask for nothing. And with an end that the client sees.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use refrain_core::DeadlineTimer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::ended::{self, Ended};
use super::frames::FrameBudget;
use super::head_timer::Arrivals;
use super::linger::Linger;

/// The stream, plain or decrypted.
pub(super) struct ClientIo<S> {
    stream: S,
    arrivals: Arrivals,
    /// With HTTP/2.
    frames: Option<FrameBudget>,
    write_timeout: Duration,
    timer: DeadlineTimer,
    /// Since when the client takes nothing.
    stalled_since: Option<Instant>,
    linger: Linger,
}

impl<S> ClientIo<S> {
    /// A stream of HTTP/1.
    pub(super) fn new(stream: S, arrivals: Arrivals, write_timeout: Duration) -> Self {
        Self {
            stream,
            arrivals,
            frames: None,
            write_timeout,
            timer: DeadlineTimer::default(),
            stalled_since: None,
            linger: Linger::default(),
        }
    }

    /// One whose end waits for a client that is still sending.
    pub(super) fn with_linger(mut self, linger: Linger) -> Self {
        self.linger = linger;
        self
    }

    /// Of HTTP/2.
    pub(super) fn with_frames(mut self, frames: FrameBudget) -> Self {
        self.frames = Some(frames);
        self
    }

    fn read(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.arrivals.note();
        let Some(frames) = &mut self.frames else { return Ok(()) };
        frames.take(bytes, Instant::now()).map_err(|_flood| {
            ended::count(Ended::FrameFlood);
            io::Error::other("too many HTTP/2 frames that ask for nothing")
        })
    }

    /// What became of a try to write; an error once the tries have failed for too long.
    fn wrote<T>(&mut self, cx: &mut Context<'_>, tried: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if tried.is_ready() {
            self.stalled_since = None;
            return tried;
        }
        let since = *self.stalled_since.get_or_insert_with(Instant::now);
        match self.timer.poll(cx, since + self.write_timeout) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                ended::count(Ended::SlowReader);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
            }
        }
    }

    fn sent(&mut self, written: &Poll<io::Result<usize>>) {
        if let (Some(frames), Poll::Ready(Ok(bytes))) = (&mut self.frames, written) {
            frames.earn(*bytes);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(self.read(buf.filled().get(before..).unwrap_or_default()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.sent(&written);
        self.wrote(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.sent(&written);
        self.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.wrote(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
        std::task::ready!(this.wrote(cx, shut))?;
        this.linger.poll(cx, &mut this.stream).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up_and_one_that_takes_a_little_is_not() {
        let (client, mut server) = tokio::io::duplex(1000);
        let mut stream = ClientIo::new(client, Arrivals::default(), PATIENCE);
        stream.write_all(&[0; 1000]).await.unwrap();
        let reading = async {
            for _ in 0..3 {
                tokio::time::advance(PATIENCE - Duration::from_secs(1)).await;
                server.read_exact(&mut [0; 100]).await.unwrap();
                tokio::task::yield_now().await;
            }
            server
        };
        let (written, _server) = tokio::join!(stream.write_all(&[0; 300]), reading);
        written.unwrap();
        let begun = Instant::now();
        assert_eq!(stream.write(&[0]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_in_which_nothing_waits_to_be_sent_is_no_stall() {
        let (client, _server) = tokio::io::duplex(1000);
        let mut stream = ClientIo::new(client, Arrivals::default(), PATIENCE);
        stream.write_all(b"first").await.unwrap();
        tokio::time::advance(PATIENCE * 10).await;
        stream.write_all(b"second").await.unwrap();
    }
}
