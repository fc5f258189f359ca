//! Requests that two readers could read differently. Each is refused, or reaches the upstream as exactly one request in one
//! form: a plain request line, one Host, one way to tell the body's length, no hop-by-hop field.

use std::time::Duration;

use refrain_tests::fake::{FakeUpstream, Recorded};
use refrain_tests::h2_frames::{DATA, END_HEADERS, END_STREAM, H2Raw, HEADERS, frame, literals};
use refrain_tests::{Ask, Raw, Refrain};

use crate::{start, start_with};

const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
/// What an attacker wants to be read as a request of its own.
const SECOND: &str = "POST /api/pull HTTP/1.1\r\nHost: evil\r\nContent-Length: 2\r\n\r\n{}";

/// An answer or a refusal comes sooner, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(1);

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Refused; nothing goes upstream.
    Refused,
    /// One request goes upstream, with this body.
    Normal,
    /// Either: what matters is what never happens.
    Either,
}
use Fate::{Either, Normal, Refused};

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n{body}").into_bytes()
}

/// What every request that reached the upstream is like.
fn check_normal(request: &Recorded, what: &str) {
    assert_eq!(request.method, "POST", "{what}");
    assert_eq!(request.path, "/v1/chat/completions", "{what}");
    assert_eq!(request.header("host").len(), 1, "{what}: {request:?}");
    let (length, coding) = (request.header("content-length"), request.header("transfer-encoding"));
    assert_eq!(length.len() + coding.len(), 1, "{what}: {request:?}");
    if let [length] = length[..] {
        assert_eq!(length.parse::<usize>().unwrap(), request.body.len(), "{what}");
    }
    for name in
        ["connection", "te", "trailer", "upgrade", "keep-alive", "proxy-connection", "expect", "x-hop"]
    {
        assert!(request.header(name).is_empty(), "{what}: {request:?}");
    }
    let is_plain = |text: &str| !text.bytes().any(|byte| byte < b' ' && byte != b'\t');
    assert!(
        request.headers.iter().all(|(name, value)| is_plain(name) && is_plain(value)),
        "{what}: {request:?}"
    );
    assert_eq!(request.text(), BODY, "{what}");
}

