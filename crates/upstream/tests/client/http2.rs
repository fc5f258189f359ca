//! HTTP/2: many requests on one connection, and what becomes of them when a stream or the connection ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::future::join_all;
use http::header::HOST;
use http::{HeaderValue, Method, Request, Version};
use refrain_core::settings::HttpVersion;
use refrain_upstream::{ClientTls, EndpointCondition, UpstreamBody, UpstreamError};
use rustls::RootCertStore;
use tokio::join;
use tokio::sync::Barrier;

use crate::frames::{CANCEL, DATA, FramePeer, HEADERS, INTERNAL_ERROR, PING, REFUSED_STREAM, RST_STREAM};
use crate::hyper_server::{Limits, serving};
use crate::server::{Fleet, Refusing, SECOND, Server, jump, post, request, within};

/// Speaks HTTP/2 without TLS.
fn fleet(servers: &[&Server]) -> Fleet {
    Fleet::with(servers, |pool| {
        for endpoint in &mut pool.endpoints {
            endpoint.http = HttpVersion::Http2;
        }
    })
}

#[tokio::test]
async fn a_request_names_its_server_as_http2_does_and_carries_the_endpoints_headers() {
    let server = Server::bind().await;
    let fleet = Fleet::with(&[&server], |pool| {
        pool.endpoints[0].http = HttpVersion::Http2;
        pool.endpoints[0].base_path = "/base".into();
        pool.endpoints[0].headers.insert("x-api-key".into(), refrain_core::settings::Secret("key".into()));
    });
    let port = server.port();
    let answer = move |request: Request<_>| async move {
        assert_eq!(request.version(), Version::HTTP_2);
        assert_eq!(request.uri().to_string(), format!("http://127.0.0.1:{port}/base/v1/chat/completions"));
        assert_eq!(request.headers().get("x-api-key"), Some(&HeaderValue::from_static("key")));
        assert!(!request.headers().contains_key(HOST));
        "ok".to_owned()
    };
    assert_eq!(Box::pin(serving(&server, Limits::default(), answer, fleet.text())).await.unwrap(), "ok");
}

#[tokio::test]
async fn many_requests_at_once_share_one_connection_from_the_first_on() {
    let server = Server::bind().await;
    let fleet = fleet(&[&server]);
    let all_there = Arc::new(Barrier::new(50));
    let answer = move |_| {
        let all_there = all_there.clone();
        async move {
            all_there.wait().await;
            "ok".to_owned()
        }
    };
    let asked = join_all((0..50).map(|_| fleet.text()));
    let texts = serving(&server, Limits::default(), answer, asked).await;
    assert!(texts.into_iter().all(|text| text.unwrap() == "ok"));
    let stats = &fleet.stats()[0];
    assert_eq!((stats.connections_opened, stats.connections_reused, stats.in_flight), (1, 49, 0));
}

#[tokio::test]
async fn a_server_that_allows_few_streams_gets_more_connections() {
    let server = Server::bind().await;
    let fleet = fleet(&[&server]);
    let all_there = Arc::new(Barrier::new(6));
    let served = Arc::new(AtomicUsize::new(0));
    let answer = move |_| {
        let (all_there, is_first) = (all_there.clone(), served.fetch_add(1, Relaxed) == 0);
        async move {
            if !is_first {
                all_there.wait().await;
            }
            "ok".to_owned()
        }
    };
    let limits = Limits { streams: 2, ..Limits::default() };
    let asked = async {
        fleet.text().await.unwrap();
        join_all((0..6).map(|_| fleet.text())).await
    };
    let texts = Box::pin(serving(&server, limits, answer, asked)).await;
    assert!(texts.into_iter().all(|text| text.unwrap() == "ok"));
    assert_eq!(fleet.stats()[0].connections_opened, 3);
}

