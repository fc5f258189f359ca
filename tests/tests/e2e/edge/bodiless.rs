//! Answers that have no body: clients of both HTTP versions find their end.

use http::Method;
use refrain_tests::fake::Answer;
use refrain_tests::{Ask, Client, Refrain};

use crate::{start, start_with};

fn clients(refrain: &Refrain) -> [Client; 2] {
    [Client::http(refrain.address()), Client::h2(refrain.address())]
}

#[tokio::test]
async fn head_is_answered_as_get_is_and_without_the_body() {
    let (_fake, refrain) = start().await;
    for client in clients(&refrain) {
        for (path, status) in [("/", 200), ("/v1/models", 200), ("/v1/unknown", 404)] {
            let whole = client.send(&Ask::get(path)).await;
            let head = client.send(&Ask::new(Method::HEAD, path)).await;
            assert_eq!((whole.status, head.status), (status, status), "{path}");
            assert_eq!(head.header("content-length"), whole.body.len().to_string(), "{path}");
            assert!(head.body.is_empty(), "{path}");
        }
    }
}

#[tokio::test]
async fn an_answer_without_content_names_no_length_whatever_the_model_server_says() {
    let (fake, refrain) = start_with(|config| config.route("extra_paths = [\"/own\"]")).await;
    for client in clients(&refrain) {
        fake.next(Answer::raw("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n"));
        let reply = client.send(&Ask::post("/own", serde_json::json!({}))).await;
        assert_eq!((reply.status, reply.header("content-length").as_str()), (204, ""));
        assert!(reply.body.is_empty());
    }
}
