//! What is tried again, where, and what is not.

use http::Method;
use refrain_core::Retry;
use refrain_core::settings::{Admission, Secret};
use refrain_upstream::{Affinity, Demand, EndpointCondition, UpstreamBody, UpstreamRequest};
use tokio::join;

use crate::server::{Fleet, OK, Refusing, SECOND, Server, jump, post, request, within};

fn streamed() -> UpstreamBody {
    UpstreamBody::stream(http_body_util::Full::new(bytes::Bytes::from_static(b"{}")))
}

fn fleet_with(dead: &Refusing, server: &Server) -> Fleet {
    Fleet::with(&[server, server], |pool| pool.endpoints[0].port = dead.port())
}

#[tokio::test]
async fn a_refused_connection_moves_on_even_with_a_streamed_body() {
    let (dead, server) = (Refusing::bind(), Server::bind().await);
    let fleet = fleet_with(&dead, &server);
    let (response, _peer) = join!(fleet.send(request(Method::POST, streamed())), server.answers(OK));
    let response = response.unwrap();
    assert_eq!((response.endpoint.as_str(), response.attempts), ("b", 2));
    assert!(response.timings.connect.is_some());
}

#[tokio::test]
async fn requests_with_one_routing_key_stay_at_one_endpoint_and_move_on_from_a_dead_one() {
    let (dead, server) = (Refusing::bind(), Server::bind().await);
    let fleet = fleet_with(&dead, &server);
    let keyed = |key: u8| {
        let demand = Demand { affinity: Affinity::Key([key; 32]), ..Demand::default() };
        UpstreamRequest { demand, ..post("{}") }
    };
    for key in 0..8 {
        // All are answered, also those whose endpoint is dead.
        let (response, _peer) = join!(fleet.send(keyed(key)), server.answers(OK));
        assert_eq!(response.unwrap().endpoint.as_str(), "b");
    }
    let stats = fleet.stats();
    assert_eq!((stats[0].failures, stats[1].requests), (1, 8), "the dead one was asked, and then left alone");
}

#[tokio::test]
async fn an_endpoint_that_refused_is_not_asked_again_at_once() {
    let (dead, server) = (Refusing::bind(), Server::bind().await);
    let fleet = fleet_with(&dead, &server);
    let (first, mut peer) = join!(fleet.text(), server.answers(OK));
    first.unwrap();
    assert_eq!(fleet.stats()[0].state, EndpointCondition::Down);
    for _ in 0..3 {
        let (response, _) = join!(fleet.send(post("{}")), peer.answers(OK));
        let response = response.unwrap();
        assert_eq!(response.attempts, 1);
        within(response.body.collect(9)).await.unwrap();
    }
    assert_eq!(fleet.stats()[0].failures, 1);
}

