//! How many connections are open, and who waits for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::join_all;
use refrain_core::settings::HttpVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::{join, select};

use crate::hyper_server::{Limits, serving};
use crate::server::{Fleet, OK, SECOND, Server, jump, post, within};

fn limited(servers: &[&Server], connections_max: usize) -> Fleet {
    Fleet::with(servers, |pool| {
        pool.connections_max = connections_max;
        pool.timeouts.connect = 5 * SECOND;
    })
}

/// How many connections a server has, and had at most.
#[derive(Default)]
struct Open {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// Answers requests on a connection until it is closed.
async fn answer_all(mut tcp: TcpStream, open: Arc<Open>) {
    tcp.set_nodelay(true).unwrap();
    open.most.fetch_max(open.now.fetch_add(1, Relaxed) + 1, Relaxed);
    let mut unread = Vec::new();
    while matches!(tcp.read_buf(&mut unread).await, Ok(1..)) {
        if unread.ends_with(b"{}") {
            unread.clear();
            tokio::task::yield_now().await;
            if tcp.write_all(OK.as_bytes()).await.is_err() {
                break;
            }
        }
    }
    open.now.fetch_sub(1, Relaxed);
}

/// Accepts for ever.
async fn accept_all(server: &Server, open: &Arc<Open>) {
    let mut connections = JoinSet::new();
    loop {
        let tcp = server.accept_whenever().await.into_stream();
        connections.spawn(answer_all(tcp, open.clone()));
    }
}

#[tokio::test]
async fn two_hundred_requests_at_once_open_no_more_connections_than_allowed() {
    let server = Server::bind().await;
    let fleet = limited(&[&server], 4);
    let open = Arc::new(Open::default());
    let asked = join_all((0..200).map(|_| fleet.text()));
    let texts = select! {
        texts = asked => texts,
        () = accept_all(&server, &open) => unreachable!(),
    };
    assert!(texts.into_iter().all(|text| text.unwrap() == "ok"));
    assert_eq!(open.most.load(Relaxed), 4);
    assert_eq!(fleet.stats()[0].connections_opened, 4);
}

#[tokio::test]
async fn requests_that_are_given_up_anywhere_lose_no_connection_of_the_allowance() {
    let server = Server::bind().await;
    let fleet = Arc::new(limited(&[&server], 3));
    let open = Arc::new(Open::default());
    let ask = async {
        for round in 0..40 {
            let mut asking = JoinSet::new();
            for _ in 0..12 {
                let fleet = fleet.clone();
                asking.spawn(async move { fleet.text().await });
            }
            // A little further each time: waiting, connecting, asking, reading.
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            asking.shutdown().await;
        }
        join_all((0..30).map(|_| fleet.text())).await
    };
    let texts = select! {
        texts = ask => texts,
        () = accept_all(&server, &open) => unreachable!(),
    };
    assert!(texts.into_iter().all(|text| text.unwrap() == "ok"));
}

#[tokio::test]
async fn streams_that_are_given_up_anywhere_lose_no_connection_of_the_allowance() {
    let server = Server::bind().await;
    let fleet = Arc::new(Fleet::with(&[&server], |pool| {
        pool.connections_max = 1;
        pool.timeouts.connect = 5 * SECOND;
        pool.endpoints[0].http = HttpVersion::Http2;
    }));
    let asked = fleet.clone();
    let ask = async move {
        for round in 0..40 {
            let mut asking = JoinSet::new();
            for _ in 0..12 {
                let fleet = asked.clone();
                asking.spawn(async move { fleet.text().await });
            }
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            asking.shutdown().await;
        }
        join_all((0..30).map(|_| asked.text())).await
    };
    let limits = Limits { streams: 3, ..Limits::default() };
    let texts = Box::pin(serving(&server, limits, |_| async { "ok".to_owned() }, ask)).await;
    assert!(texts.into_iter().all(|text| text.unwrap() == "ok"));
    assert_eq!(fleet.stats()[0].in_flight, 0);
}

#[tokio::test]
async fn who_waited_longest_gets_the_next_free_connection() {
    let server = Server::bind().await;
    let fleet = limited(&[&server], 1);
    let turns = parking_lot::Mutex::new(Vec::new());
    let ask = async |turn: usize| {
        let mut body = fleet.send(post("{}")).await.unwrap().body;
        turns.lock().push(turn);
        while within(body.chunk()).await.is_some() {}
    };
    let serve = async {
        let mut peer = server.accept().await;
        for _ in 0..4 {
            peer.answers(OK).await;
        }
        peer
    };
    join!(ask(0), ask(1), ask(2), ask(3), serve);
    assert_eq!(*turns.lock(), [0, 1, 2, 3]);
    assert_eq!(fleet.stats()[0].connections_opened, 1);
}

#[tokio::test]
async fn who_waits_in_vain_is_told_so_after_the_connect_time_out_and_another_endpoint_is_asked() {
    let (busy, free) = (Server::bind().await, Server::bind().await);
    let fleet = limited(&[&busy, &free], 1);
    let (first, mut peer) = join!(fleet.send(post("{}")), async {
        let mut peer = busy.accept().await;
        peer.request().await;
        peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await;
        peer
    });
    let first = first.unwrap().body;
    let (second, mut other) = join!(fleet.text(), free.answers(OK));
    assert_eq!(second.unwrap(), "ok");

    let endpoint = fleet.pool().endpoints()[0].clone();
    let waiting = fleet.client.send_to(fleet.pool(), &endpoint, post("{}"));
    let (error, ()) = join!(waiting, jump(6 * SECOND));
    let error = error.unwrap_err();
    assert_eq!((error.as_str(), error.code()), ("connection_limit", refrain_core::Code::Overloaded));

    // The next turn is the busy one's.
    let (third, ()) = join!(fleet.text(), async {
        join!(jump(6 * SECOND), other.answers(OK));
    });
    assert_eq!(third.unwrap(), "ok");
    peer.say("ok").await;
    assert_eq!(within(first.collect(9)).await.unwrap(), "ok");
}

#[tokio::test]
async fn a_connection_that_ends_makes_room_for_who_waits() {
    let server = Server::bind().await;
    let fleet = limited(&[&server], 1);
    let closing = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
    let serve = async {
        for _ in 0..3 {
            server.answers(closing).await;
        }
    };
    let (texts, ()) = join!(join_all((0..3).map(|_| fleet.text())), serve);
    assert!(texts.into_iter().all(|text| text.unwrap() == "ok"));
    assert_eq!(fleet.stats()[0].connections_opened, 3);
}

#[tokio::test]
async fn dead_idle_connections_are_in_nobodys_way() {
    let server = Server::bind().await;
    let fleet = limited(&[&server], 2);
    // Two idle ones, both of which the server resets when they are used again.
    let both = async {
        let (mut one, mut two) = (server.accept().await, server.accept().await);
        one.answers(OK).await;
        two.answers(OK).await;
        (one, two)
    };
    let (one, two, (first, second)) = join!(fleet.text(), fleet.text(), both);
    assert!(one.is_ok() && two.is_ok());
    let serve = async {
        let mut second = second;
        second.request().await;
        second.reset();
        server.answers(OK).await
    };
    let (text, _peer) = join!(fleet.text(), serve);
    assert_eq!(text.unwrap(), "ok");
    drop(first);
}

#[tokio::test]
async fn a_black_holed_handshake_holds_its_place_no_longer_than_the_connect_time_out() {
    let server = Server::bind().await;
    let fleet = Fleet::with(&[&server], |pool| {
        pool.connections_max = 1;
        pool.timeouts.connect = SECOND;
        pool.endpoints[0].tls = Some(refrain_core::settings::EndpointTls::default());
    });
    let gone = Arc::new(Notify::new());
    let ask = async {
        let error = fleet.text().await.unwrap_err();
        gone.notify_one();
        error
    };
    let (error, ()) = join!(ask, async {
        let peer = server.accept().await;
        jump(SECOND + Duration::from_millis(100)).await;
        gone.notified().await;
        drop(peer);
    });
    assert_eq!(error.as_str(), "connect_timeout");
    let endpoint = fleet.pool().endpoints()[0].clone();
    let (again, ()) = join!(fleet.client.send_to(fleet.pool(), &endpoint, post("{}")), async {
        drop(server.accept().await);
    });
    assert_eq!(again.unwrap_err().as_str(), "tls", "it came to connect");
}
