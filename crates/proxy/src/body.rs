//! Response bodies: whole ones, and relays of what an upstream is still saying.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use refrain_core::{Code, Dialect};
use refrain_llm::answer::Form;
use refrain_llm::response_id::{ResponseId, ResponseIdFinder};
use refrain_llm::stream::{UsageFilter, WholeEvents};
use refrain_llm::usage::UsageObserver;
use refrain_upstream::UpstreamStream;

use crate::error_response;
use crate::generate::code_of;
use crate::leader::Reading;
use crate::origin::{Dispatched, Origin};
use crate::tally::{Ending, Tally};

/// Chunks that are ready at once are joined up to this size: fewer frames and fewer writes for the same bytes.
const JOIN_BYTES_MAX: usize = 64 * 1024;

/// What a client is sent.
pub struct Body {
    content: Content,
    /// Where it comes from, until its record knows.
    origin: Origin,
    /// Settled when the body has ended or is dropped.
    tally: Option<Box<Tally>>,
}

enum Content {
    Full(Bytes),
    Relay(Box<Relay>),
}

/// The connection must be broken off: the body can't be completed, and no event can say so.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off: {}", .0.as_str())]
pub struct BrokenOff(Code);

/// Where a relay's bytes come from.
pub(crate) enum Source {
    /// An answer that only this client gets.
    Upstream(UpstreamStream),
    /// A generation that others may share.
    Flight(Reading),
}

/// Passes an upstream's bytes on as they come.
pub(crate) struct Relay {
    source: Source,
    passing: Passing,
    /// Looks for the response's id.
    watch: Option<ResponseIdWatch>,
    /// Counts what passes.
    count: Option<TokenCount>,
    /// The dialect in which a stream says that it failed; none: a whole body, which can only break off.
    stream: Option<Dialect>,
    /// Bytes to come, if known.
    length: Option<u64>,
    /// What to say after what was already handed out.
    end: Option<End>,
    ended: bool,
    /// Why it broke off, if it did.
    failed: Option<Code>,
}

/// Counts the tokens of what passes, and tells them once that has ended in whichever way.
struct TokenCount {
    observer: UsageObserver,
    dispatched: Arc<Dispatched>,
}

impl Drop for TokenCount {
    fn drop(&mut self) {
        self.dispatched.passed(self.observer.usage(), self.observer.passed_tokens());
    }
}

/// Looks for the id of a stored response in what passes.
struct ResponseIdWatch {
    finder: ResponseIdFinder,
    found: Box<dyn FnOnce(&str) + Send>,
}

impl ResponseIdWatch {
    /// Gone once there is nothing more to look for.
    fn look(mut self, chunk: &[u8]) -> Option<Self> {
        match self.finder.feed(chunk) {
            ResponseId::Awaited => Some(self),
            ResponseId::Found(id) => {
                (self.found)(&id);
                None
            }
            ResponseId::Absent => None,
        }
    }
}

/// What of the bytes is handed out, and when.
enum Passing {
    /// All, at once.
    Whatever,
    /// All, a stream's event once it is whole.
    Events(WholeEvents),
    /// All events but the usage chunk that Refrain asked for.
    WithoutUsage(UsageFilter),
}

enum End {
    Complete,
    Failed(Code),
}

impl Body {
    /// A body that is known.
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self { content: Content::Full(bytes), origin: Origin::Own, tally: None }
    }

    /// No body.
    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// A body that is on its way.
    pub(crate) fn relay(relay: Relay) -> Self {
        Self { content: Content::Relay(Box::new(relay)), origin: Origin::Own, tally: None }
    }

    /// Says where it comes from.
    pub(crate) fn from(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// Where it comes from.
    pub(crate) fn take_origin(&mut self) -> Origin {
        std::mem::take(&mut self.origin)
    }

    /// Counts what passes of a generation, which may break off before its usage is known.
    pub(crate) fn count_tokens(&mut self) {
        if let (Content::Relay(relay), Origin::Flight(dispatched)) = (&mut self.content, &self.origin) {
            let (dialect, form) =
                relay.stream.map_or((Dialect::OpenAi, Form::Whole), |dialect| (dialect, Form::Stream));
            relay.count = Some(TokenCount {
                observer: UsageObserver::new(dialect, form),
                dispatched: dispatched.clone(),
            });
        }
    }

    /// Whether it is a stream of events.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(&self.content, Content::Relay(relay) if relay.stream.is_some())
    }

    /// Keeps this record from now on.
    pub(crate) fn with_tally(mut self, tally: Box<Tally>) -> Self {
        self.tally = Some(tally);
        self
    }
}

impl Content {
    /// How it ended, once all of it was handed out: `sent` bytes. Of a body whose length is announced, nobody asks for the end.
    fn ending(&self, sent: u64) -> Option<Ending> {
        match self {
            Self::Full(bytes) => bytes.is_empty().then_some(Ending::Complete),
            Self::Relay(relay) => match relay.failed {
                Some(code) => Some(Ending::Failed(code)),
                None => (relay.is_ended() || relay.length == Some(sent)).then_some(Ending::Complete),
            },
        }
    }
}

