//! Dead and lying upstreams: the client gets an error in its dialect or a stream that visibly broke off, and nothing is
//! stored.

use std::net::TcpListener;

use refrain_tests::fake::{Answer, FakeUpstream, anthropic, ollama, openai};
use refrain_tests::{Ask, Client, Config, Refrain, Reply};
use serde_json::json;

use crate::{start, start_with};

/// The error body that a dialect's SDK expects.
pub(crate) fn check_error_shape(ask: &Ask, reply: &Reply) {
    assert_eq!(reply.header("content-type"), "application/json", "{}", reply.text());
    let (body, path) = (reply.json(), ask.path());
    let message = if path.starts_with("/api/") {
        assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
        &body["error"]
    } else if path.starts_with("/v1/messages") {
        assert_eq!(body["type"], "error", "{body}");
        assert!(body["error"]["type"].is_string(), "{body}");
        &body["error"]["message"]
    } else {
        assert!(body["error"]["type"].is_string(), "{body}");
        assert!(body["error"].get("param").is_some() && body["error"].get("code").is_some(), "{body}");
        &body["error"]["message"]
    };
    let message = message.as_str().unwrap_or_else(|| panic!("no message in {body}"));
    assert!(!message.is_empty() && !message.contains("127.0.0.1"), "{message}");
}

/// The proxy and its upstream still work, and the question was not stored.
async fn check_recovers(refrain: &Refrain, ask: &Ask) {
    let next = refrain.send(ask).await;
    assert_eq!((next.status, next.is_hit()), (200, false), "{}", next.text());
    assert!(next.answer().contains("answer"), "{}", next.text());
}

async fn check_502(answer: impl Fn() -> Answer) {
    for ask in Ask::each_dialect("hello") {
        for ask in [ask.clone(), ask.streamed()] {
            let (fake, refrain) = start().await;
            // As often as anybody could retry.
            (0..4).for_each(|_| fake.next(answer()));
            let reply = refrain.send(&ask).await;
            assert_eq!(reply.status, 502, "{}", reply.text());
            check_error_shape(&ask, &reply);
            let tried = fake.posts();
            (tried..4).for_each(|_| fake.next(Answer::close()));
            refrain.counted("refrain_errors_total", &[("code", "upstream_broken")], 1.0).await;
        }
    }
}

#[tokio::test]
async fn garbage_in_place_of_http_is_a_502() {
    check_502(|| Answer::raw("\x16\x03garbage\r\n\r\n").then_close()).await;
}

#[tokio::test]
async fn a_connection_closed_before_the_head_is_a_502() {
    check_502(Answer::close).await;
}

