//! What the upstream sees.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method};
use http_body::{Body, Frame};
use http_body_util::StreamBody;
use refrain_core::settings::Secret;
use refrain_upstream::{BoxError, UpstreamBody, UpstreamRequest};
use tokio::join;
use tokio::sync::mpsc;

use crate::server::{Fleet, OK, Server, post, request, within};

#[tokio::test]
async fn framing_and_host_are_made_anew() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("999"));
    headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked, identity"));
    headers.insert(HOST, HeaderValue::from_static("victim"));
    headers.insert(CONNECTION, HeaderValue::from_static("x-secret-hop"));
    headers.insert("x-secret-hop", HeaderValue::from_static("1"));
    headers.insert("x-kept", HeaderValue::from_static("As It Is"));
    let request = UpstreamRequest { headers, ..post("{}") };
    let (response, seen) = join!(fleet.send(request), async {
        let mut peer = server.accept().await;
        (peer.answers(OK).await, peer)
    });
    response.unwrap();
    let port = server.port();
    let expected = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nx-kept: As It Is\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    assert_eq!(seen.0, expected);
}

#[tokio::test]
async fn the_endpoint_adds_its_base_path_and_its_own_authorization() {
    let server = Server::bind().await;
    let fleet = Fleet::with(&[&server], |pool| {
        pool.endpoints[0].base_path = "/v2/x".into();
        pool.endpoints[0].authorization = Some(Secret("Bearer pool".into()));
    });
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer client"));
    let request = UpstreamRequest {
        headers,
        path_and_query: "/v1/models?a=1".parse().unwrap(),
        ..request(Method::GET, UpstreamBody::empty())
    };
    let (response, seen) = join!(fleet.send(request), async {
        let mut peer = server.accept().await;
        (peer.answers(OK).await, peer)
    });
    response.unwrap();
    let port = server.port();
    let expected = format!(
        "GET /v2/x/v1/models?a=1 HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer pool\r\n\r\n"
    );
    assert_eq!(seen.0, expected);
}

#[tokio::test]
async fn an_empty_post_says_so() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let (response, seen) = join!(fleet.send(post("")), async {
        let mut peer = server.accept().await;
        (peer.answers(OK).await, peer)
    });
    response.unwrap();
    assert!(seen.0.ends_with("content-length: 0\r\n\r\n"), "{}", seen.0);
}

fn body(
    pieces: mpsc::Receiver<Result<&'static str, BoxError>>,
) -> impl Body<Data = Bytes, Error = BoxError> + Send {
    StreamBody::new(futures_util::stream::unfold(pieces, async |mut pieces| {
        let piece = pieces.recv().await?;
        Some((piece.map(|piece| Frame::data(Bytes::from_static(piece.as_bytes()))), pieces))
    }))
}

#[tokio::test]
async fn a_streamed_body_passes_as_it_comes() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let (pieces, receiver) = mpsc::channel(1);
    let send = fleet.send(request(Method::POST, UpstreamBody::stream(body(receiver))));
    let (response, _peer) = join!(send, async {
        let mut peer = server.accept().await;
        pieces.send(Ok("abc")).await.unwrap();
        assert!(peer.reads_until("3\r\nabc\r\n").await.contains("transfer-encoding: chunked\r\n"));
        pieces.send(Ok("de")).await.unwrap();
        drop(pieces);
        assert_eq!(peer.reads_until("0\r\n\r\n").await, "2\r\nde\r\n0\r\n\r\n");
        peer.say(OK).await;
        peer
    });
    assert_eq!(within(response.unwrap().body.collect(10)).await.unwrap(), "ok");
}

#[tokio::test]
async fn a_client_that_stops_sending_is_not_the_upstreams_fault() {
    let server = Server::bind().await;
    let fleet = Fleet::of(&[&server]);
    let (pieces, receiver) = mpsc::channel(1);
    let send = fleet.send(request(Method::POST, UpstreamBody::stream(body(receiver))));
    let (response, ()) = join!(send, async {
        let mut peer = server.accept().await;
        pieces.send(Ok("abc")).await.unwrap();
        peer.reads_until("3\r\nabc\r\n").await;
        pieces.send(Err("the client left".into())).await.unwrap();
        peer.closed().await;
    });
    assert_eq!(response.unwrap_err().as_str(), "request_body");
}