#[tokio::test]
async fn servers_that_go_away_under_load_lose_no_request_and_get_none_twice() {
    let server = Server::bind().await;
    let fleet = fleet(&[&server]);
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    let answer = move |_| {
        count.fetch_add(1, Relaxed);
        async { "ok".to_owned() }
    };
    let limits = Limits { requests: 10, ..Limits::default() };
    let asked = join_all((0..20).map(|_| async {
        for _ in 0..20 {
            assert_eq!(fleet.text().await.unwrap(), "ok");
        }
    }));
    serving(&server, limits, answer, asked).await;
    assert_eq!(served.load(Relaxed), 400);
    assert!(fleet.stats()[0].connections_opened >= 10);
}

#[tokio::test]
async fn after_a_go_away_the_streams_below_it_end_well_and_the_others_are_asked_anew() {
    let server = Server::bind().await;
    let fleet = fleet(&[&server]);
    let serve = async {
        let mut old = FramePeer::accept(&server).await;
        let (first, second) = (old.request().await, old.request().await);
        old.go_away(first).await;
        let mut new = FramePeer::accept(&server).await;
        let again = new.request().await;
        new.answer(again, "new").await;
        old.answer(first, "old").await;
        assert!(second > first);
        old.closed().await;
        new
    };
    let (one, two, _new) = join!(fleet.text(), fleet.text(), serve);
    assert_eq!((one.unwrap(), two.unwrap()), ("old".into(), "new".into()));
}

#[tokio::test]
async fn a_refused_stream_is_asked_anew_without_the_retry_budget() {
    let server = Server::bind().await;
    let fleet = fleet(&[&server]);
    let serve = async {
        let mut peer = FramePeer::accept(&server).await;
        for _ in 0..200 {
            let stream = peer.request().await;
            peer.reset(stream, REFUSED_STREAM).await;
            let stream = peer.request().await;
            peer.answer(stream, "ok").await;
        }
        peer
    };
    let ask = async {
        for _ in 0..200 {
            assert_eq!(fleet.text().await.unwrap(), "ok");
        }
    };
    let ((), _peer) = join!(ask, serve);
    assert_eq!(fleet.stats()[0].connections_opened, 1);
}

#[tokio::test]
async fn a_server_that_refuses_for_ever_is_given_up() {
    let server = Server::bind().await;
    let fleet = fleet(&[&server]);
    let serve = async {
        let mut peer = FramePeer::accept(&server).await;
        loop {
            let stream = peer.request().await;
            peer.reset(stream, REFUSED_STREAM).await;
        }
    };
    let error = tokio::select! {
        text = fleet.text() => text.unwrap_err(),
        () = serve => unreachable!(),
    };
    assert_eq!(error.as_str(), "reset");
}

#[tokio::test]
async fn the_reset_of_one_stream_is_no_other_streams_matter() {
    let server = Server::bind().await;
    let fleet = fleet(&[&server]);
    let serve = async {
        let mut peer = FramePeer::accept(&server).await;
        let (cut, whole) = (peer.request().await, peer.request().await);
        peer.head(cut).await;
        peer.send(DATA, 0, cut, b"half").await;
        peer.reset(cut, INTERNAL_ERROR).await;
        peer.answer(whole, "whole").await;
        let next = peer.request().await;
        peer.answer(next, "next").await;
        peer
    };
    let ask = async {
        let (cut, whole) = join!(fleet.text(), fleet.text());
        (cut, whole, fleet.text().await)
    };
    let ((cut, whole, next), _peer) = join!(ask, serve);
    assert_eq!(cut.unwrap_err().as_str(), "cut");
    assert_eq!((whole.unwrap(), next.unwrap()), ("whole".into(), "next".into()));
    assert_eq!(fleet.stats()[0].connections_opened, 1);
}

#[tokio::test]
async fn leaving_in_the_middle_of_an_answer_resets_its_stream_alone() {
    let server = Server::bind().await;
    let fleet = fleet(&[&server]);
    let serve = async {
        let mut peer = FramePeer::accept(&server).await;
        let left = peer.request().await;
        peer.head(left).await;
        peer.send(DATA, 0, left, b"half").await;
        let reset = peer.next(RST_STREAM).await;
        assert_eq!((reset.stream, reset.payload), (left, CANCEL.to_be_bytes().to_vec()));
        let next = peer.request().await;
        peer.answer(next, "next").await;
        peer
    };
    let ask = async {
        let mut left = fleet.send(post("{}")).await.unwrap().body;
        assert_eq!(within(left.chunk()).await.unwrap().unwrap(), "half");
        drop(left);
        fleet.text().await
    };
    let (next, _peer) = join!(ask, serve);
    assert_eq!(next.unwrap(), "next");
    let stats = &fleet.stats()[0];
    assert_eq!((stats.connections_opened, stats.in_flight), (1, 0));
}

