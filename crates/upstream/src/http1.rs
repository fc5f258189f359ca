//! An HTTP/1.1 connection: one request at a time. Dropping it closes the socket, whatever is under way.
//!
//! No task drives it and no channel leads to it: whoever has a request on it reads and writes by polling it, and nothing
//! happens in between. What follows the end of an answer before anything was asked makes it useless: nobody can tell whose
//! answer that would be.

mod chunked;
mod framing;
mod head;
mod outbox;
#[cfg(test)]
mod tests;
mod upload;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::Method;
use http_body::SizeHint;
use refrain_core::DeadlineTimer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use crate::connection::{Told, Unanswered, WireFault};
use crate::connections::Permit;
use crate::request::{Outgoing, SentBody};
use crate::response::Head;
use framing::{Decoded, Framing};
use outbox::Outbox;
use upload::Upload;

/// What is read at once at first, in bytes: doubled by each read that fills it.
const READ_BYTES: usize = 8 * 1024;

/// The most that is read at once, in bytes.
const READ_BYTES_MAX: usize = 128 * 1024;

/// With less room than this, in bytes, more is made before reading.
const READ_ROOM_MIN: usize = 2 * 1024;

/// A stream of bytes to a server, with TLS or without.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One HTTP/1.1 connection.
pub(crate) struct Http1 {
    io: Box<dyn Io>,
    /// Read, and not yet made sense of.
    inbox: BytesMut,
    /// How much is read at once.
    read_bytes: usize,
    outbox: Outbox,
    /// What has yet to be taken of the request's body.
    upload: Option<Upload>,
    stage: Stage,
    /// Kept from request to request: most never get near a deadline.
    timer: DeadlineTimer,
    /// Requests sent on it.
    pub(crate) served: u32,
    /// Requests it takes in all, if the upstream said so.
    pub(crate) served_max: Option<u32>,
    /// Its share of the connections that may be open; none until it is counted.
    pub(crate) permit: Option<Permit>,
}

/// How far the exchange is.
#[derive(Debug)]
enum Stage {
    /// Nothing was asked.
    Idle,
    /// The answer's head is awaited.
    Head {
        /// Whether it was asked for nothing more.
        is_all: bool,
        /// How many bytes of the inbox are known to be no whole head.
        looked_through: usize,
    },
    /// The answer's body is coming.
    Body(Framing),
    /// Nothing can be asked any more.
    Closed,
}

impl Http1 {
    /// Begins to speak HTTP/1.1 on a connection that nothing was sent on.
    pub(crate) fn begin(io: impl Io + 'static) -> Self {
        Self {
            io: Box::new(io),
            inbox: BytesMut::new(),
            read_bytes: READ_BYTES,
            outbox: Outbox::default(),
            upload: None,
            stage: Stage::Idle,
            timer: DeadlineTimer::default(),
            served: 0,
            served_max: None,
            permit: None,
        }
    }

    /// Whether it takes a request now.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// Learns whether the server has closed, or said something unasked, if the runtime knows. Nobody is woken for it from
    /// then on.
    pub(crate) fn look(&mut self) {
        self.timer.detach();
        let mut byte = [0];
        let mut nobody = Context::from_waker(Waker::noop());
        if Pin::new(&mut *self.io).poll_read(&mut nobody, &mut ReadBuf::new(&mut byte)).is_ready() {
            self.stage = Stage::Closed;
        }
    }

    /// Takes a request, if it is ready for one. It is sent as its answer is polled for.
    pub(crate) fn send(&mut self, request: Outgoing<'_>) {
        head::write(&request, self.outbox.front());
        let is_all = *request.method == Method::HEAD;
        match request.body {
            SentBody::Full(body) => self.outbox.push(body),
            SentBody::Stream(..) => self.upload = Upload::of(request.body),
        }
        self.stage = Stage::Head { is_all, looked_through: 0 };
    }