#[tokio::test]
async fn a_dead_upstream_is_a_502_and_its_return_is_noticed() {
    let address = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let refrain = Refrain::start(&Config::new(&format!("http://{address}"))).await;
    for ask in Ask::each_dialect("anybody?") {
        let reply = refrain.send(&ask).await;
        assert_eq!(reply.status, 502, "{}", reply.text());
        check_error_shape(&ask, &reply);
    }
    let _fake = FakeUpstream::start_at(address).await;
    check_recovers(&refrain, &Ask::chat("anybody?")).await;
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over_for_a_live_one() {
    let address = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let fake = FakeUpstream::start().await;
    let endpoint = format!("[[pool.llm.endpoint]]\nurl = \"{}\"", fake.url());
    let refrain = Refrain::start(&Config::new(&format!("http://{address}")).tables(&endpoint)).await;
    for nth in 0..6 {
        let reply = refrain.send(&Ask::chat(&format!("question {nth}"))).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert_eq!(fake.posts(), 6);
}

#[tokio::test]
async fn an_upstream_that_never_answers_is_a_504_and_is_let_go() {
    for ask in Ask::each_dialect("hello?") {
        let (fake, refrain) =
            start_with(|config| config.route("timeouts = { first_byte = \"300ms\" }")).await;
        fake.next(Answer::never());
        let reply = refrain.send(&ask).await;
        assert_eq!(reply.status, 504, "{}", reply.text());
        check_error_shape(&ask, &reply);
        // Never retried: the model may have worked on it.
        assert_eq!(fake.posts(), 1);
        fake.abandoned(1).await;
        check_recovers(&refrain, &ask).await;
    }
}

#[tokio::test]
async fn a_stream_that_stops_is_ended_by_the_idle_timeout() {
    let (fake, refrain) = start_with(|config| config.route("timeouts = { idle = \"300ms\" }")).await;
    fake.next(openai::chat_stream(&["half ", "rest"], "stop").hang(3));
    let ask = Ask::chat("hello?").streamed();
    let (rest, _) = refrain.open(&ask).await.rest().await;
    let rest = String::from_utf8_lossy(&rest).into_owned();
    assert!(rest.contains("half ") && rest.contains("\"error\"") && !rest.contains("[DONE]"), "{rest}");
    fake.abandoned(1).await;
    check_recovers(&refrain, &ask).await;
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_broken_off_and_not_stored() {
    let (fake, refrain) = start().await;
    let message = json!({"role": "assistant", "content": "hi"});
    let whole = openai::chat_whole(1, &message, "stop", 1).to_string();
    fake.next(Answer::lying(&whole, whole.len() + 10));
    let ask = Ask::chat("lie");
    // Head and end may come in one moment: then the connection is closed before either is sent.
    let is_whole = match Client::http(refrain.address()).try_open(&ask).await {
        Ok(streaming) => streaming.rest().await.1.is_ok(),
        Err(_) => false,
    };
    assert!(!is_whole, "the client must see that the body is not whole");
    check_recovers(&refrain, &ask).await;
}

#[tokio::test]
async fn a_body_longer_than_announced_ends_where_it_was_announced_to() {
    let (fake, refrain) = start().await;
    fake.next(Answer::lying("{\"id\":\"x\"}{\"evil\":1}", 10));
    let ask = Ask::chat("lie");
    let reply = refrain.send(&ask).await;
    assert_eq!(reply.text(), "{\"id\":\"x\"}");
    check_recovers(&refrain, &ask).await;
}

/// The stream breaks off in the middle: an error event of the dialect, no terminator, nothing stored.
async fn check_cut(ask: Ask, answer: Answer, terminator: &str) {
    let (fake, refrain) = start().await;
    fake.next(answer);
    let (rest, _) = refrain.open(&ask).await.rest().await;
    let rest = String::from_utf8_lossy(&rest).into_owned();
    assert!(rest.contains("half "), "{rest}");
    assert!(rest.contains("error") && !rest.contains(terminator), "{rest}");
    check_recovers(&refrain, &ask).await;
    refrain.counted("refrain_cache_skips_total", &[("reason", "incomplete")], 1.0).await;
}

#[tokio::test]
async fn a_cut_stream_ends_with_an_error_event_in_every_dialect() {
    let pieces = ["half ".to_owned(), "rest".to_owned()];
    check_cut(Ask::chat("x").streamed(), openai::chat_stream(&["half ", "rest"], "stop").cut(3), "[DONE]")
        .await;
    let events = anthropic::events(&pieces, "end_turn");
    check_cut(
        Ask::message("x").streamed(),
        Answer::stream("text/event-stream", events).cut(5),
        "message_stop",
    )
    .await;
    let lines = ollama::stream_lines(true, &json!({"model": "m"}), &pieces, "stop");
    let lines = Answer::stream("application/x-ndjson", lines).cut(2);
    check_cut(Ask::ollama_chat("x").streamed(), lines, "\"done\":true").await;
}

#[tokio::test]
async fn a_stream_without_its_terminator_is_passed_on_and_not_stored() {
    let (fake, refrain) = start().await;
    let mut events = openai::chat_events(&["hello".to_owned()], "stop", true);
    events.pop();
    fake.next(Answer::stream("text/event-stream", events));
    let ask = Ask::chat("x").streamed();
    assert_eq!(refrain.send(&ask).await.answer(), "hello");
    check_recovers(&refrain, &ask).await;
}

#[tokio::test]
async fn an_error_within_a_stream_of_status_200_is_passed_on_and_not_stored() {
    let error = json!({"error": {"message": "out of memory", "type": "server_error", "code": 500}});
    let mut events = openai::chat_events(&["half ".to_owned()], "stop", true);
    events.insert(2, openai::event(&error));
    let anthropic_error =
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "out of memory"}});
    let mut messages = anthropic::events(&["half ".to_owned()], "end_turn");
    messages.insert(4, anthropic::event(&anthropic_error));
    let cases = [
        (Ask::chat("x").streamed(), Answer::stream("text/event-stream", events), "out of memory"),
        (Ask::message("x").streamed(), Answer::stream("text/event-stream", messages), "out of memory"),
        (
            Ask::ollama_chat("x").streamed(),
            ollama::failing_stream(&json!({"model": "m"})),
            "an error was encountered",
        ),
    ];
    for (ask, answer, text) in cases {
        let (fake, refrain) = start().await;
        fake.next(answer);
        let reply = refrain.send(&ask).await;
        assert!(reply.text().contains(text), "{}", reply.text());
        check_recovers(&refrain, &ask).await;
    }
}