impl Relay {
    /// Relays `source`. `stream` is the dialect if it is a stream; `length` the announced length if it is passed on.
    pub(crate) fn new(source: Source, stream: Option<Dialect>, length: Option<u64>) -> Self {
        let passing = stream.map_or(Passing::Whatever, |dialect| Passing::Events(WholeEvents::new(dialect)));
        Self {
            source,
            passing,
            watch: None,
            count: None,
            stream,
            length,
            end: None,
            ended: false,
            failed: None,
        }
    }

    /// Hides the usage chunk.
    pub(crate) fn without_usage(mut self) -> Self {
        self.passing = Passing::WithoutUsage(UsageFilter::new());
        self
    }

    /// Counts the tokens of what passes.
    pub(crate) fn with_count(mut self, observer: UsageObserver, dispatched: &Arc<Dispatched>) -> Self {
        self.count = Some(TokenCount { observer, dispatched: dispatched.clone() });
        self
    }

    /// Tells the id of a stored response once it passes.
    pub(crate) fn with_response_id(mut self, found: Box<dyn FnOnce(&str) + Send>) -> Self {
        self.watch = Some(ResponseIdWatch { finder: ResponseIdFinder::default(), found });
        self
    }

    /// Whether nothing follows what was handed out.
    fn is_ended(&self) -> bool {
        self.ended || (self.passing.holds_nothing() && matches!(self.end, Some(End::Complete)))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let ready = self.gather(cx);
        if !ready.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(ready))));
        }
        match self.end.take() {
            None => Poll::Pending,
            Some(End::Complete) => {
                self.ended = true;
                let rest = std::mem::replace(&mut self.passing, Passing::Whatever).finish();
                if rest.is_empty() { Poll::Ready(None) } else { Poll::Ready(Some(Ok(Frame::data(rest)))) }
            }
            Some(End::Failed(code)) => {
                self.ended = true;
                self.failed = Some(code);
                Poll::Ready(Some(self.broken_off(code)))
            }
        }
    }

    /// Everything that is ready now. Sets `end` at the end; empty without `end` means: wait.
    fn gather(&mut self, cx: &mut Context<'_>) -> Bytes {
        let mut ready = Bytes::new();
        let mut joined = BytesMut::new();
        while self.end.is_none() && ready.len().max(joined.len()) < JOIN_BYTES_MAX {
            match self.source.poll_chunk(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.end = Some(End::Complete),
                Poll::Ready(Some(Err(code))) => self.end = Some(End::Failed(code)),
                Poll::Ready(Some(Ok(chunk))) => {
                    self.watch = self.watch.take().and_then(|watch| watch.look(&chunk));
                    if let Some(count) = &mut self.count {
                        count.observer.feed(&chunk);
                    }
                    let chunk = self.passing.feed(chunk);
                    if ready.is_empty() && joined.is_empty() {
                        ready = chunk;
                        continue;
                    }
                    if joined.is_empty() {
                        joined.extend_from_slice(&ready);
                    }
                    joined.extend_from_slice(&chunk);
                }
            }
        }
        if joined.is_empty() { ready } else { joined.freeze() }
    }

    fn broken_off(&self, code: Code) -> Result<Frame<Bytes>, BrokenOff> {
        match self.stream {
            Some(dialect) => {
                let message = "the model server broke off its answer";
                Ok(Frame::data(error_response::event(code, message, dialect)))
            }
            None => Err(BrokenOff(code)),
        }
    }
}

impl Passing {
    fn feed(&mut self, chunk: Bytes) -> Bytes {
        match self {
            Self::Whatever => chunk,
            Self::Events(events) => events.feed(chunk),
            Self::WithoutUsage(filter) => filter.feed(chunk),
        }
    }

    /// What is left at a clean end.
    fn finish(self) -> Bytes {
        match self {
            Self::Whatever => Bytes::new(),
            Self::Events(events) => events.finish(),
            Self::WithoutUsage(filter) => filter.finish(),
        }
    }

    /// Whether it is known that nothing will be left.
    fn holds_nothing(&self) -> bool {
        match self {
            Self::Whatever => true,
            Self::Events(events) => events.is_empty(),
            Self::WithoutUsage(_) => false,
        }
    }
}

impl Source {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Code>>> {
        match self {
            Self::Upstream(stream) => {
                stream.poll_chunk(cx).map(|chunk| chunk.map(|chunk| chunk.map_err(|error| error.code())))
            }
            Self::Flight(reading) => {
                reading.poll_chunk(cx).map(|chunk| chunk.map(|chunk| chunk.map_err(code_of)))
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = self.get_mut();
        let frame = match &mut this.content {
            Content::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Relay(relay) => relay.poll(cx),
        };
        if let (Some(tally), Poll::Ready(polled)) = (&mut this.tally, &frame) {
            if let Some(Ok(frame)) = polled {
                tally.sent(frame.data_ref().map_or(0, Bytes::len));
            }
            if let Some(ending) = this.content.ending(tally.pace.bytes) {
                tally.ended(ending);
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Full(bytes) => bytes.is_empty(),
            Content::Relay(relay) => relay.is_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Relay(relay) => relay.length.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
