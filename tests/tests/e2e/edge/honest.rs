//! Clients that mean well and ask much: no guard takes them for attackers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use refrain_tests::fake::openai;
use refrain_tests::{Ask, Refrain, within_time};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::start;

/// A front's connection, which many users share.
const STREAMS: usize = 100;
/// How often each of them asks something else before the answer has come.
const CHANGES_OF_MIND: usize = 5;

/// On one connection, whatever it is asked for.
struct Front {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

impl Front {
    async fn connect(refrain: &Refrain, driver: &mut JoinSet<()>) -> Self {
        let stream = TcpStream::connect(refrain.address()).await.unwrap();
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        driver.spawn(async move { drop(connection.await) });
        Self { sender, authority: refrain.address().to_string() }
    }

    async fn ask(&self, question: &str) -> hyper::Response<hyper::body::Incoming> {
        let ask = Ask::chat(question).streamed();
        let request = Request::post(format!("http://{}/v1/chat/completions", self.authority))
            .header("content-type", "application/json")
            .header("cache-control", "no-cache, no-store")
            .body(Full::from(ask.body()));
        let response = self.sender.clone().send_request(request.unwrap()).await;
        response.expect("the connection goes on")
    }

    /// One user: gives up some answers, and reads one.
    async fn user(self: Arc<Self>, name: usize) -> String {
        for nth in 0..CHANGES_OF_MIND {
            let mut response = self.ask(&format!("user {name}, attempt {nth}")).await;
            response.body_mut().frame().await.expect("a piece").expect("the connection goes on");
        }
        let response = self.ask(&format!("user {name}")).await;
        let body = response.into_body().collect().await.expect("the connection goes on");
        String::from_utf8(body.to_bytes().to_vec()).unwrap()
    }
}

#[tokio::test]
async fn a_hundred_streams_whose_users_change_their_minds_are_no_flood() {
    let (fake, refrain) = start().await;
    fake.always(|_| openai::chat_stream(&["word "; 20], "stop").paced(Duration::from_millis(10)));
    let mut driver = JoinSet::new();
    let front = Arc::new(Front::connect(&refrain, &mut driver).await);
    let mut users = JoinSet::new();
    for name in 0..STREAMS {
        users.spawn(front.clone().user(name));
    }
    let read = within_time(Duration::from_secs(60), "all answers", users.join_all()).await;
    assert!(read.iter().all(|answer| answer.ends_with("data: [DONE]\n\n")));
    let flooded =
        refrain.metrics().await.sum("refrain_connections_ended_total", &[("reason", "frame_flood")]);
    assert!(flooded < 1.0);
}
