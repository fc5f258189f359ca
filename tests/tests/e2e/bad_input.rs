//! Clients that send nonsense: an error in their dialect with the right status, nothing sent upstream, nothing stored,
//! and the process as it was.

use refrain_tests::{Ask, Client, Config, Raw, Refrain, fake::FakeUpstream};
use serde_json::{Value, json};

use crate::bad_answers::check_error_shape;
use crate::{start, start_with};

const PATHS: [&str; 7] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/messages",
    "/api/chat",
    "/api/generate",
    "/api/embed",
];

/// Every API refuses the body so, and goes on to work.
async fn check_refused(bodies: &[Vec<u8>], status: u16) {
    let (fake, refrain) = start().await;
    for path in PATHS {
        for body in bodies {
            let ask = Ask::post_bytes(path, body.clone());
            let reply = refrain.send(&ask).await;
            let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
            assert_eq!(reply.status, status, "{path} {shown:?}: {}", reply.text());
            check_error_shape(&ask, &reply);
        }
    }
    assert_eq!(fake.posts(), 0);
    check_alive(&refrain).await;
}

async fn check_alive(refrain: &Refrain) {
    let reply = refrain.send(&Ask::chat("still there?").cache_control("no-cache")).await;
    assert_eq!(reply.status, 200);
    assert!(!refrain.logs().contains("panicked"), "{}", refrain.logs());
}

