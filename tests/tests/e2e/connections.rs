//! HTTP versions, TLS, CORS, and the manners of connections.

use http::Method;
use refrain_tests::fake::Gate;
use refrain_tests::fake::openai;
use refrain_tests::{Ask, Authority, Client, Config, Raw, Refrain, fake::FakeUpstream};
use rustls::version::{TLS12, TLS13};
use serde_json::json;

use crate::{start, start_with};

#[tokio::test]
async fn http2_by_prior_knowledge_serves_whole_and_streamed() {
    let (_fake, refrain) = start().await;
    let client = Client::h2(refrain.address());
    for ask in [Ask::chat("one"), Ask::chat("two").streamed()] {
        let (miss, hit) = (client.send(&ask).await, client.send(&ask).await);
        assert_eq!(miss.cache_status(), "refrain; fwd=miss");
        assert!(hit.is_hit());
        assert_eq!(hit.answer(), miss.answer());
        // The same entry, whatever the protocol.
        assert!(refrain.send(&ask).await.is_hit());
    }
}

#[tokio::test]
async fn a_stream_reaches_the_client_piece_by_piece() {
    let (fake, refrain) = start().await;
    for client in [Client::http(refrain.address()), Client::h2(refrain.address())] {
        let gate = Gate::default();
        fake.next(openai::chat_stream(&["first ", "second"], "stop").gate(3, &gate));
        let mut stream = client.open(&Ask::chat("slow").streamed().cache_control("no-cache, no-store")).await;
        stream.until("first ").await;
        gate.open();
        stream.until("[DONE]").await;
    }
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let (_fake, refrain) = start().await;
    let mut raw = Raw::connect(refrain.address()).await;
    for _ in 0..3 {
        raw.send("GET /api/version HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(raw.response().await.0, 200);
    }
}

#[tokio::test]
async fn expect_100_continue_is_answered_and_not_passed_on() {
    let (fake, refrain) = start().await;
    let body = Ask::chat("may I?").body();
    let mut raw = Raw::connect(refrain.address()).await;
    raw.send(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ))
    .await;
    assert_eq!(raw.response().await.0, 100);
    raw.send(&body).await;
    assert_eq!(raw.response().await.0, 200);
    assert_eq!(fake.last_post().header("expect"), [""; 0]);
}

#[tokio::test]
async fn preflights_are_answered_per_route_and_the_answer_is_readable_by_the_page() {
    let page = "https://chat.example";
    let (fake, refrain) = start_with(|config| config.route(&format!("cors_origins = [{page:?}]"))).await;
    let preflight = Ask::new(Method::OPTIONS, "/v1/chat/completions")
        .header("origin", page)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,x-stainless-read-timeout");
    let reply = refrain.send(&preflight).await;
    assert_eq!(reply.status, 204);
    assert_eq!(reply.header("access-control-allow-origin"), page);
    assert!(reply.header("access-control-allow-headers").contains("x-stainless-read-timeout"));
    assert!(reply.header("access-control-allow-methods").contains("POST"));
    for ask in [Ask::chat("a"), Ask::chat("a"), Ask::post_bytes("/v1/chat/completions", "{")] {
        let reply = refrain.send(&ask.header("origin", page)).await;
        assert_eq!(reply.header("access-control-allow-origin"), page, "{}", reply.status);
        assert!(reply.header("access-control-expose-headers").contains("cache-status"));
    }
    let evil = refrain.send(&Ask::chat("a").header("origin", "https://evil.example")).await;
    assert_eq!(evil.header("access-control-allow-origin"), "");
    assert_eq!(fake.requests("/v1/chat/completions").len(), 1);
}

#[tokio::test]
async fn certificates_are_chosen_by_sni_for_both_tls_versions_and_http_versions() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let first = authority.issue(dir.path(), "first", &["llm.example", "127.0.0.1"]);
    let wild = authority.issue(dir.path(), "wild", &["*.team.example"]);
    let pair = |stem: &str| {
        format!(
            "{{ chain = {:?}, key = {:?} }}",
            dir.path().join(format!("{stem}.pem")),
            dir.path().join(format!("{stem}.key"))
        )
    };
    let tls = format!("tls.certificates = [{}, {}]", pair("first"), pair("wild"));
    let fake = FakeUpstream::start().await;
    let refrain = Refrain::start(&Config::new(&fake.url()).listener(&tls)).await;
    for versions in [&[&TLS12][..], &[&TLS13]] {
        for alpn in [&["h2", "http/1.1"][..], &["http/1.1"], &[]] {
            let config = authority.client(alpn, versions);
            for (name, expected) in [("llm.example", &first), ("a.team.example", &wild)] {
                let ask = Ask::chat("over TLS").streamed();
                let stream = Client::tls(refrain.address(), config.clone(), name).open(&ask).await;
                assert_eq!((stream.status, stream.certificate.as_ref()), (200, Some(expected)), "{name}");
                assert!(stream.whole().await.text().ends_with("data: [DONE]\n\n"));
            }
        }
    }
    // In clear, the TLS listener serves nothing.
    let mut raw = Raw::connect(refrain.address()).await;
    raw.send("GET /api/version HTTP/1.1\r\nHost: x\r\n\r\n").await;
    raw.finish().await;
    assert!(!raw.rest().await.contains("200"));
}

#[tokio::test]
async fn http_1_0_clients_are_served() {
    let (_fake, refrain) = start().await;
    let body = Ask::chat("old").body();
    let mut raw = Raw::connect(refrain.address()).await;
    raw.send(format!("POST /v1/chat/completions HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len())).await;
    raw.send(&body).await;
    let said = raw.rest().await;
    assert!(said.starts_with("HTTP/1.0 200") || said.starts_with("HTTP/1.1 200"), "{said}");
    assert!(said.contains("answer 1 to old"), "{said}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (_fake, refrain) = start().await;
    let mut raw = Raw::connect(refrain.address()).await;
    let post = |text: &str| {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": text}]}).to_string();
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    raw.send(format!("{}{}GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", post("one"), post("two")))
        .await;
    let said = raw.rest().await;
    let places = ["to one", "to two", "Refrain is running"]
        .map(|text| said.find(text).unwrap_or_else(|| panic!("{said}")));
    assert!(places.is_sorted(), "{said}");
}
