//! The four time-outs, on a clock that the tests move.

use http::Method;
use refrain_core::Code;
use refrain_core::settings::EndpointTls;
use refrain_upstream::{ClientTls, EndpointCondition, UpstreamBody, UpstreamError, UpstreamResponse};
use rustls::RootCertStore;
use tokio::join;

use crate::server::{Fleet, Peer, SECOND, Server, jump, post, request, within};

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n";

async fn streaming(fleet: &Fleet, server: &Server) -> (UpstreamResponse, Peer) {
    let (response, peer) = join!(fleet.send(post("{}")), server.answers(CHUNKED));
    let mut response = response.unwrap();
    assert_eq!(within(response.body.chunk()).await.unwrap().unwrap(), "ab");
    (response, peer)
}

async fn next(response: &mut UpstreamResponse) -> Result<bytes::Bytes, UpstreamError> {
    within(response.body.chunk()).await.expect("the stream goes on")
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_a_connect_time_out() {
    let server = Server::bind().await;
    let tls = ClientTls::with_roots(RootCertStore::empty());
    let fleet = Fleet::at(&[server.port()], tls, |pool| pool.endpoints[0].tls = Some(EndpointTls::default()));
    let (response, _peer) = join!(fleet.send(post("{}")), async {
        let mut peer = server.accept().await;
        peer.reads_until("").await;
        jump(fleet.timeouts.connect).await;
        peer
    });
    let error = response.unwrap_err();
    assert_eq!((error.as_str(), error.code()), ("connect_timeout", Code::UpstreamUnreachable));
    assert_eq!(fleet.stats()[0].state, EndpointCondition::Down);
}

#[tokio::test]
async fn a_head_may_take_as_long_as_the_first_byte_time_out() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let (text, _peer) = join!(fleet.send(post("{}")), async {
        let mut peer = server.accept().await;
        peer.request().await;
        jump(fleet.timeouts.idle + SECOND).await;
        jump(fleet.timeouts.first_byte - fleet.timeouts.idle - 5 * SECOND).await;
        peer.say(crate::server::OK).await;
        peer
    });
    text.unwrap();
}

#[tokio::test]
async fn the_first_byte_time_out_waits_for_a_client_that_still_sends() {
    let server = Server::bind().await;
    let mut fleet = Fleet::of(&[&server]);
    fleet.timeouts.first_byte = 5 * SECOND;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let late = http_body_util::StreamBody::new(futures_util::stream::once(async {
        receiver.await.map(http_body::Frame::data)
    }));
    let (response, _peer) = join!(fleet.send(request(Method::POST, UpstreamBody::stream(late))), async {
        let mut peer = server.accept().await;
        peer.reads_until("\r\n\r\n").await;
        jump(30 * SECOND).await;
        sender.send(bytes::Bytes::from_static(b"{}")).unwrap();
        peer.reads_until("0\r\n\r\n").await;
        jump(6 * SECOND).await;
        peer
    });
    assert_eq!(response.unwrap_err().as_str(), "first_byte_timeout");
}

#[tokio::test]
async fn a_pause_longer_than_the_idle_time_out_ends_the_answer() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let (mut response, mut peer) = streaming(&fleet, &server).await;
    for _ in 0..3 {
        let (chunk, ()) = join!(response.body.chunk(), async {
            jump(fleet.timeouts.idle - 10 * SECOND).await;
            peer.say("2\r\ncd\r\n").await;
        });
        assert_eq!(chunk.unwrap().unwrap(), "cd", "each piece starts the wait anew");
    }
    let (chunk, ()) = join!(response.body.chunk(), jump(fleet.timeouts.idle));
    assert_eq!(chunk.unwrap().unwrap_err().as_str(), "idle_timeout");
    assert!(within(response.body.chunk()).await.is_none(), "an error ends the stream");
    peer.closed().await;
}

#[tokio::test]
async fn an_answer_that_drips_for_ever_ends_at_the_total_time_out() {
    let server = Server::bind().await;
    let mut fleet = Fleet::of(&[&server]);
    fleet.timeouts.total = 150 * SECOND;
    let (mut response, mut peer) = streaming(&fleet, &server).await;
    let (chunk, ()) = join!(response.body.chunk(), async {
        jump(100 * SECOND).await;
        peer.say("2\r\ncd\r\n").await;
    });
    assert_eq!(chunk.unwrap().unwrap(), "cd");
    let (chunk, ()) = join!(next(&mut response), jump(51 * SECOND));
    assert_eq!(chunk.unwrap_err().as_str(), "total_timeout");
    peer.closed().await;
}

#[tokio::test]
async fn an_answer_that_is_always_ahead_of_its_reader_ends_at_the_total_time_out() {
    let server = Server::bind().await;
    let mut fleet = Fleet::of(&[&server]);
    fleet.timeouts.total = 150 * SECOND;
    let (mut response, mut peer) = streaming(&fleet, &server).await;
    peer.say("2\r\ncd\r\n").await;
    jump(151 * SECOND).await;
    assert_eq!(next(&mut response).await.unwrap_err().as_str(), "total_timeout");
    peer.closed().await;
}

#[tokio::test]
async fn three_time_outs_with_no_byte_of_any_answer_in_between_eject() {
    let (hole, other) = (Server::bind().await, Server::bind().await);
    let fleet = Fleet::of(&[&hole, &other]);
    let in_vain = async || {
        let endpoint_is_silent = async {
            let mut peer = hole.accept().await;
            peer.request().await;
            jump(fleet.timeouts.first_byte).await;
            peer.closed().await;
        };
        let (response, ()) = join!(fleet.send(post("{}")), endpoint_is_silent);
        assert_eq!(response.unwrap_err().as_str(), "first_byte_timeout");
    };
    for _ in 0..3 {
        assert_eq!(fleet.stats()[0].state, EndpointCondition::Healthy);
        in_vain().await;
        let (text, _peer) = join!(
            fleet.text(),
            other.answers("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
        );
        text.unwrap();
    }
    assert_eq!(fleet.stats()[0].state, EndpointCondition::Ejected);
}

#[tokio::test]
async fn the_total_time_out_also_ends_the_wait_for_a_head() {
    let server = Server::bind().await;
    let mut fleet = Fleet::of(&[&server]);
    fleet.timeouts.total = 10 * SECOND;
    let (response, mut peer) = join!(fleet.send(post("{}")), async {
        let mut peer = server.accept().await;
        peer.request().await;
        jump(10 * SECOND).await;
        peer
    });
    assert_eq!(response.unwrap_err().as_str(), "total_timeout");
    peer.closed().await;
}
