//! An HTTP/2 connection: many requests at a time, each on a stream of its own. Tasks drive it; it ends when nobody holds it
//! and no stream is open.
//!
//! Giving a stream up resets that stream alone (RST_STREAM).

use std::error::Error as _;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response};
use http_body::{Body, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use refrain_core::{DeadlineTimer, Tasks};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::connect::HEAD_BYTES_MAX;
use crate::connection::{Told, Unanswered, WireFault};
use crate::connections::{Connections, Permit};
use crate::request::SentBody;
use crate::response::Head;

/// Most streams of a connection, whatever the server allows.
pub(crate) const STREAMS_MAX: usize = 100;

/// What a stream may send before somebody has read it, in bytes.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;

/// The same for all streams together: clients that read slowly never hold up the streams of others.
const CONNECTION_WINDOW_BYTES: u32 = STREAMS_MAX as u32 * STREAM_WINDOW_BYTES;

/// How long a connection with open streams may be silent before it is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long the sign may take.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// One HTTP/2 connection.
pub(crate) struct Http2 {
    sender: SendRequest<SentBody>,
    /// Gone once the connection has ended.
    driver: Weak<Mutex<dyn Driver>>,
    /// Its share of the connections that may be open; none until it is counted.
    pub(crate) permit: Option<Permit>,
    /// Whether the loss of it was told.
    is_lost: AtomicBool,
}

impl Http2 {
    /// Begins to speak HTTP/2 on a connection that nothing was sent on. Does not wait for the server's word.
    pub(crate) async fn begin<T>(io: T, tasks: &Tasks) -> hyper::Result<Self>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(Tracked(tasks.clone()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake::<_, SentBody>(TokioIo::new(io))
            .await?;
        let driver = Arc::new(Mutex::new(connection));
        let line = Self {
            sender,
            driver: Arc::downgrade(&driver) as Weak<Mutex<dyn Driver>>,
            permit: None,
            is_lost: AtomicBool::new(false),
        };
        tasks.spawn(async move {
            // Errors reach whoever waits for an answer on it.
            let _ = poll_fn(|cx| Pin::new(&mut *driver.lock()).poll(cx)).await;
        });
        Ok(line)
    }

    /// Whether it takes no more requests.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Streams that may be open at once, as the server last said.
    pub(crate) fn streams_max(&self) -> usize {
        let driver = self.driver.upgrade();
        // Never waits: whoever drives it may want what our caller has locked.
        let allowed = driver.as_ref().and_then(|driver| Some(driver.try_lock()?.streams_allowed()));
        allowed.unwrap_or(STREAMS_MAX).min(STREAMS_MAX)
    }
}

/// A connection, whatever it runs over.
trait Driver: Send {
    /// What the server allows at once.
    fn streams_allowed(&self) -> usize;
}

impl<T> Driver for http2::Connection<TokioIo<T>, SentBody, Tracked>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn streams_allowed(&self) -> usize {
        self.current_max_send_streams()
    }
}

impl fmt::Debug for Http2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// The right to one stream of a connection: counted until dropped.
pub(crate) struct Stream {
    sender: SendRequest<SentBody>,
    state: StreamState,
    timer: DeadlineTimer,
    line: Arc<Http2>,
    home: Weak<Connections>,
    endpoint_key: u64,
}

type Answering = dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<SentBody>>>> + Send;

/// How far the exchange is.
enum StreamState {
    /// Nothing was asked, or the answer is over.
    Idle,
    Asked(Pin<Box<Answering>>),
    Answered(Incoming),
}

impl Stream {
    /// A stream that `home` has counted already.
    pub(crate) fn new(line: &Arc<Http2>, home: &Arc<Connections>, endpoint_key: u64) -> Self {
        Self {
            sender: line.sender.clone(),
            state: StreamState::Idle,
            timer: DeadlineTimer::default(),
            line: line.clone(),
            home: Arc::downgrade(home),
            endpoint_key,
        }
    }

    /// Sends a request. It goes on its way at once.
    pub(crate) fn send(&mut self, request: Request<SentBody>) {
        self.state = StreamState::Asked(Box::pin(self.sender.try_send_request(request)));
    }

    /// The head of the answer, once it is there.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Unanswered>> {
        let StreamState::Asked(answering) = &mut self.state else {
            return Poll::Ready(Err(Unanswered::by(WireFault::Lost)));
        };
        let answered = ready!(answering.as_mut().poll(cx));
        self.state = StreamState::Idle;
        Poll::Ready(match answered {
            Ok(response) => self.answered(response),
            Err(failed) => Err(self.unanswered(failed)),
        })
    }

    fn answered(&mut self, response: Response<Incoming>) -> Result<Head, Unanswered> {
        let (parts, body) = response.into_parts();
        let (head, _) = Head::of(parts.version, parts.status, parts.headers).map_err(Unanswered::by)?;
        if !body.is_end_stream() {
            self.state = StreamState::Answered(body);
        }
        Ok(head)
    }

    fn unanswered(&self, mut failed: TrySendError<Request<SentBody>>) -> Unanswered {
        let body = failed.take_message().map(Request::into_body);
        let error = failed.error();
        let of_http2 = Http2Fault::of(error);
        let fault = if error.is_parse_too_large() {
            WireFault::Malformed("its head is too large")
        } else if of_http2 == Some(Http2Fault::Protocol) {
            WireFault::Malformed("it is not HTTP/2")
        } else if error.is_user() || of_http2 == Some(Http2Fault::RequestBody) {
            WireFault::RequestBody
        } else {
            WireFault::Lost
        };
        let is_unsent = body.is_some() || of_http2 == Some(Http2Fault::Unprocessed);
        Unanswered { fault, told: self.note(error), is_unsent, body }
    }

    /// The next piece of the answer's body; none at its end.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, (WireFault, Told)>>> {
        while let StreamState::Answered(body) = &mut self.state {
            let data = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().ok(),
                Some(Err(error)) => {
                    self.state = StreamState::Idle;
                    return Poll::Ready(Some(Err((broken(&error), self.note(&error)))));
                }
                None => None,
            };
            if body.is_end_stream() {
                self.state = StreamState::Idle;
            }
            if let Some(data) = data {
                return Poll::Ready(Some(Ok(data)));
            }
        }
        Poll::Ready(None)
    }

    /// Whether the body has ended.
    pub(crate) fn is_at_end(&self) -> bool {
        matches!(self.state, StreamState::Idle)
    }

    /// How much of the body is still to come.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.state {
            StreamState::Answered(body) => body.size_hint(),
            _ => SizeHint::with_exact(0),
        }
    }

    /// Ready once `deadline` has passed.
    pub(crate) fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        self.timer.poll(cx, deadline)
    }

    /// Draws the conclusion for the connection from an error of the stream: unless that was the stream's alone, nobody
    /// takes another one of it.
    fn note(&self, error: &hyper::Error) -> Told {
        if of_http2(error).is_some_and(h2::Error::is_reset) {
            return Told::First;
        }
        if let Some(home) = self.home.upgrade() {
            home.retire(self.endpoint_key, &self.line);
        }
        if self.line.is_lost.swap(true, Relaxed) { Told::Before } else { Told::First }
    }
}