#[tokio::test]
async fn all_refusing_is_unreachable_and_each_was_asked_once() {
    let (a, b) = (Refusing::bind(), Refusing::bind());
    let server = Server::bind().await;
    let fleet = Fleet::with(&[&server, &server], |pool| {
        pool.endpoints[0].port = a.port();
        pool.endpoints[1].port = b.port();
    });
    let error = fleet.text().await.unwrap_err();
    assert_eq!((error.as_str(), error.retry()), ("connect", Retry::Safe));
    assert_eq!(fleet.stats().iter().map(|stats| stats.failures).collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test]
async fn a_dead_idle_connection_is_replaced_at_the_same_endpoint() {
    let (a, b) = (Server::bind().await, Server::bind().await);
    let fleet = Fleet::with(&[&a, &b], |pool| pool.endpoints[1].weight = 0);
    let (first, mut peer) = join!(fleet.text(), a.answers(OK));
    first.unwrap();
    let (response, _peer) = join!(fleet.send(post("{}")), async {
        peer.request().await;
        peer.reset();
        a.answers(OK).await
    });
    let response = response.unwrap();
    assert_eq!((response.endpoint.as_str(), response.attempts), ("a", 2));
    assert_eq!((fleet.stats()[0].connections_opened, fleet.stats()[0].connections_reused), (2, 1));
    assert!(b.is_left_alone().await);
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closed_is_not_used() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let (first, peer) = join!(fleet.text(), server.answers(OK));
    first.unwrap();
    drop(peer);
    let (response, _peer) = join!(fleet.send(post("{}")), server.answers(OK));
    response.unwrap();
    let stats = &fleet.stats()[0];
    assert_eq!(stats.connections_opened, 2);
}

#[tokio::test]
async fn a_reset_of_a_fresh_connection_moves_on_to_the_next_endpoint() {
    let (a, b) = (Server::bind().await, Server::bind().await);
    let fleet = Fleet::of(&[&a, &b]);
    let (response, _peer) = join!(fleet.send(post("{}")), async {
        let mut peer = a.accept().await;
        peer.request().await;
        peer.reset();
        b.answers(OK).await
    });
    let response = response.unwrap();
    assert_eq!((response.endpoint.as_str(), response.attempts), ("b", 2));
    assert_eq!(fleet.stats()[0].state, EndpointCondition::Healthy, "it does accept connections");
}

#[tokio::test]
async fn a_reset_of_a_fresh_connection_is_not_repeated_at_the_same_endpoint() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let (response, alone) = join!(fleet.send(post("{}")), async {
        let mut peer = server.accept().await;
        peer.request().await;
        peer.reset();
        server.is_left_alone().await
    });
    assert_eq!(response.unwrap_err().as_str(), "reset");
    assert!(alone);
}

#[tokio::test]
async fn a_streamed_body_is_sent_once() {
    let (a, b) = (Server::bind().await, Server::bind().await);
    let fleet = Fleet::of(&[&a, &b]);
    let (response, alone) = join!(fleet.send(request(Method::POST, streamed())), async {
        let mut peer = a.accept().await;
        peer.request().await;
        peer.reset();
        b.is_left_alone().await
    });
    assert_eq!(response.unwrap_err().as_str(), "reset");
    assert!(alone);
}

#[tokio::test]
async fn a_first_byte_time_out_is_never_repeated() {
    let (a, b) = (Server::bind().await, Server::bind().await);
    let fleet = Fleet::of(&[&a, &b]);
    let (response, alone) = join!(fleet.send(post("{}")), async {
        let mut peer = a.accept().await;
        peer.request().await;
        jump(fleet.timeouts.first_byte).await;
        peer.closed().await;
        b.is_left_alone().await
    });
    let error = response.unwrap_err();
    assert_eq!((error.as_str(), error.retry()), ("first_byte_timeout", Retry::Never));
    assert!(alone);
}

#[tokio::test]
async fn garbage_and_error_statuses_are_not_repeated() {
    for answer in ["garbage\r\n\r\n", "HTTP/1.1 502 Broken\r\ncontent-length: 2\r\n\r\nno"] {
        let (a, b) = (Server::bind().await, Server::bind().await);
        let fleet = Fleet::of(&[&a, &b]);
        let (outcome, _peer) = join!(fleet.text(), a.answers(answer));
        assert_eq!(outcome.is_ok(), answer.contains("502"));
        assert!(b.is_left_alone().await);
    }
}

const BUSY: &str = "HTTP/1.1 503 Busy\r\nretry-after: 9\r\ncontent-length: 2\r\n\r\nno";

#[tokio::test]
async fn a_server_that_says_that_it_is_busy_is_left_alone_and_another_one_asked() {
    let (a, b) = (Server::bind().await, Server::bind().await);
    let fleet = Fleet::of(&[&a, &b]);
    let (text, _a, mut peer) = join!(fleet.text(), a.answers(BUSY), b.answers(OK));
    text.unwrap();
    assert_eq!(fleet.stats()[0].state, EndpointCondition::Ejected);
    for _ in 0..3 {
        let (text, _) = join!(fleet.text(), peer.answers(OK));
        text.unwrap();
    }
    assert_eq!(fleet.stats()[0].requests, 1);
}