#[tokio::test]
async fn an_error_in_a_whole_answer_of_status_200_is_not_stored() {
    let (fake, refrain) = start().await;
    fake.next(Answer::json(200, &json!({"error": {"message": "no"}})));
    let ask = Ask::chat("x");
    assert_eq!(refrain.send(&ask).await.json()["error"]["message"], "no");
    check_recovers(&refrain, &ask).await;
}

#[tokio::test]
async fn the_upstreams_own_errors_pass_unchanged_and_are_not_stored() {
    for status in [400, 404, 429, 500, 503] {
        for ask in Ask::each_dialect("x") {
            let (fake, refrain) = start().await;
            let body = json!({"error": {"message": "the server's own words", "odd": [1, 2]}});
            fake.next(Answer::json(status, &body).header("retry-after", "7"));
            let reply = refrain.send(&ask).await;
            assert_eq!((reply.status, reply.json()), (status, body));
            assert_eq!(reply.header("retry-after"), "7");
            assert_eq!(fake.posts(), 1);
            check_recovers(&refrain, &ask).await;
        }
    }
    let (fake, refrain) = start().await;
    fake.next(ollama::busy());
    assert_eq!(refrain.send(&Ask::ollama_chat("x")).await.status, 503);
}

#[tokio::test]
async fn an_unknown_model_is_the_upstreams_word() {
    let (_fake, refrain) = start().await;
    let reply = refrain.send(&Ask::chat("x").field("model", json!("missing"))).await;
    assert_eq!((reply.status, reply.json()), (404, openai::model_missing()));
}

#[tokio::test]
async fn answers_that_are_no_json_or_of_another_type_pass_and_are_not_stored() {
    let whole = |content_type: &str, text: &str| Answer::whole(200, content_type, text);
    for answer in [
        whole("application/json", "{\"choices\": [oops"),
        whole("application/json", ""),
        whole("application/json", "[]"),
        whole("text/html", "<html>a login page</html>"),
        Answer::json(200, &json!({"choices": []})).header("content-encoding", "gzip"),
    ] {
        let (fake, refrain) = start().await;
        fake.next(answer);
        let ask = Ask::chat("x");
        assert_eq!(refrain.send(&ask).await.status, 200);
        check_recovers(&refrain, &ask).await;
    }
}

#[tokio::test]
async fn bytes_after_the_terminator_change_nothing() {
    let (fake, refrain) = start().await;
    let mut events = openai::chat_events(&["hello".to_owned()], "stop", true);
    events.push(": a comment after the end\n\n".to_owned());
    fake.next(Answer::stream("text/event-stream", events));
    let ask = Ask::chat("x").streamed();
    refrain.send(&ask).await;
    let hit = refrain.send(&ask).await;
    assert!(hit.is_hit(), "{}", hit.cache_status());
    assert_eq!(hit.answer(), "hello");
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_meanwhile_is_no_error() {
    let (fake, refrain) = start().await;
    for nth in 0..20 {
        let message = json!({"role": "assistant", "content": "bye"});
        // Closes without having said so.
        fake.next(Answer::json(200, &openai::chat_whole(1, &message, "stop", 1)).then_close());
        let reply = refrain.send(&Ask::chat(&format!("question {nth}"))).await;
        assert_eq!(reply.status, 200, "{nth}: {}", reply.text());
    }
}