    /// Sends the request, and gives the head of its answer once that is there.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Unanswered>> {
        let polled = ready!(self.poll_head_or_fault(cx));
        Poll::Ready(polled.map_err(|fault| {
            self.stage = Stage::Closed;
            let is_unsent = self.outbox.is_untouched();
            let body = self.upload.take().filter(|_| is_unsent).map(Upload::into_body);
            Unanswered { fault, told: Told::First, is_unsent, body }
        }))
    }

    fn poll_head_or_fault(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, WireFault>> {
        loop {
            self.send_on(cx)?;
            if let Some(head) = self.take_head()? {
                return Poll::Ready(Ok(head));
            }
            if !ready!(self.poll_read(cx))? {
                return Poll::Ready(Err(WireFault::Lost));
            }
        }
    }

    /// The head of the answer, if it is there. Heads that only inform are passed over.
    fn take_head(&mut self) -> Result<Option<Head>, WireFault> {
        while let Stage::Head { is_all, looked_through } = &mut self.stage {
            let Some(read) = head::read(&mut self.inbox, looked_through)? else { break };
            if !read.is_final() {
                continue;
            }
            let (head, framing) = read.judge(*is_all)?;
            self.stage = Stage::Body(framing);
            self.finish_if_done();
            return Ok(Some(head));
        }
        Ok(None)
    }

    /// The next piece of the answer's body, none at its end.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, WireFault>>> {
        let polled = ready!(self.poll_data_or_fault(cx)).transpose();
        if let Some(Err(_)) = polled {
            self.stage = Stage::Closed;
        }
        Poll::Ready(polled)
    }

    fn poll_data_or_fault(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, WireFault>> {
        loop {
            let Stage::Body(framing) = &mut self.stage else { return Poll::Ready(Ok(None)) };
            match framing.decode(&mut self.inbox)? {
                Decoded::Data(data) => {
                    self.finish_if_done();
                    return Poll::Ready(Ok(Some(data)));
                }
                Decoded::End => self.finish_if_done(),
                Decoded::Wanting => {
                    let ends_at_close = framing.ends_at_close();
                    // An early answer: the server may want the rest before it goes on.
                    self.send_on(cx)?;
                    if !ready!(self.poll_read(cx))? {
                        if !ends_at_close {
                            return Poll::Ready(Err(WireFault::Lost));
                        }
                        self.stage = Stage::Closed;
                    }
                }
            }
        }
    }

    /// Whether the answer has ended, or never began.
    pub(crate) fn is_at_end(&self) -> bool {
        matches!(self.stage, Stage::Idle | Stage::Closed)
    }

    /// How much of the body is still to come.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.stage {
            Stage::Body(framing) => framing.size_hint(),
            _ => SizeHint::with_exact(0),
        }
    }

    /// Ready once `deadline` has passed.
    pub(crate) fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        self.timer.poll(cx, deadline)
    }

    /// After the body's last byte: another request may follow, unless something is left over on either side.
    fn finish_if_done(&mut self) {
        let Stage::Body(framing) = &self.stage else { return };
        if !framing.is_done() {
            return;
        }
        let is_clean = self.inbox.is_empty() && self.outbox.is_flushed() && self.upload.is_none();
        self.stage = if is_clean { Stage::Idle } else { Stage::Closed };
        self.outbox.rest();
        if self.read_bytes > READ_BYTES {
            self.read_bytes = READ_BYTES;
            self.inbox = BytesMut::new();
        }
    }

    /// Sends what can be sent now. A server that takes no more may have answered all the same: that is for the reader to
    /// see.
    ///
    /// # Errors
    /// That nothing at all could be sent, or that the request's own body failed.
    fn send_on(&mut self, cx: &mut Context<'_>) -> Result<(), WireFault> {
        loop {
            match self.outbox.poll_flush(Pin::new(&mut *self.io), cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) if self.outbox.is_untouched() => return Err(WireFault::Lost),
                Poll::Ready(Err(_)) => {
                    self.upload = None;
                    self.outbox.give_up();
                }
            }
            let Some(upload) = &mut self.upload else { return Ok(()) };
            match upload.poll_into(&mut self.outbox, cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => self.upload = None,
                Poll::Ready(Err(fault)) => return Err(fault),
            }
        }
    }

    /// Reads what there is; false: nothing more will come.
    ///
    /// # Errors
    /// That the connection broke. A body until its close ends cleanly by an orderly close alone.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, WireFault>> {
        if self.inbox.capacity() - self.inbox.len() < READ_ROOM_MIN {
            self.inbox.reserve(self.read_bytes);
        }
        let room = self.inbox.capacity() - self.inbox.len();
        let read = ready!(poll_read_buf(Pin::new(&mut *self.io), cx, &mut self.inbox));
        let bytes = read.map_err(|_| WireFault::Lost)?;
        if bytes == room {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        }
        Poll::Ready(Ok(bytes > 0))
    }
}

impl fmt::Debug for Http1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, served, served_max, .. } = self;
        let mut fields = f.debug_struct("Http1");
        fields.field("stage", stage).field("served", served).field("served_max", served_max);
        fields.finish_non_exhaustive()
    }
}
