//! What the upstream is sent: nothing of the client's credentials, nothing of its connection, everything else unchanged.

use refrain_tests::fake::{Answer, FakeUpstream, openai};
use refrain_tests::{Ask, Config, Person, Raw, Refrain};
use serde_json::json;

use crate::{start, start_with};

#[tokio::test]
async fn credentials_and_connection_headers_stay_at_the_proxy() {
    let ann = Person::new("ann", "acme");
    let (fake, refrain) = start_with(|config| config.people(&[&ann])).await;
    let ask = Ask::chat("hello")
        .by(&ann)
        .header("x-api-key", "sk-other")
        .header("cookie", "session=1")
        .header("proxy-authorization", "Basic x")
        .header("accept-encoding", "gzip, deflate")
        .header("connection", "x-hop, keep-alive")
        .header("x-hop", "1")
        .header("keep-alive", "timeout=5")
        .header("te", "trailers")
        .header("upgrade", "websocket")
        .header("x-openwebui-user-email", "ann@acme.example")
        .header("x-refrain-debug", "1")
        .header("user-agent", "OpenAI/Python 3.54.0")
        .header("x-stainless-lang", "python")
        .header("x-openwebui-chat-id", "chat-7")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    refrain.send(&ask).await;
    let sent = fake.last_post();
    let dropped = [
        "authorization",
        "x-api-key",
        "cookie",
        "proxy-authorization",
        "accept-encoding",
        "x-hop",
        "keep-alive",
        "te",
        "upgrade",
        "x-openwebui-user-email",
        "x-refrain-debug",
        "transfer-encoding",
        "expect",
    ];
    for name in dropped {
        assert_eq!(sent.header(name), [""; 0], "{name}");
    }
    for (name, value) in [
        ("user-agent", "OpenAI/Python 3.54.0"),
        ("x-stainless-lang", "python"),
        ("x-openwebui-chat-id", "chat-7"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(sent.header(name), [value], "{name}");
    }
    assert_eq!(sent.header("host"), [fake.address().to_string()]);
    assert_eq!(sent.header("content-length"), [sent.body.len().to_string()]);
    assert!(!sent.text().contains("sk-"));
}

#[tokio::test]
async fn a_route_may_forward_credentials() {
    let (fake, refrain) = start_with(|config| config.route("forward_credentials = true")).await;
    refrain.send(&Ask::chat("hello").header("authorization", "Bearer sk-upstream")).await;
    assert_eq!(fake.last_post().header("authorization"), ["Bearer sk-upstream"]);
}

#[tokio::test]
async fn an_endpoints_own_authorization_replaces_the_clients() {
    let fake = FakeUpstream::start().await;
    let own = format!(
        "[[pool.own.endpoint]]\nurl = \"{}\"\nauthorization = {{ value = \"Bearer own\" }}\n\
         [route.own]\npool = \"own\"\npath = \"/v1\"",
        fake.url()
    );
    let config = Config::new("http://127.0.0.1:1").tables(&own);
    let refrain = Refrain::start(&config).await;
    refrain.send(&Ask::chat("hello").header("authorization", "Bearer clients")).await;
    assert_eq!(fake.last_post().header("authorization"), ["Bearer own"]);
}

#[tokio::test]
async fn the_body_goes_up_byte_for_byte() {
    let (fake, refrain) = start().await;
    let odd = [
        "{ \"model\" : \"m\",\t\"messages\":[{\"role\":\"user\",\"content\":\"h\\u00e9 \u{1f600}\"}],\n\"seed\": 1e2 , \"x\":1.0}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"seed\":123456789012345678901234567890}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"z\":null,\"a\":-0.0,\"stream\":false}\r\n",
    ];
    for body in odd {
        assert_eq!(refrain.send(&Ask::post_bytes("/v1/chat/completions", body)).await.status, 200, "{body}");
        assert_eq!(fake.last_post().text(), body);
    }
}

#[tokio::test]
async fn a_streamed_ask_gets_include_usage_and_its_chunk_is_hidden() {
    let (fake, refrain) = start().await;
    let body = r#"{"model":"m","messages":[{"role":"user","content":"a"}],"stream":true}"#;
    let reply = refrain.send(&Ask::post_bytes("/v1/chat/completions", body)).await;
    let sent = fake.last_post().json();
    assert_eq!(sent["stream_options"]["include_usage"], true);
    let mut without = sent;
    without.as_object_mut().unwrap().remove("stream_options");
    assert_eq!(without, serde_json::from_str::<serde_json::Value>(body).unwrap());
    assert!(!reply.text().contains("completion_tokens"), "{}", reply.text());
    assert!(!reply.text().contains("\"choices\":[]"), "{}", reply.text());
    assert!(reply.text().ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_stream_of_announced_length_may_lose_its_usage_chunk() {
    let (fake, refrain) = start().await;
    let events = openai::chat_events(&["Hel".to_owned(), "lo".to_owned()], "stop", true).concat();
    fake.next(Answer::whole(200, "text/event-stream", &events));
    let reply = refrain.send(&Ask::chat("announced").streamed()).await;
    assert_eq!(reply.answer(), "Hello");
    assert!(!reply.text().contains("completion_tokens"), "{}", reply.text());
    assert!(reply.text().ends_with("data: [DONE]\n\n"), "{}", reply.text());
}

#[tokio::test]
async fn a_client_that_asked_for_usage_gets_it_and_its_body_is_unchanged() {
    let (fake, refrain) = start().await;
    let ask = Ask::chat("usage").streamed().field("stream_options", json!({"include_usage": true}));
    for _ in 0..2 {
        let reply = refrain.send(&ask).await;
        assert!(reply.text().contains("completion_tokens"), "{}", reply.text());
    }
    assert_eq!(fake.last_post().body, ask.body());
    let refused = Ask::chat("no usage").streamed().field("stream_options", json!({"include_usage": false}));
    let reply = refrain.send(&refused).await;
    assert!(!reply.text().contains("completion_tokens"));
    assert_eq!(fake.last_post().json()["stream_options"]["include_usage"], true);
}

#[tokio::test]
async fn a_model_alias_is_rewritten_and_nothing_else() {
    let (fake, refrain) =
        start_with(|config| config.tables("[pool.llm.models]\n\"gpt-4o-mini\" = \"m\"")).await;
    let body =
        r#"{"temperature":0, "model" : "gpt-4o-mini","messages":[{"role":"user","content":"gpt-4o-mini"}]}"#;
    refrain.send(&Ask::post_bytes("/v1/chat/completions", body)).await;
    assert_eq!(fake.last_post().text(), body.replacen("gpt-4o-mini", "m", 1));
    // The effective model makes the key: the server's own name for it is the same question.
    let direct = body.replacen("gpt-4o-mini", "m", 1);
    assert!(refrain.send(&Ask::post_bytes("/v1/chat/completions", direct)).await.is_hit());
}

#[tokio::test]
async fn a_base_path_goes_in_front_of_every_path() {
    let fake = FakeUpstream::start().await;
    let config = Config::new(&format!("{}/prefix", fake.url()));
    let refrain = Refrain::start(&config).await;
    refrain.send(&Ask::post("/v1/chat/completions?x=1", json!({"model": "m", "messages": []}))).await;
    assert_eq!(fake.last_post().path, "/prefix/v1/chat/completions?x=1");
}

#[tokio::test]
async fn upstream_connections_are_reused() {
    let (fake, refrain) = start_with(|config| config.pool("idle_connections = 8")).await;
    let before = fake.connections();
    for nth in 0..10 {
        refrain.send(&Ask::chat(&format!("question {nth}"))).await;
    }
    // At most one a worker.
    assert!(fake.connections() - before <= 2, "{}", fake.connections());
}

#[tokio::test]
async fn framing_that_two_readers_could_read_differently_is_normalised() {
    let (fake, refrain) = start().await;
    let body = Ask::chat("smuggled?").body();
    let mut raw = Raw::connect(refrain.address()).await;
    // Both framings at once: RFC 9112, section 6.3, lets a server drop the length or refuse.
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        body.len()
    );
    raw.send(head).await;
    raw.send(&body).await;
    raw.send("\r\n0\r\n\r\nGET /api/version HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let (status, _) = raw.response().await;
    assert!([200, 400].contains(&status), "{status}");
    for sent in fake.requests("/v1/chat/completions") {
        assert_eq!(sent.header("transfer-encoding"), [""; 0]);
        assert_eq!(sent.header("content-length"), [body.len().to_string()]);
        assert_eq!(sent.body, body);
    }
    assert!(fake.posts() <= 1);
}

#[tokio::test]
async fn a_bare_line_feed_reaches_the_upstream_as_a_proper_line_end() {
    let (fake, refrain) = start().await;
    let body = Ask::chat("bare").body();
    let mut raw = Raw::connect(refrain.address()).await;
    let head =
        format!("POST /v1/chat/completions HTTP/1.1\nHost: x\nX-Kept: 1\nContent-Length: {}\n\n", body.len());
    raw.send(head).await;
    raw.send(&body).await;
    let (status, _) = raw.response().await;
    assert!([200, 400].contains(&status), "{status}");
    if status == 200 {
        let sent = fake.last_post();
        assert_eq!((sent.header("x-kept"), &sent.body[..]), (vec!["1"], &body[..]));
    }
}
