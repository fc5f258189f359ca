//! HTTP/2 streams as tasks: counted, and ended when their client takes nothing.
//!
//! A client can stop one stream by its flow-control window while the connection goes on; the stream's answer then holds its
//! place at the model server and its memory, and nobody polls it. So each stream's task is watched by a timer of its own.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_LENGTH;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use refrain_core::{DeadlineTimer, Tasks};
use tokio::time::{Instant, sleep};

use super::ended::{self, Ended};
use crate::body::{Body, BrokenOff};

/// Bytes handed to a stream at once, so that little is out of the watch's sight. A default window's worth.
const PIECE_BYTES_MAX: usize = 64 * 1024;

tokio::task_local! {
    /// What a stream's own task knows of its answer. hyper makes the task, and calls the service within it.
    static PROGRESS: Arc<Progress>;
}

/// When the last piece was handed to the stream; none: the stream waits for more.
#[derive(Default)]
struct Progress(Mutex<Option<Instant>>);

/// Spawns a connection's streams so that draining waits for them.
#[derive(Clone)]
pub(super) struct Streams {
    tasks: Tasks,
    counts: Arc<Counts>,
    write_timeout: Duration,
}

#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Streams {
    /// Of a connection that has none yet.
    pub(super) fn new(tasks: Tasks, write_timeout: Duration) -> Self {
        Self { tasks, counts: Arc::default(), write_timeout }
    }

    /// Ends once no stream was open for about `patience`.
    pub(super) async fn idle(&self, patience: Duration) {
        const LOOKS: u32 = 4;
        let (mut quiet, mut begun_before) = (0, 0);
        while quiet < LOOKS {
            sleep(patience / LOOKS).await;
            let begun = self.counts.begun.load(Ordering::Relaxed);
            let is_quiet = begun == begun_before && self.counts.ended.load(Ordering::Relaxed) == begun;
            quiet = if is_quiet { quiet + 1 } else { 0 };
            begun_before = begun;
        }
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let open = Open::new(self.counts.clone());
        let write_timeout = self.write_timeout;
        self.tasks.spawn(async move {
            let _open = open;
            let progress = Arc::new(Progress::default());
            tokio::select! {
                biased;
                _ = PROGRESS.scope(progress.clone(), stream) => {}
                // Dropping the stream resets it, and ends what answered it.
                () = progress.stalled(write_timeout) => ended::count(Ended::SlowReader),
            }
        });
    }
}

/// An open stream.
struct Open(Arc<Counts>);

impl Open {
    fn new(counts: Arc<Counts>) -> Self {
        counts.begun.fetch_add(1, Ordering::Relaxed);
        Self(counts)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Progress {
    /// Ends once the stream has not asked for more within `patience`. Polled along with the stream, so that it sees each
    /// change without being told.
    async fn stalled(&self, patience: Duration) {
        let mut timer = DeadlineTimer::default();
        poll_fn(|cx| match *self.0.lock() {
            Some(handed) => timer.poll(cx, handed + patience),
            None => Poll::Pending,
        })
        .await;
    }
}

/// An answer on its way into a stream.
pub(super) struct Paced {
    body: Body,
    /// Of a piece that was too large.
    rest: Bytes,
    progress: Arc<Progress>,
}

/// The head of an answer alone, as an answer to HEAD: hyper leaves the body out with HTTP/1 only.
pub(super) fn without_body(mut response: Response<Body>) -> Response<Body> {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    response.map(|_body| Body::full(Bytes::new()))
}

/// The answer in a form whose progress the stream's task sees.
pub(super) fn paced(response: Response<Body>) -> Response<Paced> {
    let progress = PROGRESS.try_with(Arc::clone).unwrap_or_default();
    response.map(|body| Paced { body, rest: Bytes::new(), progress })
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => {
                    *this.progress.0.lock() = None;
                    return other;
                }
            }
        }
        *this.progress.0.lock() = Some(Instant::now());
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES_MAX));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.size_hint();
        match hint.exact() {
            Some(length) => SizeHint::with_exact(length + self.rest.len() as u64),
            None => hint,
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::rt::Executor;
    use tokio::sync::oneshot;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn whole(bytes: usize) -> Paced {
        paced(Response::new(Body::full(vec![7; bytes].into()))).into_body()
    }

    async fn next(body: &mut Paced) -> Option<usize> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        frame.map(|frame| frame.unwrap().into_data().unwrap().len())
    }

    #[tokio::test]
    async fn a_large_answer_goes_in_pieces_and_says_its_whole_length() {
        let mut body = whole(150_000);
        assert_eq!(body.size_hint().exact(), Some(150_000));
        let mut sizes = Vec::new();
        while !body.is_end_stream() {
            sizes.push(next(&mut body).await.unwrap());
        }
        assert_eq!(sizes, [65_536, 65_536, 18_928]);
        assert_eq!(next(&mut body).await, None);
    }

    #[test]
    fn an_answer_to_head_says_how_long_it_would_be_and_is_empty() {
        let response = without_body(Response::new(Body::full("four".into())));
        assert_eq!(response.headers()[CONTENT_LENGTH], "4");
        assert!(response.body().is_end_stream());
    }

    /// Runs a stream's task; whether it came to its own end.
    async fn run(stream: impl Future<Output = ()> + Send + 'static) -> (bool, Duration) {
        let (streams, begun) = (Streams::new(Tasks::new(), PATIENCE), Instant::now());
        let (done, ended) = oneshot::channel();
        streams.execute(async move {
            stream.await;
            let _ = done.send(());
        });
        (ended.await.is_ok(), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_client_takes_nothing_is_dropped() {
        let stuck = run(async {
            let mut body = whole(100);
            next(&mut body).await;
            std::future::pending::<()>().await;
            drop(body);
        });
        assert_eq!(stuck.await, (false, PATIENCE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_waits_for_its_answer_is_left_alone() {
        let slow = run(async {
            sleep(PATIENCE * 10).await;
            let mut body = whole(100);
            while next(&mut body).await.is_some() {
                sleep(PATIENCE / 2).await;
            }
            sleep(PATIENCE * 10).await;
        });
        assert!(slow.await.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_no_stream_was_open_for_a_while() {
        let (streams, begun) = (Streams::new(Tasks::new(), PATIENCE), Instant::now());
        streams.execute(sleep(PATIENCE * 5));
        streams.idle(PATIENCE).await;
        assert!(begun.elapsed() >= PATIENCE * 6 && begun.elapsed() <= PATIENCE * 7, "{:?}", begun.elapsed());
    }
}
