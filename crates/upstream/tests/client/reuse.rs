//! Which connections serve again, and for how long.

use std::time::Duration;

use http::Method;
use refrain_upstream::UpstreamBody;
use tokio::join;

use crate::server::{Fleet, OK, SECOND, Server, jump, request, within};

fn ok_with(headers: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{headers}content-length: 2\r\n\r\nok")
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let (text, mut peer) = join!(fleet.text(), server.answers(OK));
    text.unwrap();
    for _ in 0..5 {
        let (text, _) = join!(fleet.text(), peer.answers(OK));
        text.unwrap();
    }
    let stats = &fleet.stats()[0];
    assert_eq!((stats.connections_opened, stats.connections_reused, stats.requests), (1, 5, 6));
}

#[tokio::test]
async fn connection_close_is_honoured() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let (text, mut peer) = join!(fleet.text(), server.answers(ok_with("connection: close\r\n")));
    text.unwrap();
    peer.closed().await;
}

#[tokio::test]
async fn keep_alive_max_counts_all_requests_of_a_connection() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let answer = ok_with("keep-alive: timeout=5, max=3\r\n");
    let (text, mut peer) = join!(fleet.text(), server.answers(&answer));
    text.unwrap();
    for _ in 0..2 {
        let (text, _) = join!(fleet.text(), peer.answers(&answer));
        text.unwrap();
    }
    peer.closed().await;
    assert_eq!(fleet.stats()[0].connections_reused, 2);
}

#[tokio::test]
async fn a_connection_is_closed_before_the_announced_keep_alive_ends() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let (text, mut peer) = join!(fleet.text(), server.answers(ok_with("keep-alive: timeout=5\r\n")));
    text.unwrap();
    jump(3 * SECOND).await;
    let (text, _) = join!(fleet.text(), peer.answers(OK));
    text.unwrap();
    assert_eq!(fleet.stats()[0].connections_opened, 1, "3 s is within it");

    let (text, _) = join!(fleet.text(), peer.answers(ok_with("keep-alive: timeout=5\r\n")));
    text.unwrap();
    jump(4 * SECOND + Duration::from_millis(100)).await;
    let (text, _peer) = join!(fleet.text(), server.answers(OK));
    text.unwrap();
    assert_eq!(fleet.stats()[0].connections_opened, 2);
}

#[tokio::test]
async fn idle_connections_are_closed_after_a_minute_without_any_request() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let (text, mut peer) = join!(fleet.text(), server.answers(OK));
    text.unwrap();
    jump(61 * SECOND).await;
    peer.closed().await;
}

#[tokio::test]
async fn no_more_than_the_configured_number_stays_idle() {
    let server = Server::bind().await;
    let fleet = Fleet::with(&[&server], |pool| pool.idle_connections_max = 1);
    let (one, two, mut oldest, _newest) = {
        let both = async {
            let mut first = server.accept().await;
            let mut second = server.accept().await;
            first.answers(OK).await;
            second.answers(OK).await;
            (first, second)
        };
        let (one, two, (first, second)) = join!(fleet.text(), fleet.text(), both);
        (one, two, first, second)
    };
    assert_eq!((one.unwrap(), two.unwrap()), ("ok".into(), "ok".into()));
    oldest.closed().await;
}

#[tokio::test]
async fn draining_closes_idle_connections_and_ends() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let (text, mut peer) = join!(fleet.text(), server.answers(OK));
    text.unwrap();
    let (drained, ()) = join!(within(fleet.tasks.drain(5 * SECOND)), peer.closed());
    assert!(drained);
}

#[tokio::test]
async fn bytes_after_an_answer_never_answer_the_next_request() {
    let poison = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    for with_the_answer in [true, false] {
        let server = Server::bind().await;
        let fleet = Fleet::of(&[&server]);
        let first = if with_the_answer { format!("{OK}{poison}") } else { OK.to_owned() };
        let (text, mut peer) = join!(fleet.text(), server.answers(first));
        assert_eq!(text.unwrap(), "ok");
        if !with_the_answer {
            peer.say(poison).await;
        }
        peer.closed().await;
        let (text, _peer) = join!(fleet.text(), server.answers(OK));
        assert_eq!(text.unwrap(), "ok");
    }
}

#[tokio::test]
async fn an_answer_before_the_request_was_read_costs_the_connection() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let large = UpstreamBody::Full(vec![b'x'; 16 << 20].into());
    let (response, mut peer) = join!(fleet.send(request(Method::POST, large)), async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say("HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await;
        peer
    });
    let response = response.unwrap();
    assert_eq!(response.status, 413);
    assert_eq!(within(response.body.collect(9)).await.unwrap(), "no");
    let (text, _peer) = join!(fleet.text(), server.answers(OK));
    assert_eq!(text.unwrap(), "ok");
    jump(2 * SECOND).await;
    peer.closed().await;
}