/// A body error: the framing was wrong, or (all else) the stream ended before the body did.
fn broken(error: &hyper::Error) -> WireFault {
    if Http2Fault::of(error) == Some(Http2Fault::Protocol) {
        return WireFault::Malformed("the framing of the body is wrong");
    }
    WireFault::Lost
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.stream_ended(self.endpoint_key, &self.line);
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("line", &self.line).finish_non_exhaustive()
    }
}

/// What HTTP/2 has to say of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Http2Fault {
    /// The server did not process the request, and says so (RFC 9113, section 8.7).
    Unprocessed,
    /// The server breaks the protocol.
    Protocol,
    /// We reset the stream because the request's body failed.
    RequestBody,
    /// The server reset the stream, or the connection was lost.
    Lost,
}

impl Http2Fault {
    /// None if HTTP/2 has no part in it.
    fn of(error: &hyper::Error) -> Option<Self> {
        let error = of_http2(error)?;
        let refused = error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM);
        Some(match () {
            () if error.is_remote() && refused => Self::Unprocessed,
            () if error.is_library() => Self::Protocol,
            () if error.is_reset() && !error.is_remote() => Self::RequestBody,
            () => Self::Lost,
        })
    }
}

fn of_http2(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}

/// Spawns hyper's tasks so that draining waits for them.
#[derive(Clone)]
struct Tracked(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tracked {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
