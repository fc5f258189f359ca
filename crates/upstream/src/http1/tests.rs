//! A connection against scripted bytes, and against what hyper makes of the same ones.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use bytes::Buf;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use refrain_core::settings::Endpoint;

use super::*;
use crate::endpoint::EndpointState;
use crate::request::{BoxError, Progress, UpstreamBody};

/// The server's end of a connection: says these pieces once something was sent to it, then closes.
#[derive(Clone)]
struct Script {
    says: VecDeque<Vec<u8>>,
    /// Taken at once, in bytes.
    takes: usize,
    /// Taken in all; then it is as this says.
    limit: (usize, Limit),
    heard: Arc<Mutex<Vec<u8>>>,
    reader: Option<Waker>,
}

#[derive(Clone, Copy)]
enum Limit {
    Blocks,
    Breaks,
}

impl Script {
    fn saying<T: AsRef<[u8]>>(pieces: impl IntoIterator<Item = T>) -> Self {
        let says = pieces.into_iter().map(|piece| piece.as_ref().to_vec()).collect();
        Self {
            says,
            takes: usize::MAX,
            limit: (usize::MAX, Limit::Breaks),
            heard: Arc::default(),
            reader: None,
        }
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.heard.lock().is_empty() {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if let Some(piece) = self.says.front_mut() {
            let bytes = piece.len().min(buf.remaining());
            buf.put_slice(&piece[..bytes]);
            piece.drain(..bytes);
            if piece.is_empty() {
                self.says.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        let mut heard = self.heard.lock();
        let bytes = &bytes[..bytes.len().min(self.takes).min(self.limit.0 - heard.len())];
        heard.extend_from_slice(bytes);
        match self.limit.1 {
            _ if !bytes.is_empty() => Poll::Ready(Ok(bytes.len())),
            Limit::Blocks => Poll::Pending,
            Limit::Breaks => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.poll_write(cx, &all)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn asked(script: Script, method: Method, body: SentBody) -> Http1 {
    asked_for(PathAndQuery::from_static("/v1"), script, method, body)
}

fn asked_for(target: PathAndQuery, script: Script, method: Method, body: SentBody) -> Http1 {
    let endpoint = EndpointState::new(&Endpoint::plain("s", "server", 80)).unwrap();
    let headers = HeaderMap::new();
    let mut line = Http1::begin(script);
    line.send(Outgoing::new(&endpoint, &method, &target, &headers, body).unwrap());
    line
}

fn streamed(pieces: Vec<Result<Vec<u8>, BoxError>>) -> SentBody {
    let frames =
        pieces.into_iter().map(|piece| piece.map(|piece| http_body::Frame::data(Bytes::from(piece))));
    let body = UpstreamBody::stream(StreamBody::new(futures_util::stream::iter(frames)));
    let UpstreamBody::Stream(body) = body else { unreachable!() };
    SentBody::Stream(body, Progress::new(Instant::now()))
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Whole(StatusCode, Vec<u8>),
    Broken,
}

/// Nothing waits here but what a script lets wait for ever.
fn now<T>(does: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(does)
}

fn ours(script: Script, method: Method) -> (Outcome, Http1) {
    let mut line = asked(script, method, SentBody::Full(Bytes::new()));
    let outcome = now(async {
        let Ok(head) = poll_fn(|cx| line.poll_head(cx)).await else { return Outcome::Broken };
        let mut whole = Vec::new();
        while let Some(data) = poll_fn(|cx| line.poll_data(cx)).await {
            let Ok(data) = data else { return Outcome::Broken };
            assert!(!data.is_empty());
            whole.extend_from_slice(&data);
        }
        assert!(line.is_at_end());
        Outcome::Whole(head.status, whole)
    });
    (outcome, line)
}

fn hypers(script: Script, method: Method) -> Outcome {
    let script = Script { heard: Arc::default(), ..script };
    now(async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(script)).await.unwrap();
        let request = Request::builder().method(method).uri("/v1").header("host", "server");
        let request = request.body(http_body_util::Empty::<Bytes>::new()).unwrap();
        let exchange = async {
            let response = sender.send_request(request).await.ok()?;
            let status = response.status();
            let whole = response.into_body().collect().await.ok()?.to_bytes();
            Some(Outcome::Whole(status, whole.to_vec()))
        };
        let (outcome, _) = tokio::join!(exchange, connection);
        outcome.unwrap_or(Outcome::Broken)
    })
}

/// The same bytes, cut at these places.
fn cut(wire: &[u8], cuts: &[Index]) -> Script {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
    cuts.extend([0, wire.len()]);
    cuts.sort_unstable();
    // An empty read would be the end.
    Script::saying(cuts.windows(2).map(|cut| &wire[cut[0]..cut[1]]).filter(|piece| !piece.is_empty()))
}

const STATUS_LINES: [&str; 7] = [
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.1 304 Not Modified\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
    "HTTP/1.1 500\r\n",
    "HTTP/2.0 200 OK\r\n",
];

const FIELDS: [&str; 15] = [
    "content-length: 5\r\n",
    "Content-Length: 3\r\n",
    "content-length: 5, 5\r\n",
    "content-length: +5\r\n",
    "content-length:\r\n",
    "transfer-encoding: chunked\r\n",
    "transfer-encoding: chunked\n",
    "transfer-encoding: gzip\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "connection: close\r\n",
    "connection: keep-alive\r\n",
    "x: y\r\n",
    "x : y\r\n",
    " folded\r\n",
    "no colon\r\n",
];

const BODY_PARTS: [&str; 16] = [
    "5\r\nhello\r\n",
    "3;ext=\"1\"\r\nabc\r\n",
    "0005 \r\nhello\r\n",
    "A\r\n5\r\nhello\r\n\r\n",
    "5\nhello\r\n",
    "5\r\nhello\n",
    "5\r\nhello!\r\n",
    "+5\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\n\r\n",
    "0\r\nt: u\r\n\r\n",
    "0\r\nno colon\r\n\r\n",
    "0\n\n",
    "hello",
    "\r\n",
    "\0",
];

fn methods() -> impl Strategy<Value = Method> {
    select(vec![Method::GET, Method::GET, Method::POST, Method::HEAD])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn nothing_is_taken_for_an_answer_that_hyper_reads_otherwise_or_not_at_all(
        status in select(STATUS_LINES.to_vec()),
        fields in prop::collection::vec(select(FIELDS.to_vec()), 0..3),
        blank in select(vec!["\r\n", "\r\n", "\r\n", "\n", "\r", ""]),
        parts in prop::collection::vec(select(BODY_PARTS.to_vec()), 0..5),
        cuts in prop::collection::vec(any::<Index>(), 0..4),
        method in methods(),
    ) {
        let wire = [status, &fields.concat(), blank, &parts.concat()].concat();
        let script = cut(wire.as_bytes(), &cuts);
        if let (whole @ Outcome::Whole(..), line) = ours(script.clone(), method.clone()) {
            prop_assert_eq!(whole, hypers(script, method));
            prop_assert!(!line.is_ready() || line.inbox.is_empty(), "what is left over answers nobody");
        }
    }

    #[test]
    fn right_answers_are_read_however_they_are_cut(
        informs in prop::collection::vec(Just("HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"), 0..3),
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 0..5),
        framing in 0..3,
        fields in 0..90_usize,
        cuts in prop::collection::vec(any::<Index>(), 0..8),
    ) {
        let body = chunks.concat();
        let fields = "x-field: some value\r\n".repeat(fields);
        let mut wire = format!("{}HTTP/1.1 200 OK\r\n{fields}", informs.concat()).into_bytes();
        match framing {
            0 => wire.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes()),
            1 => wire.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n"),
            _ => wire.extend_from_slice(b"\r\n"),
        }
        for chunk in &chunks {
            if framing == 1 {
                wire.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
            }
            wire.extend_from_slice(chunk);
            if framing == 1 {
                wire.extend_from_slice(b"\r\n");
            }
        }
        if framing == 1 {
            wire.extend_from_slice(b"0\r\n\r\n");
        }
        let script = cut(&wire, &cuts);
        let whole = Outcome::Whole(StatusCode::OK, body);
        let (outcome, line) = ours(script.clone(), Method::GET);
        prop_assert_eq!(&outcome, &whole);
        prop_assert_eq!(line.is_ready(), framing != 2);
        prop_assert_eq!(hypers(script, Method::GET), whole);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn requests_are_written_whole_however_little_is_taken_at_once(
        body in prop::collection::vec(any::<u8>(), 0..30_000),
        takes in 1..20_000_usize,
        pieces in prop::option::of(1..12_000_usize),
    ) {
        let script = Script { takes, ..Script::saying(["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]) };
        let heard = script.heard.clone();
        let sent = match pieces {
            None => SentBody::Full(body.clone().into()),
            Some(bytes) => streamed(body.chunks(bytes).map(|piece| Ok(piece.to_vec())).collect()),
        };
        let mut line = asked(script, Method::POST, sent);
        now(poll_fn(|cx| line.poll_head(cx))).map_err(|failed| failed.fault).unwrap();
        prop_assert!(line.is_ready());
        let heard = std::mem::take(&mut *heard.lock());
        let head_bytes = heard.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(heard[..head_bytes].to_vec()).unwrap();
        let mut rest = BytesMut::from(&heard[head_bytes..]);
        if pieces.is_none() {
            let expected = format!("POST /v1 HTTP/1.1\r\nhost: server\r\ncontent-length: {}\r\n\r\n", body.len());
            prop_assert_eq!(head, expected);
            prop_assert!(rest == body);
        } else {
            prop_assert_eq!(head, "POST /v1 HTTP/1.1\r\nhost: server\r\ntransfer-encoding: chunked\r\n\r\n");
            let mut framing = Framing::CHUNKED;
            let mut whole = Vec::new();
            while let Decoded::Data(data) = framing.decode(&mut rest).unwrap() {
                whole.extend_from_slice(&data);
            }
            prop_assert!(whole == body && framing.is_done() && !rest.has_remaining());
        }
    }
}

fn head_of(line: &mut Http1) -> Result<StatusCode, Unanswered> {
    now(poll_fn(|cx| line.poll_head(cx))).map(|head| head.status)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn a_request_of_which_nothing_could_be_written_is_unsent_and_its_body_comes_back() {
    let script = Script { limit: (0, Limit::Breaks), ..Script::saying([OK]) };
    let mut line = asked(script, Method::POST, streamed(vec![Ok(b"abc".to_vec())]));
    let unanswered = head_of(&mut line).unwrap_err();
    assert_eq!((unanswered.fault, unanswered.is_unsent), (WireFault::Lost, true));
    let body = now(unanswered.body.unwrap().collect()).unwrap().to_bytes();
    assert_eq!(body, "abc");
    assert!(!line.is_ready());
}

#[test]
fn a_request_of_which_a_byte_was_written_is_not_unsent() {
    let script = Script { limit: (1, Limit::Breaks), ..Script::saying([""; 0]) };
    let unanswered = head_of(&mut asked(script, Method::GET, SentBody::Full(Bytes::new()))).unwrap_err();
    assert_eq!((unanswered.fault, unanswered.is_unsent), (WireFault::Lost, false));
}

#[test]
fn an_answer_is_read_though_the_server_takes_no_more_of_the_request() {
    for limit in [Limit::Blocks, Limit::Breaks] {
        for body in
            [SentBody::Full(vec![0; 100_000].into()), streamed(vec![Ok(vec![0; 9_000]), Ok(vec![0; 9_000])])]
        {
            let script = Script { limit: (5_000, limit), ..Script::saying([OK]) };
            let mut line = asked(script, Method::POST, body);
            assert_eq!(head_of(&mut line).map_err(|failed| failed.fault), Ok(StatusCode::OK));
            assert_eq!(now(poll_fn(|cx| line.poll_data(cx))), Some(Ok(Bytes::from_static(b"ok"))));
            assert!(
                line.is_at_end() && !line.is_ready(),
                "the rest of the request would come before the next one"
            );
        }
    }
}

#[test]
fn a_body_that_fails_or_has_another_length_than_it_said_fails_the_request() {
    let abc = || vec![Ok(b"abc".to_vec())];
    let failing = streamed(vec![Ok(b"abc".to_vec()), Err("the client left".into())]);
    for body in [failing, claiming(2, streamed(abc())), claiming(4, streamed(abc()))] {
        let mut line = asked(Script::saying([OK]), Method::POST, body);
        let unanswered = head_of(&mut line).unwrap_err();
        assert_eq!((unanswered.fault, unanswered.is_unsent), (WireFault::RequestBody, false));
        assert!(!line.is_ready());
    }
    let script = Script::saying([OK]);
    let heard = script.heard.clone();
    let mut line = asked(script, Method::POST, claiming(3, streamed(abc())));
    assert_eq!(head_of(&mut line).map_err(|failed| failed.fault), Ok(StatusCode::OK));
    assert_eq!(*heard.lock(), b"POST /v1 HTTP/1.1\r\nhost: server\r\ncontent-length: 3\r\n\r\nabc");
}

/// A body that says that it has so many bytes.
struct Claiming(u64, SentBody);

impl http_body::Body for Claiming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.1).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

fn claiming(bytes: u64, body: SentBody) -> SentBody {
    let UpstreamBody::Stream(body) = UpstreamBody::stream(Claiming(bytes, body)) else { unreachable!() };
    SentBody::Stream(body, Progress::new(Instant::now()))
}

#[test]
fn a_target_is_in_origin_form_even_if_it_has_no_path() {
    for (target, written) in [("?a=1", "/?a=1"), ("/v1?a=1", "/v1?a=1"), ("*", "*")] {
        let script = Script::saying([OK]);
        let heard = script.heard.clone();
        let target = target.parse().unwrap();
        head_of(&mut asked_for(target, script, Method::OPTIONS, SentBody::Full(Bytes::new())))
            .map_err(|_| ())
            .unwrap();
        let expected = format!("OPTIONS {written} HTTP/1.1\r\nhost: server\r\n\r\n");
        assert_eq!(*heard.lock(), expected.as_bytes());
    }
}

#[test]
fn fields_have_a_largest_number() {
    let answer =
        |fields| format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "x: y\r\n".repeat(fields));
    let outcome = |fields| ours(Script::saying([answer(fields)]), Method::GET).0;
    assert_eq!(outcome(99), Outcome::Whole(StatusCode::OK, Vec::new()));
    assert_eq!(outcome(100), Outcome::Broken);
}

#[test]
fn what_the_server_says_unasked_makes_a_connection_useless() {
    let (_, mut line) = ours(Script::saying([OK, "HTTP/1.1 408 Request Timeout\r\n\r\n"]), Method::GET);
    assert!(line.is_ready());
    line.look();
    assert!(!line.is_ready());
}