/// Else one client that asks too much under its own credentials would take the server from all others.
#[tokio::test]
async fn too_many_requests_concern_all_only_under_credentials_of_config() {
    const TOO_MANY: &str = "HTTP/1.1 429 Slow\r\nretry-after: 9\r\ncontent-length: 2\r\n\r\nno";
    for (authorization, state) in [
        (None, EndpointCondition::Healthy),
        (Some(Secret("Bearer own".to_owned())), EndpointCondition::Ejected),
    ] {
        let (a, b) = (Server::bind().await, Server::bind().await);
        let fleet = Fleet::with(&[&a, &b], |pool| pool.endpoints[0].authorization = authorization);
        let (response, _peer) = join!(fleet.send(post("{}")), a.answers(TOO_MANY));
        assert_eq!(response.unwrap().status.as_u16(), 429);
        assert_eq!(fleet.stats()[0].state, state);
    }
}

#[tokio::test]
async fn what_all_servers_refuse_is_passed_on_with_its_words() {
    let (a, b) = (Server::bind().await, Server::bind().await);
    let fleet = Fleet::of(&[&a, &b]);
    let (response, _a, _b) = join!(fleet.send(post("{}")), a.answers(BUSY), b.answers(BUSY));
    let response = response.unwrap();
    assert_eq!((response.status.as_u16(), response.endpoint.as_str()), (503, "b"));
    assert_eq!(response.headers["retry-after"], "9");
}

#[tokio::test]
async fn who_finds_one_server_busy_and_the_others_full_waits_for_them() {
    let (busy, full) = (Server::bind().await, Server::bind().await);
    let fleet = Fleet::with(&[&busy, &full], |pool| {
        pool.admission = Admission { concurrency: 1, parallelism: 1, ..Admission::default() };
    });
    // Turns: the first is the first server's, the second the other's.
    let (first, mut peer) = join!(fleet.send(post("{}")), async {
        let mut peer = busy.accept().await;
        peer.request().await;
        peer.say(OK).await;
        peer
    });
    within(first.unwrap().body.collect(9)).await.unwrap();
    let (held, mut other) = join!(fleet.send(post("{}")), async {
        let mut peer = full.accept().await;
        peer.request().await;
        peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await;
        peer
    });
    let (text, ()) = join!(fleet.text(), async {
        peer.answers(BUSY).await;
        other.say("ok").await;
        within(held.unwrap().body.collect(9)).await.unwrap();
        other.answers(OK).await;
    });
    assert_eq!(text.unwrap(), "ok");
}

#[tokio::test]
async fn who_waits_for_room_does_so_no_longer_than_the_request_may_take() {
    let server = Server::bind().await;
    let mut fleet = Fleet::with(&[&server], |pool| {
        pool.admission = Admission { concurrency: 1, parallelism: 1, ..Admission::default() };
    });
    fleet.timeouts.total = 5 * SECOND;
    let (held, _peer) =
        join!(fleet.send(post("{}")), server.answers("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"));
    let (late, ()) = join!(within(fleet.send(post("{}"))), async {
        tokio::task::yield_now().await;
        jump(6 * SECOND).await;
    });
    assert_eq!(late.unwrap_err().as_str(), "overloaded");
    assert_eq!(fleet.stats()[0].requests, 1, "it was not sent for nothing");
    drop(held);
}

#[tokio::test]
async fn resets_are_not_repeated_once_the_budget_is_spent() {
    let (a, b) = (Server::bind().await, Server::bind().await);
    let fleet = Fleet::of(&[&a, &b]);
    let reset_all = async |server: &Server| {
        loop {
            let mut peer = server.accept().await;
            peer.request().await;
            peer.reset();
        }
    };
    let ask = async {
        for _ in 0..300 {
            fleet.text().await.unwrap_err();
        }
    };
    tokio::select! {
        () = ask => {}
        () = async { join!(reset_all(&a), reset_all(&b)); } => {}
    }
    let tries: u64 = fleet.stats().iter().map(|stats| stats.requests).sum();
    assert!(tries > 310, "{tries}: it is tried again");
    assert!(tries < 300 + 100 + 300 / 5, "{tries}: at most one saved-up hundred, then a fifth");
}