#[tokio::test]
async fn leaving_before_the_answer_resets_its_stream_alone() {
    let server = Server::bind().await;
    let fleet = fleet(&[&server]);
    let serve = async {
        let mut peer = FramePeer::accept(&server).await;
        let left = peer.request().await;
        peer.send(PING, 0, 0, &[0; 8]).await;
        (peer, left)
    };
    let (mut peer, left) = tokio::select! {
        _ = fleet.text() => unreachable!(),
        served = serve => served,
    };
    assert_eq!(within(peer.next(RST_STREAM)).await.stream, left);
    let (next, ()) = join!(fleet.text(), async {
        let next = peer.request().await;
        peer.answer(next, "next").await;
    });
    assert_eq!(next.unwrap(), "next");
}

#[tokio::test]
async fn a_connection_that_gives_no_sign_of_life_ends_its_answers() {
    let server = Server::bind().await;
    let fleet = fleet(&[&server]);
    let (response, mut peer) = join!(fleet.send(post("{}")), async {
        let mut peer = FramePeer::accept(&server).await;
        let stream = peer.request().await;
        peer.head(stream).await;
        peer
    });
    let mut body = response.unwrap().body;
    let silence = async {
        jump(21 * SECOND).await;
        within(peer.next(PING)).await;
        jump(11 * SECOND).await;
    };
    let (chunk, ()) = join!(body.chunk(), silence);
    assert_eq!(chunk.unwrap().unwrap_err().as_str(), "cut");
    let (text, _peer) = join!(fleet.text(), async {
        let mut peer = FramePeer::accept(&server).await;
        let stream = peer.request().await;
        peer.answer(stream, "ok").await;
        peer
    });
    assert_eq!(text.unwrap(), "ok");
}

#[tokio::test]
async fn idle_connections_are_closed_after_a_minute() {
    let server = Server::bind().await;
    let fleet = fleet(&[&server]);
    let (text, mut peer) = join!(fleet.text(), answering(&server));
    text.unwrap();
    jump(61 * SECOND).await;
    peer.closed().await;
}

#[tokio::test]
async fn draining_closes_idle_connections_and_lets_answers_end() {
    let server = Server::bind().await;
    let fleet = fleet(&[&server]);
    let (response, (mut peer, stream)) = join!(fleet.send(post("{}")), async {
        let mut peer = FramePeer::accept(&server).await;
        let stream = peer.request().await;
        peer.head(stream).await;
        (peer, stream)
    });
    let body = response.unwrap().body;
    let rest = async {
        fleet.tasks.draining().begun().await;
        peer.send(DATA, 1, stream, b"rest").await;
        peer.closed().await;
    };
    let (drained, rest_of_answer, ()) =
        join!(within(fleet.tasks.drain(5 * SECOND)), within(body.collect(9)), rest);
    assert!(drained);
    assert_eq!(rest_of_answer.unwrap(), "rest");
}

#[tokio::test]
async fn a_streamed_body_is_passed_on_and_its_failure_is_no_upstreams() {
    let server = Server::bind().await;
    let fleet = fleet(&[&server]);
    let broken = http_body_util::StreamBody::new(futures_util::stream::iter([
        Ok(http_body::Frame::data(bytes::Bytes::from_static(b"half"))),
        Err("left"),
    ]));
    let serve = async {
        let mut peer = FramePeer::accept(&server).await;
        peer.next(RST_STREAM).await;
        peer
    };
    let broken = request(Method::POST, UpstreamBody::stream(broken));
    let (response, _peer) = join!(within(fleet.send(broken)), serve);
    assert!(matches!(response.unwrap_err(), UpstreamError::RequestBody));
}