fn bytes(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[tokio::test]
async fn what_is_not_json_is_a_400() {
    let texts = [
        "",
        " ",
        "{",
        "}",
        "null",
        "[]",
        "\"text\"",
        "1",
        "{\"model\":\"m\"",
        "{\"model\":\"m\",}",
        "{'model':'m'}",
        "{\"model\":\"m\"} trailing",
        "{\"model\":\"m\"}{\"model\":\"m\"}",
        "{\"model\":NaN}",
        "{\"model\":01}",
        "{\"model\":\"\\ud800\"}",
        "{\"model\":\"a\nb\"}",
        "\u{feff}{\"model\":\"m\"}",
        "model=m&prompt=x",
    ];
    check_refused(&bytes(&texts), 400).await;
}

#[tokio::test]
async fn bytes_that_are_no_utf_8_are_a_400() {
    let mut body = b"{\"model\":\"m\",\"prompt\":\"".to_vec();
    body.extend([0xff, 0xfe, b'"', b'}']);
    check_refused(&[body, vec![0; 100], vec![0xc3, 0x28]], 400).await;
}

#[tokio::test]
async fn duplicate_names_are_a_400_at_any_depth() {
    let texts = [
        r#"{"model":"m","model":"n"}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"a"}],"messages":[]}"#,
        r#"{"model":"m","prompt":"x","input":"x","messages":[{"role":"user","content":"a","content":"b"}]}"#,
        r#"{"model":"m","prompt":"x","input":"x","messages":[],"mod\u0065l":"n"}"#,
    ];
    check_refused(&bytes(&texts), 400).await;
}

#[tokio::test]
async fn missing_fields_and_wrong_types_are_a_400() {
    let texts = [
        "{}",
        r#"{"messages":[],"prompt":"x","input":"x"}"#,
        r#"{"model":null,"messages":[],"prompt":"x","input":"x"}"#,
        r#"{"model":7,"messages":[],"prompt":"x","input":"x"}"#,
        r#"{"model":["m"],"messages":[],"prompt":"x","input":"x"}"#,
        r#"{"model":"","messages":[],"prompt":"x","input":"x"}"#,
    ];
    check_refused(&bytes(&texts), 400).await;
    let (fake, refrain) = start().await;
    let user = json!([{"role": "user", "content": "a"}]);
    let wrong: [(&str, Value); 7] = [
        ("/v1/chat/completions", json!({"model": "m"})),
        ("/v1/chat/completions", json!({"model": "m", "messages": "hello"})),
        ("/v1/chat/completions", json!({"model": "m", "messages": user, "stream": "yes"})),
        ("/v1/chat/completions", json!({"model": "m", "messages": ["hello"]})),
        ("/v1/messages", json!({"model": "m", "max_tokens": 5, "messages": {"role": "user"}})),
        ("/api/chat", json!({"model": "m", "messages": user, "stream": 1})),
        ("/api/generate", json!({"model": "m", "prompt": ["a"]})),
    ];
    for (path, body) in wrong {
        let ask = Ask::post(path, body.clone());
        let reply = refrain.send(&ask).await;
        assert_eq!(reply.status, 400, "{path} {body}: {}", reply.text());
        check_error_shape(&ask, &reply);
    }
    assert_eq!(fake.posts(), 0);
}

#[tokio::test]
async fn deep_nesting_is_a_400_and_no_overflow() {
    let deep = |depth: usize| {
        format!("{{\"model\":\"m\",\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth)).into_bytes()
    };
    let objects = format!("{{\"model\":\"m\",\"x\":{}1{}}}", "{\"a\":".repeat(5000), "}".repeat(5000));
    check_refused(
        &[deep(65), deep(1_000_000), "[".repeat(1_000_000).into_bytes(), objects.into_bytes()],
        400,
    )
    .await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_announced_or_not() {
    let (fake, refrain) = start_with(|config| config.tables("[limits]\nbody = \"64 KiB\"")).await;
    for ask in Ask::each_dialect(&"x".repeat(70 * 1024)) {
        let reply = refrain.send(&ask).await;
        assert_eq!(reply.status, 413, "{}", reply.text());
        check_error_shape(&ask, &reply);
    }
    let mut raw = Raw::connect(refrain.address()).await;
    raw.send("POST /api/chat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..10 {
        raw.send(format!("{:x}\r\n{}\r\n", 16 * 1024, "x".repeat(16 * 1024))).await;
    }
    assert_eq!(raw.response().await.0, 413);
    // Refused by the announcement alone.
    let mut raw = Raw::connect(refrain.address()).await;
    raw.send("POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n").await;
    assert_eq!(raw.response().await.0, 413);
    assert_eq!(fake.posts(), 0);
    check_alive(&refrain).await;
}

#[tokio::test]
async fn the_body_limit_holds_where_nothing_is_cached_too() {
    let (fake, refrain) =
        start_with(|config| config.route("extra_paths = [\"/own\"]").tables("[limits]\nbody = \"64 KiB\""))
            .await;
    let big = "x".repeat(70 * 1024);
    assert_eq!(refrain.send(&Ask::post_bytes("/own", big.clone())).await.status, 413);
    let mut raw = Raw::connect(refrain.address()).await;
    raw.send("POST /own HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    raw.send(format!("{:x}\r\n{big}\r\n0\r\n\r\n", big.len())).await;
    assert_eq!(raw.response().await.0, 413);
    assert!(fake.requests("/own").is_empty());
}

#[tokio::test]
async fn a_truncated_upload_is_never_sent_upstream() {
    let (fake, refrain) = start().await;
    let body = Ask::chat("cut short").body();
    for head in [
        format!("Content-Length: {}\r\n\r\n", body.len() + 10),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len() + 10),
    ] {
        let mut raw = Raw::connect(refrain.address()).await;
        raw.send(format!("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{head}")).await;
        raw.send(&body).await;
        raw.finish().await;
        let said = raw.rest().await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{said}");
    }
    assert_eq!(fake.posts(), 0);
    check_alive(&refrain).await;
}

#[tokio::test]
async fn an_upload_that_stalls_is_a_408() {
    let (fake, refrain) = start_with(|config| config.tables("[limits]\nbody_timeout = \"300ms\"")).await;
    let mut raw = Raw::connect(refrain.address()).await;
    raw.send("POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"model\"").await;
    let (status, text) = raw.response().await;
    assert_eq!(status, 408, "{text}");
    assert!(text.contains("{\"error\":\""), "{text}");
    assert_eq!(fake.posts(), 0);
}

#[tokio::test]
async fn a_head_that_stalls_is_let_go() {
    let (_fake, refrain) = start_with(|config| config.tables("[limits]\nhead_timeout = \"300ms\"")).await;
    for begun in ["", "G", "POST /api/chat HTT", "GET / HTTP/1.1\r\nHost: x\r\nX-"] {
        let mut raw = Raw::connect(refrain.address()).await;
        raw.send(begun).await;
        let said = raw.rest().await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{begun:?}: {said}");
    }
    check_alive(&refrain).await;
}

#[tokio::test]
async fn compressed_bodies_are_a_415() {
    let (fake, refrain) = start().await;
    for ask in Ask::each_dialect("x") {
        let reply = refrain.send(&ask.clone().header("content-encoding", "gzip")).await;
        assert_eq!(reply.status, 415, "{}", reply.text());
        check_error_shape(&ask, &reply);
    }
    assert_eq!(fake.posts(), 0);
}

#[tokio::test]
async fn a_head_over_our_limit_is_told_in_the_dialect() {
    let (fake, refrain) = start().await;
    let large = "x".repeat(70 << 10);
    let chat = refrain.send(&Ask::chat("hi").header("x-large", &large)).await;
    assert_eq!(chat.status, 431);
    assert_eq!(chat.json()["error"]["code"], "head_too_large", "{}", chat.text());
    let ollama = refrain.send(&Ask::post("/api/chat", json!({"model": "m"})).header("x-large", &large)).await;
    assert_eq!(ollama.status, 431);
    assert!(ollama.json()["error"].is_string(), "{}", ollama.text());
    assert_eq!(fake.posts(), 0);
}

#[tokio::test]
async fn huge_and_many_headers_are_a_431() {
    let (fake, refrain) = start().await;
    let long = format!("X-Long: {}\r\n", "x".repeat(200 * 1024));
    let many: String = (0..200).map(|nth| format!("X-{nth}: 1\r\n")).collect();
    let target = format!("/{}", "x".repeat(100_000));
    for (target, fields) in [("/api/version", long.as_str()), ("/api/version", &many), (&target, "")] {
        let mut raw = Raw::connect(refrain.address()).await;
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")).await;
        let (status, text) = raw.response().await;
        assert!([431, 414, 404].contains(&status), "{status}: {}", &text[..text.len().min(200)]);
    }
    assert!(fake.requests("/api/version").is_empty());
    check_alive(&refrain).await;
}

#[tokio::test]
async fn what_is_not_http_is_refused_or_closed() {
    let (fake, refrain) = start().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"hello\r\n\r\n",
        b"GET /api/version HTTP/9.9\r\n\r\n",
        b"GET  /api/version HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/version HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n",
        b"GET /api/version HTTP/1.1\r\nHost: x\r\nX: \x00\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ] {
        let mut raw = Raw::connect(refrain.address()).await;
        raw.send(bytes).await;
        raw.finish().await;
        let said = raw.rest().await;
        let refused = said.is_empty() || said.starts_with("HTTP/1.1 4") || !said.starts_with("HTTP/");
        assert!(refused, "{:?}: {said}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(fake.posts(), 0);
    assert!(fake.requests("/api/version").is_empty());
    check_alive(&refrain).await;
}

#[tokio::test]
async fn two_hosts_or_a_broken_one_are_a_400() {
    let (fake, refrain) = start().await;
    for hosts in ["Host: a\r\nHost: b\r\n", "Host: a b\r\n", "Host: user@a\r\n"] {
        let mut raw = Raw::connect(refrain.address()).await;
        raw.send(format!("GET /api/version HTTP/1.1\r\n{hosts}\r\n")).await;
        assert_eq!(raw.response().await.0, 400, "{hosts:?}");
    }
    assert!(fake.requests("/api/version").is_empty());
}

#[tokio::test]
async fn the_same_connection_works_after_a_refusal() {
    let (_fake, refrain) = start().await;
    let mut raw = Raw::connect(refrain.address()).await;
    let post = |body: &str| {
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for _ in 0..3 {
        raw.send(post("{\"model\":")).await;
        assert_eq!(raw.response().await.0, 400);
        raw.send(post(r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#)).await;
        assert_eq!(raw.response().await.0, 200);
    }
}

#[tokio::test]
async fn nothing_wrong_is_ever_stored() {
    let (fake, refrain) = start().await;
    for text in [r#"{"model":"m","messages":"x"}"#, "{", r#"{"model":"m","model":"m","messages":[]}"#] {
        refrain.send(&Ask::post_bytes("/v1/chat/completions", text)).await;
    }
    let metrics = refrain.metrics().await;
    assert!(metrics.has("refrain_cache_stored_total"));
    assert!(metrics.sum("refrain_cache_stored_total", &[]).abs() < 0.5);
    assert_eq!(fake.posts(), 0);
}

async fn check_refused_config(config: &Config, said: &[&str]) {
    let (status, output) = Refrain::run_to_end(config).await;
    assert_eq!(status.code(), Some(2), "{output}");
    for text in said {
        assert!(output.contains(text), "no {text:?} in:\n{output}");
    }
    assert!(!output.contains("panicked"), "{output}");
}

#[tokio::test]
async fn config_mistakes_are_told_all_at_once_with_line_and_suggestion() {
    let config = Config::new("http://127.0.0.1:1")
        .route("extra_path = [\"/x\"]")
        .cache("ttl = \"soon\"\nscoop = \"user\"")
        .tables("[route.second]\npool = \"lm\"\n[limits]\nheaders = \"many\"\n[pol.x]");
    check_refused_config(
        &config,
        &[
            "extra_path",
            "extra_paths",
            "ttl",
            "scoop",
            "scope",
            "\"lm\"",
            "llm",
            "headers",
            "pol",
            "pool",
            "refrain.toml:",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_config_that_is_no_toml_or_names_missing_files_is_refused() {
    check_refused_config(&Config::new("http://127.0.0.1:1").tables("[route.x\npool="), &["refrain.toml:"])
        .await;
    let tls = "tls.certificates = [{ chain = \"no-chain.pem\", key = \"no-key.pem\" }]";
    let config = Config::new("http://127.0.0.1:1").listener(tls);
    let (status, output) = Refrain::run_to_end(&config).await;
    assert!(!status.success() && output.contains("no-chain.pem"), "{output}");
}

#[tokio::test]
async fn an_address_in_use_is_told_and_not_shared() {
    let fake = FakeUpstream::start().await;
    let config =
        Config::new(&fake.url()).tables(&format!("[listener.second]\naddress = \"{}\"", fake.address()));
    let (status, output) = Refrain::run_to_end(&config).await;
    assert!(!status.success(), "{output}");
    assert!(output.contains(&fake.address().to_string()) && output.contains("another server"), "{output}");
}

/// The bytes of an HTTP/2 frame.
fn h2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

#[tokio::test]
async fn broken_http2_ends_its_connection_only() {
    let (fake, refrain) = start().await;
    let (data, headers, settings, window, continuation) = (0, 1, 4, 8, 9);
    let frames: [Vec<u8>; 6] = [
        h2_frame(data, 0, 1, b"data for no stream"),
        h2_frame(headers, 4, 1, &[0xff; 64]),
        h2_frame(headers, 4, 2, &[0x82]),
        h2_frame(settings, 0, 0, &[1, 2, 3]),
        h2_frame(window, 0, 0, &[0, 0, 0, 0]),
        h2_frame(continuation, 0, 1, &[0x82]),
    ];
    for frame in frames {
        let mut raw = Raw::connect(refrain.address()).await;
        raw.send([H2_PREFACE, &frame].concat()).await;
        raw.rest().await;
    }
    assert_eq!(fake.posts(), 0);
    check_alive(&refrain).await;
}

#[tokio::test]
async fn a_flood_of_reset_http2_streams_is_ended() {
    let (_fake, refrain) = start().await;
    let mut raw = Raw::connect(refrain.address()).await;
    raw.send(H2_PREFACE).await;
    // GET / by indexed fields, reset at once: CVE-2023-44487.
    let fields = [0x82, 0x84, 0x86, 0x41, 0x01, b'x'];
    for stream in (1..40_000).step_by(2) {
        let opened = h2_frame(1, 5, stream, &fields);
        raw.send([opened, h2_frame(3, 0, stream, &[0, 0, 0, 8])].concat()).await;
    }
    raw.rest().await;
    check_alive(&refrain).await;
}

#[tokio::test]
async fn huge_headers_over_http2_are_a_431() {
    let (fake, refrain) = start().await;
    let ask = Ask::get("/api/version").header("x-long", &"x".repeat(100 * 1024));
    match Client::h2(refrain.address()).try_open(&ask).await {
        Ok(reply) => assert_eq!(reply.status, 431),
        Err(error) => assert!(!error.is_empty()),
    }
    assert!(fake.requests("/api/version").is_empty());
    check_alive(&refrain).await;
}

#[tokio::test]
async fn a_large_body_within_the_limit_passes_over_both_http_versions() {
    let (fake, refrain) = start().await;
    for client in [Client::http(refrain.address()), Client::h2(refrain.address())] {
        let ask = Ask::chat(&"x".repeat(8 * 1024 * 1024)).cache_control("no-cache, no-store");
        assert_eq!(client.send(&ask).await.status, 200);
        assert_eq!(fake.last_post().body, ask.body());
    }
}
