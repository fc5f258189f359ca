//! Every way in which an answer can come, or fail to.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use refrain_core::{Code, Fault};
use refrain_upstream::{UpstreamBody, UpstreamError};
use tokio::join;

use crate::server::{Fleet, OK, Server, post, request, within};

/// Sends a request, answers with these bytes and closes.
async fn answer(bytes: impl AsRef<[u8]>) -> Result<String, UpstreamError> {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let (text, ()) = join!(fleet.text(), async { drop(server.answers(bytes).await) });
    assert_eq!(fleet.stats()[0].in_flight, 0, "the load was given back");
    assert_eq!(fleet.stats()[0].failures, u64::from(text.is_err()));
    text
}

async fn check(bytes: impl AsRef<[u8]>, expected: Result<&str, &str>) {
    let outcome = answer(bytes).await;
    assert_eq!(outcome.as_deref().map_err(UpstreamError::as_str), expected);
}

#[tokio::test]
async fn a_whole_answer_passes() {
    check(OK, Ok("ok")).await;
}

#[tokio::test]
async fn chunks_pass_and_their_trailers_do_not_matter() {
    let answer =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nx: y\r\n\r\n";
    check(answer, Ok("abc")).await;
}

#[tokio::test]
async fn a_body_until_close_passes() {
    check("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nab", Ok("ab")).await;
}

#[tokio::test]
async fn informational_answers_are_passed_over() {
    let informational = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
    check(format!("{informational}{OK}"), Ok("ok")).await;
}

#[tokio::test]
async fn an_answer_shorter_than_its_length_is_cut() {
    check("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", Err("cut")).await;
}

#[tokio::test]
async fn chunks_without_the_last_are_cut() {
    check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n", Err("cut")).await;
    check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nab", Err("cut")).await;
}

#[tokio::test]
async fn a_nonsense_chunk_is_malformed() {
    check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\nab\r\n", Err("malformed")).await;
}

#[tokio::test]
async fn garbage_is_malformed() {
    check("SSH-2.0-OpenSSH_9.2\r\n\r\n", Err("malformed")).await;
    check("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok", Err("malformed")).await;
}

#[tokio::test]
async fn a_framing_that_two_readers_could_read_differently_is_malformed() {
    let same_twice = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok";
    check(same_twice, Err("malformed")).await;
    let coded = "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    check(coded, Err("malformed")).await;
}

#[tokio::test]
async fn a_length_beside_chunks_does_not_pass() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let both =
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let (response, _peer) = join!(fleet.send(post("{}")), server.answers(both));
    let response = response.unwrap();
    assert!(response.headers.is_empty(), "{:?}", response.headers);
    assert_eq!(within(response.body.collect(9)).await.unwrap(), "ok");
}

#[tokio::test]
async fn a_head_over_64_kib_is_malformed() {
    let fields = "x-padding: 0123456789012345678901234567890123456789\r\n".repeat(50);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{fields}");
    check(format!("{head}\r\nok"), Ok("ok")).await;
    let field = format!("x-padding: {}\r\n", "p".repeat(64 * 1024));
    check(format!("{head}{field}\r\nok"), Err("malformed")).await;
}

#[tokio::test]
async fn switching_protocols_unasked_is_malformed() {
    check(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        Err("malformed"),
    )
    .await;
}

#[tokio::test]
async fn closing_before_the_head_is_the_upstreams_fault() {
    let error = answer("").await.unwrap_err();
    assert_eq!(
        (error.as_str(), error.code(), error.fault()),
        ("reset", Code::UpstreamBroken, Fault::Upstream)
    );
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_usable() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let head = fleet.send(request(Method::HEAD, UpstreamBody::empty()));
    let (response, mut peer) = join!(head, server.answers("HTTP/1.1 200 OK\r\ncontent-length: 4096\r\n\r\n"));
    let response = within(async { response }).await.unwrap();
    assert_eq!(response.headers["content-length"], "4096");
    assert_eq!(response.body.collect(1).await.unwrap(), "");

    let (response, _) = join!(fleet.send(post("{}")), peer.answers("HTTP/1.1 204 No Content\r\n\r\n"));
    assert_eq!(response.unwrap().status, StatusCode::NO_CONTENT);

    let (text, _) = join!(fleet.text(), peer.answers(OK));
    assert_eq!(text.unwrap(), "ok");
    assert_eq!(fleet.stats()[0].connections_opened, 1);
}

#[tokio::test]
async fn hop_by_hop_headers_of_the_answer_stay_behind() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let answer = "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
                  x-end: 2\r\ncontent-length: 0\r\n\r\n";
    let (response, _peer) = join!(fleet.send(post("{}")), server.answers(answer));
    let headers = response.unwrap().headers;
    let mut names: Vec<_> = headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "x-end"]);
}

#[tokio::test]
async fn a_body_that_nobody_wants_any_more_is_cancelled_upstream_within_100_ms() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n";
    let (response, mut peer) = join!(fleet.send(post("{}")), server.answers(head));
    let mut body = response.unwrap().body;
    assert_eq!(within(body.chunk()).await.unwrap().unwrap(), "ab");
    assert_eq!(fleet.stats()[0].in_flight, 1);

    let dropped = Instant::now();
    drop(body);
    peer.closed().await;
    assert!(dropped.elapsed() < Duration::from_millis(100), "{:?}", dropped.elapsed());
    assert_eq!(fleet.stats()[0].in_flight, 0);
}

#[tokio::test]
async fn a_request_dropped_before_its_head_is_cancelled_upstream() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let mut peer = {
        let send = fleet.send(post("{}"));
        tokio::pin!(send);
        tokio::select! {
            _ = &mut send => panic!("there is no answer"),
            peer = async { let mut peer = server.accept().await; peer.request().await; peer } => peer,
        }
    };
    peer.closed().await;
    assert_eq!(fleet.stats()[0].in_flight, 0);
}

#[tokio::test]
async fn an_answer_longer_than_the_caller_takes_is_an_error() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let (response, _peer) = join!(fleet.send(post("{}")), server.answers(OK));
    assert_eq!(response.unwrap().body.collect(1).await.unwrap_err().as_str(), "malformed");
}