#[tokio::test]
async fn a_server_that_speaks_only_http1_is_told_apart() {
    let server = Server::bind().await;
    let fleet = fleet(&[&server]);
    let serve = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        peer
    };
    let (text, _peer) = join!(fleet.text(), serve);
    let error = text.unwrap_err();
    assert_eq!(error.as_str(), "malformed");
    assert!(error.to_string().contains("not HTTP/2"), "{error}");
}

#[tokio::test]
async fn a_length_that_the_body_does_not_have_is_malformed() {
    // `:status: 200`, and a literal `content-length: 9` (its name from the static table).
    let head = [0x88, 0x0f, 0x0d, 0x01, b'9'];
    let server = Server::bind().await;
    let fleet = fleet(&[&server]);
    let serve = async {
        let mut peer = FramePeer::accept(&server).await;
        let stream = peer.request().await;
        peer.send(HEADERS, 4, stream, &head).await;
        peer.send(DATA, 1, stream, b"four").await;
        peer
    };
    let (text, _peer) = join!(fleet.text(), serve);
    assert_eq!(text.unwrap_err().as_str(), "malformed");
}

#[tokio::test]
async fn if_the_connection_to_be_shared_cannot_be_opened_all_who_wait_for_it_ask_another_endpoint() {
    let (gone, server) = (Server::bind().await, Server::bind().await);
    let fleet = fleet(&[&gone, &server]);
    drop(gone);
    let answer = |_| async { "ok".to_owned() };
    let asked = join_all((0..20).map(|_| fleet.text()));
    let texts = serving(&server, Limits::default(), answer, asked).await;
    assert!(texts.into_iter().all(|text| text.unwrap() == "ok"));
    assert_eq!(fleet.stats()[1].connections_opened, 1);
}

/// Else a crowd that waits for one connection would have its server ejected by the first failure after its return.
#[tokio::test]
async fn a_connection_that_many_waited_for_in_vain_is_one_failure() {
    let gone = Refusing::bind();
    let tls = ClientTls::with_roots(RootCertStore::empty());
    let fleet = Fleet::at(&[gone.port()], tls, |pool| pool.endpoints[0].http = HttpVersion::Http2);
    let texts = join_all((0..30).map(|_| fleet.text())).await;
    assert!(texts.into_iter().all(|text| text.unwrap_err().as_str() == "connect"));
    jump(4 * SECOND).await;

    let server = gone.listen();
    let serve = async {
        let mut peer = FramePeer::accept(&server).await;
        // `:status: 200`, and then a literal `:status: 502`.
        for head in [&[0x88][..], &[0x08, 3, b'5', b'0', b'2']] {
            let stream = peer.request().await;
            peer.send(HEADERS, 5, stream, head).await;
        }
        peer
    };
    let ask = async {
        for _ in 0..2 {
            fleet.text().await.unwrap();
        }
    };
    let ((), _peer) = join!(ask, serve);
    assert_eq!(fleet.stats()[0].state, EndpointCondition::Healthy);
}

#[tokio::test]
async fn an_answer_that_is_cut_with_its_connection_is_one_failure_with_the_others_on_it() {
    let server = Server::bind().await;
    let fleet = fleet(&[&server]);
    let serve = async {
        let mut peer = FramePeer::accept(&server).await;
        for _ in 0..10 {
            let stream = peer.request().await;
            peer.send(HEADERS, 4, stream, &[0x88]).await;
        }
        peer
    };
    let (heads, peer) = join!(join_all((0..10).map(|_| fleet.send(post("{}")))), serve);
    drop(peer);
    for head in heads {
        assert_eq!(within(head.unwrap().body.collect(9)).await.unwrap_err().as_str(), "cut");
    }
    assert_eq!(fleet.stats()[0].state, EndpointCondition::Healthy);
}

async fn answering(server: &Server) -> FramePeer {
    let mut peer = FramePeer::accept(server).await;
    let stream = peer.request().await;
    peer.answer(stream, "ok").await;
    peer
}