/// Sends it on a connection of its own, with nothing after it.
async fn check(fake: &FakeUpstream, refrain: &Refrain, (what, bytes, fate): &(&str, Vec<u8>, Fate)) {
    let before = fake.posts();
    let mut raw = Raw::connect(refrain.address()).await;
    raw.send(bytes).await;
    // Who waits for more gets an end instead.
    let mut said = raw.said(PATIENCE).await;
    raw.finish().await;
    said += &raw.rest().await;
    let answers = said.matches("HTTP/1.1 200").count();
    let sent = fake.posts() - before;
    match fate {
        Refused => assert_eq!((sent, answers), (0, 0), "{what}: {said}"),
        Normal => assert_eq!((sent, answers), (1, 1), "{what}: {said}"),
        Either => assert!(sent <= 1 && answers == sent, "{what}: {sent} sent; {said}"),
    }
    if sent == 1 {
        check_normal(&fake.last_post(), what);
    }
    assert!(fake.requests("/api/pull").is_empty(), "{what}: the hidden request went through");
    assert!(!said.contains("HTTP/1.1 5"), "{what}: {said}");
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused_or_made_plain() {
    let (fake, refrain) =
        start_with(|config| config.cache("collapse = false").cache("sampled = \"skip\"")).await;
    let length = BODY.len();
    let own = format!("Content-Length: {length}");
    let both = chunked(BODY);
    let smuggled = format!("0\r\n\r\n{SECOND}");
    let two_lines = |first: &str, second: &str| format!("{first}\r\n{second}");
    let target = |target: &str, host: &str| {
        format!("POST {target} HTTP/1.1\r\n{host}{own}\r\n\r\n{BODY}").into_bytes()
    };
    let cases: Vec<(&str, Vec<u8>, Fate)> = vec![
        // Lengths.
        (
            "CL and TE, as chunks",
            post(&two_lines("Content-Length: 5", "Transfer-Encoding: chunked"), &both),
            Either,
        ),
        (
            "TE and CL, as chunks",
            post(&two_lines("Transfer-Encoding: chunked", "Content-Length: 5"), &both),
            Either,
        ),
        (
            "CL and TE, empty chunks and a hidden request",
            post(
                &two_lines(&format!("Content-Length: {}", smuggled.len()), "Transfer-Encoding: chunked"),
                &smuggled,
            ),
            Refused,
        ),
        ("two lengths that differ", post(&two_lines("Content-Length: 0", &own), BODY), Refused),
        ("two lengths that agree", post(&two_lines(&own, &own), BODY), Either),
        ("a list of lengths", post(&format!("Content-Length: {length}, {length}"), BODY), Either),
        ("a length with a sign", post(&format!("Content-Length: +{length}"), BODY), Refused),
        ("a negative length", post("Content-Length: -1", BODY), Refused),
        ("a length in hex", post("Content-Length: 0x10", BODY), Refused),
        ("a length beyond 64 bits", post("Content-Length: 99999999999999999999999", BODY), Refused),
        ("an empty length", post("Content-Length: ", BODY), Refused),
        // Codings.
        ("an unknown coding", post("Transfer-Encoding: xchunked", &both), Refused),
        ("chunked, then another coding", post("Transfer-Encoding: chunked, identity", &both), Refused),
        ("identity", post("Transfer-Encoding: identity", BODY), Refused),
        (
            "chunked twice",
            post(&two_lines("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), &both),
            Either,
        ),
        ("chunked in quotes", post("Transfer-Encoding: \"chunked\"", &both), Refused),
        ("chunked with a vertical tab", post("Transfer-Encoding:\x0bchunked", &both), Refused),
        ("chunked with a tab", post("Transfer-Encoding:\tchunked", &both), Either),
        (
            "chunked in HTTP/1.0",
            format!(
                "POST /v1/chat/completions HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{both}"
            )
            .into_bytes(),
            Refused,
        ),
        // Chunks.
        (
            "chunk extensions",
            post("Transfer-Encoding: chunked", &format!("{length:x};a=b\r\n{BODY}\r\n0;c\r\n\r\n")),
            Normal,
        ),
        (
            "a chunk extension with a bare line feed",
            post("Transfer-Encoding: chunked", &format!("{length:x};a\nb\r\n{BODY}\r\n0\r\n\r\n")),
            Refused,
        ),
        (
            "a chunk of more than 64 bits",
            post("Transfer-Encoding: chunked", &format!("1{length:016x}0\r\n{BODY}\r\n0\r\n\r\n")),
            Refused,
        ),
        (
            "a chunk with a sign",
            post("Transfer-Encoding: chunked", &format!("+{length:x}\r\n{BODY}\r\n0\r\n\r\n")),
            Refused,
        ),
        (
            "a chunk with a prefix",
            post("Transfer-Encoding: chunked", &format!("0x{length:x}\r\n{BODY}\r\n0\r\n\r\n")),
            Refused,
        ),
        (
            "a chunk longer than it says",
            post("Transfer-Encoding: chunked", &format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", length - 1)),
            Refused,
        ),
        (
            "trailers",
            post(
                "Transfer-Encoding: chunked\r\nTrailer: Content-Length",
                &format!("{length:x}\r\n{BODY}\r\n0\r\nContent-Length: 3\r\nX-Hop: 1\r\n\r\n"),
            ),
            Normal,
        ),
        // Lines and names.
        ("a folded field", post(&format!("X-A: 1\r\n 2\r\n{own}"), BODY), Refused),
        ("white space before the colon", post(&format!("Content-Length : {length}"), BODY), Refused),
        (
            "white space before the coding's colon",
            post(&format!("Transfer-Encoding : chunked\r\n{own}"), BODY),
            Refused,
        ),
        ("white space before a name", post(&format!(" X-A: 1\r\n{own}"), BODY), Refused),
        ("a bare line feed between fields", post(&format!("X-A: 1\nX-B: 2\r\n{own}"), BODY), Either),
        (
            "bare line feeds throughout",
            format!("POST /v1/chat/completions HTTP/1.1\nHost: x\n{own}\n\n{BODY}").into_bytes(),
            Either,
        ),
        ("a carriage return in a value", post(&format!("X-A: 1\rX-B: 2\r\n{own}"), BODY), Refused),
        ("a zero in a value", post(&format!("X-A: 1\0\r\n{own}"), BODY), Refused),
        ("a name with a control character", post(&format!("X\x01A: 1\r\n{own}"), BODY), Refused),
        ("a field without a colon", post(&format!("X-A\r\n{own}"), BODY), Refused),
        ("an empty name", post(&format!(": 1\r\n{own}"), BODY), Refused),
        // Targets and hosts.
        (
            "an absolute target that agrees with Host",
            target("http://x/v1/chat/completions", "Host: x\r\n"),
            Normal,
        ),
        (
            "an absolute target that differs from Host",
            target("http://x/v1/chat/completions", "Host: evil\r\n"),
            Either,
        ),
        ("no Host", target("/v1/chat/completions", ""), Refused),
        ("two Hosts", target("/v1/chat/completions", "Host: x\r\nHost: y\r\n"), Refused),
        ("a target with a space", target("/v1/chat/completions HTTP/1.1 x", "Host: x\r\n"), Refused),
        ("a target with a fragment", target("/v1/chat/completions#/api/pull", "Host: x\r\n"), Either),
        ("a target with dots", target("/v1/../v1/chat/completions", "Host: x\r\n"), Refused),
        ("a target with encoded dots", target("/v1/%2e%2e/v1/chat/completions", "Host: x\r\n"), Refused),
        ("a target with a backslash", target("/v1\\chat/completions", "Host: x\r\n"), Refused),
        // Hop by hop.
        (
            "a field that Connection names",
            post(
                &format!(
                    "Connection: close, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n{own}"
                ),
                BODY,
            ),
            Normal,
        ),
        (
            "a host that Connection names",
            post(&format!("Connection: close, Host, Content-Length\r\n{own}"), BODY),
            Normal,
        ),
        (
            "an upgrade",
            post(
                &format!(
                    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n{own}"
                ),
                BODY,
            ),
            Normal,
        ),
    ];
    for case in &cases {
        check(&fake, &refrain, case).await;
    }
    assert!(!refrain.logs().contains("panicked"), "{}", refrain.logs());
}

#[tokio::test]
async fn what_follows_a_refused_body_is_never_read_as_a_request() {
    let (fake, refrain) = start_with(|config| config.tables("[limits]\nbody = \"1 KiB\"")).await;
    for head in ["Content-Length: 100000".to_owned(), "Transfer-Encoding: chunked".to_owned()] {
        let mut raw = Raw::connect(refrain.address()).await;
        let hidden = SECOND.repeat(40);
        let body = if head.starts_with('T') { format!("{:x}\r\n{hidden}", hidden.len()) } else { hidden };
        raw.send(post(&head, &body)).await;
        raw.finish().await;
        let said = raw.rest().await;
        assert!(said.starts_with("HTTP/1.1 413") && said.matches("HTTP/1.1").count() == 1, "{said}");
        assert_eq!(fake.posts(), 0);
    }
}

#[tokio::test]
async fn expectations_other_than_continue_reach_nobody() {
    let (fake, refrain) = start().await;
    for expected in ["100-continue", "200-ok", "100-continue, x"] {
        let mut raw = Raw::connect(refrain.address()).await;
        raw.send(post(&format!("Expect: {expected}\r\nContent-Length: {}", BODY.len()), BODY)).await;
        let mut said = raw.said(PATIENCE).await;
        raw.finish().await;
        said += &raw.rest().await;
        assert!(said.matches(" 200 OK").count() <= 1, "{expected}: {said}");
        for request in fake.requests("/v1/chat/completions") {
            assert!(request.header("expect").is_empty(), "{request:?}");
        }
    }
}

/// A request over HTTP/2 with these fields beside the usual ones (or in their place), and what comes of it.
async fn over_http2(refrain: &Refrain, fields: &[(&str, &str)], body: &str) -> Option<u8> {
    let mut client = H2Raw::connect(refrain.address()).await;
    let usual =
        [(":method", "POST"), (":scheme", "http"), (":path", "/v1/chat/completions"), (":authority", "x")];
    let is_given = |name: &str| fields.iter().any(|(own, _)| *own == name);
    let pseudo = usual.into_iter().filter(|(name, _)| !is_given(name));
    let all: Vec<_> = pseudo.chain(fields.iter().copied()).collect();
    client.send(frame(HEADERS, END_HEADERS, 1, &literals(&all))).await;
    client.send(frame(DATA, END_STREAM, 1, body.as_bytes())).await;
    loop {
        let frame = client.next().await?;
        match frame.kind {
            // Status 200 is a field of the static table.
            HEADERS => return frame.payload.first().copied(),
            refrain_tests::h2_frames::RST_STREAM | refrain_tests::h2_frames::GOAWAY => return None,
            _ => {}
        }
    }
}

/// Names and values.
type Fields<'a> = &'a [(&'a str, &'a str)];

const STATUS_200: Option<u8> = Some(0x88);

#[tokio::test]
async fn what_http2_carries_over_is_refused_or_made_plain() {
    let (fake, refrain) = start_with(|config| config.cache("sampled = \"skip\"")).await;
    let hidden = "1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST /api/pull HTTP/1.1\r\n";
    let length = BODY.len().to_string();
    let cases: &[(&str, Fields<'_>, Fate)] = &[
        ("nothing odd", &[("content-length", &length)], Normal),
        ("a line end in a value", &[("x-a", hidden)], Refused),
        ("a line feed in a value", &[("x-a", "1\nX-B: 2")], Refused),
        ("a zero in a value", &[("x-a", "1\0")], Refused),
        ("a line end in a name", &[("x-a\r\nx-b", "1")], Refused),
        ("a colon in a name", &[("x-a: 1", "1")], Refused),
        ("a capital in a name", &[("X-A", "1")], Refused),
        ("a coding", &[("transfer-encoding", "chunked")], Refused),
        ("a connection", &[("connection", "x-hop")], Refused),
        ("an upgrade", &[("upgrade", "h2c")], Refused),
        ("a length that is too small", &[("content-length", "3")], Refused),
        ("a length that is too large", &[("content-length", "1000")], Refused),
        ("two lengths", &[("content-length", &length), ("content-length", "3")], Refused),
        ("a line end in the path", &[(":path", "/v1/chat/completions HTTP/1.1\r\nX-A: 1")], Refused),
        ("a space in the path", &[(":path", "/v1/chat/completions HTTP/1.1")], Refused),
        ("a line end in the method", &[(":method", "POST /api/pull HTTP/1.1\r\nX:")], Refused),
        ("a line end in the authority", &[(":authority", "x\r\nX-A: 1")], Refused),
        ("a user in the authority", &[(":authority", "evil@x")], Either),
        ("a pseudo field after a plain one", &[("x-a", "1"), (":path", "/api/pull")], Refused),
        ("two paths", &[(":path", "/v1/chat/completions"), (":path", "/api/pull")], Refused),
        ("an unknown pseudo field", &[(":evil", "1")], Refused),
        ("another host than the authority", &[("host", "evil")], Either),
        ("no path", &[(":path", "")], Refused),
        ("a star", &[(":path", "*")], Refused),
    ];
    for (what, fields, fate) in cases {
        let before = fake.posts();
        let status = over_http2(&refrain, fields, BODY).await;
        let sent = fake.posts() - before;
        match fate {
            Refused => assert_eq!((sent, status == STATUS_200), (0, false), "{what}: {status:?}"),
            Normal => assert_eq!((sent, status), (1, STATUS_200), "{what}"),
            Either => assert!(sent <= 1, "{what}"),
        }
        if sent == 1 {
            check_normal(&fake.last_post(), what);
        }
        assert!(fake.requests("/api/pull").is_empty(), "{what}");
    }
    assert_eq!(refrain.send(&Ask::chat("others")).await.status, 200);
}
