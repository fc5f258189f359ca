//! Clients that take their time: each step of a connection has its own.

use std::time::Duration;

use refrain_tests::fake::{Answer, openai};
use refrain_tests::h2_frames::{DATA, END_HEADERS, END_STREAM, H2Raw, HEADERS, frame, literals};
use refrain_tests::{Ask, Authority, Config, Raw, Refrain, eventually, fake::FakeUpstream};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::start_with;

async fn limited(limits: &str) -> (FakeUpstream, Refrain) {
    start_with(|config| config.tables(&format!("[limits]\n{limits}"))).await
}

async fn ended(refrain: &Refrain, reason: &str) {
    refrain.counted("refrain_connections_ended_total", &[("reason", reason)], 1.0).await;
}

/// More than any buffer between the two takes.
fn endless() -> Answer {
    let pieces = vec!["x".repeat(64 * 1024); 1000];
    openai::chat_stream(&pieces.iter().map(String::as_str).collect::<Vec<_>>(), "stop")
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_let_go_in_the_end() {
    let (_fake, refrain) = limited("head_timeout = \"500ms\"").await;
    let mut raw = Raw::connect(refrain.address()).await;
    raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(raw.response().await.0, 200);
    // Each byte comes well within the time; the whole does not.
    let mut stream = TcpStream::connect(refrain.address()).await.unwrap();
    let mut interval = tokio::time::interval(Duration::from_millis(100));
    let sent = refrain_tests::within("the end of patience", async {
        for sent in 0.. {
            interval.tick().await;
            if stream.write_all(b"G").await.is_err() {
                return sent;
            }
        }
        unreachable!()
    });
    assert!(sent.await >= 2);
}

#[tokio::test]
async fn a_kept_connection_may_be_idle_for_longer_than_a_head_may_take() {
    let (_fake, refrain) = limited("head_timeout = \"300ms\"\nidle_timeout = \"1m\"").await;
    let mut raw = Raw::connect(refrain.address()).await;
    for _ in 0..2 {
        raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(raw.response().await.0, 200);
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    raw.send("GET / HT").await;
    let said = raw.rest().await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
}

#[tokio::test]
async fn an_idle_connection_is_let_go_after_its_time() {
    let (_fake, refrain) = limited("idle_timeout = \"300ms\"").await;
    let mut raw = Raw::connect(refrain.address()).await;
    raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(raw.response().await.0, 200);
    assert_eq!(raw.rest().await, "");
}

#[tokio::test]
async fn an_upload_that_never_stalls_and_never_ends_is_a_408() {
    for path in ["/api/chat", "/own"] {
        let (fake, refrain) = start_with(|config| {
            config
                .route("extra_paths = [\"/own\"]")
                .tables("[limits]\nbody_timeout = \"10s\"\nupload_timeout = \"700ms\"")
        })
        .await;
        let mut stream = TcpStream::connect(refrain.address()).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let sending = async {
            let mut interval = tokio::time::interval(Duration::from_millis(50));
            loop {
                interval.tick().await;
                if writer.write_all(b" ").await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let mut read = Vec::new();
        let reading = async {
            while !String::from_utf8_lossy(&read).contains("\r\n\r\n") {
                use tokio::io::AsyncReadExt;
                if matches!(reader.read_buf(&mut read).await, Ok(0) | Err(_)) {
                    break;
                }
            }
        };
        refrain_tests::within("an answer to the slow upload", async {
            tokio::select! {
                () = sending => {}
                () = reading => {}
            }
        })
        .await;
        let said = String::from_utf8_lossy(&read).into_owned();
        assert!(said.starts_with("HTTP/1.1 408"), "{path}: {said}");
        assert_eq!(fake.posts(), 0, "{path}");
    }
}

#[tokio::test]
async fn large_bodies_that_take_their_time_have_so_much_memory_and_no_more() {
    let (_fake, refrain) = limited("body = \"100 KiB\"\nbodies = \"100 KiB\"").await;
    let large = Ask::chat(&"x".repeat(60 * 1024));
    let body = large.body();
    let mut slow = Raw::connect(refrain.address()).await;
    let head =
        format!("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    slow.send([head.as_bytes(), &body[..body.len() - 1]].concat()).await;
    let refused = eventually("room that is taken", async || {
        let reply = refrain.send(&large).await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    assert_eq!((refused.status, &*refused.header("retry-after")), (503, "1"), "{}", refused.text());
    assert!(refused.text().contains("overloaded"), "{}", refused.text());
    // Short ones need none.
    assert_eq!(refrain.send(&Ask::chat("short")).await.status, 200);
    slow.send(&body[body.len() - 1..]).await;
    assert_eq!(slow.response().await.0, 200);
    assert_eq!(refrain.send(&large).await.status, 200);
}

#[tokio::test]
async fn a_client_that_stops_reading_frees_the_model_server() {
    let (fake, refrain) = limited("write_timeout = \"500ms\"").await;
    fake.next(endless());
    let body = Ask::chat("tell me everything").streamed().body();
    let mut raw = Raw::connect(refrain.address()).await;
    let head =
        format!("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    raw.send([head.as_bytes(), &body].concat()).await;
    // It never reads.
    fake.abandoned(1).await;
    ended(&refrain, "slow_reader").await;
    assert_eq!(refrain.send(&Ask::chat("and others?")).await.status, 200);
    drop(raw);
}

#[tokio::test]
async fn a_client_that_stops_reading_over_tls_frees_the_model_server() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.issue(dir.path(), "own", &["llm.example"]);
    let file = |end: &str| dir.path().join(format!("own.{end}"));
    let tls = format!("tls.certificates = [{{ chain = {:?}, key = {:?} }}]", file("pem"), file("key"));
    let fake = FakeUpstream::start().await;
    let config = Config::new(&fake.url()).listener(&tls).tables("[limits]\nwrite_timeout = \"500ms\"");
    let refrain = Refrain::start(&config).await;
    fake.next(endless());
    let client = authority.client(&["http/1.1"], &[&rustls::version::TLS13]);
    let stalled = refrain_tests::Client::tls(refrain.address(), client, "llm.example");
    let mut stream = stalled.open(&Ask::chat("tell me everything").streamed()).await;
    assert!(stream.try_chunk().await.unwrap().is_some());
    // From here on nobody asks for more: the client's connection stops reading when its buffers are full.
    fake.abandoned(1).await;
    ended(&refrain, "slow_reader").await;
}

#[tokio::test]
async fn one_http2_stream_whose_window_stays_shut_is_ended_and_its_neighbours_go_on() {
    // What streams begin with.
    for window in [0, 100] {
        check_shut_window(window).await;
    }
}

async fn check_shut_window(window: u32) {
    let (fake, refrain) = limited("write_timeout = \"500ms\"").await;
    fake.next(endless());
    let mut client = H2Raw::connect_with(refrain.address(), &[(4, window)]).await;
    let head = literals(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/chat/completions"),
        (":authority", "x"),
    ]);
    client.send(frame(HEADERS, END_HEADERS, 1, &head)).await;
    client.send(frame(DATA, END_STREAM, 1, &Ask::chat("tell me everything").streamed().body())).await;
    fake.abandoned(1).await;
    ended(&refrain, "slow_reader").await;
    let reset = client.until(refrain_tests::h2_frames::RST_STREAM).await.expect("the connection goes on");
    assert_eq!(reset.stream, 1);
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, refrain_tests::h2_frames::GET_ROOT)).await;
    assert_eq!(client.until(HEADERS).await.expect("an answer").stream, 3);
}

#[tokio::test]
async fn a_client_that_waits_long_for_its_answer_is_not_taken_for_slow() {
    let limits = "write_timeout = \"200ms\"\nidle_timeout = \"200ms\"\nhead_timeout = \"200ms\"\nupload_timeout = \"200ms\"";
    let (fake, refrain) = limited(limits).await;
    for h2 in [false, true] {
        let pause = Duration::from_secs(1);
        fake.next(openai::chat_stream(&["first ", "second"], "stop").pause(3, pause).pause(1, pause));
        let client = if h2 {
            refrain_tests::Client::h2(refrain.address())
        } else {
            refrain_tests::Client::http(refrain.address())
        };
        let ask = Ask::chat("slow model").streamed().cache_control("no-cache, no-store");
        let reply = client.send(&ask).await;
        assert_eq!(reply.answer(), "first second", "HTTP/2: {h2}");
    }
}

#[tokio::test]
async fn a_client_that_is_still_sending_reads_why_it_was_refused() {
    let (_fake, refrain) = limited("body = \"64 KiB\"").await;
    const LENGTH: usize = 2_000_000;
    let mut stream = TcpStream::connect(refrain.address()).await.unwrap();
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {LENGTH}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // As simple clients do: all of it first, then the answer.
    let mut interval = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..20 {
        interval.tick().await;
        stream.write_all(&[b' '; LENGTH / 20]).await.expect("it is taken, and thrown away");
    }
    let mut said = String::new();
    use tokio::io::AsyncReadExt;
    refrain_tests::within("the refusal", stream.read_to_string(&mut said)).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 413") && said.ends_with('}'), "{said}");
}
