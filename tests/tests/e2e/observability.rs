//! What operators see: numbers that move, logs without anybody's words, and no secrets anywhere.

use refrain_tests::fake::{Answer, openai};
use refrain_tests::{Ask, Config, Person, Refrain, fake::FakeUpstream, refrain_binary, within};
use serde_json::json;

use crate::{start, start_with};

#[tokio::test]
async fn counters_tell_misses_hits_errors_and_saved_tokens() {
    let (_fake, refrain) = start().await;
    let ask = Ask::chat("count me");
    refrain.send(&ask).await;
    refrain.send(&ask).await;
    refrain.send(&ask).await;
    refrain.send(&ask.clone().cache_control("no-cache")).await;
    refrain.send(&Ask::post_bytes("/v1/chat/completions", "{")).await;
    refrain.send(&Ask::get("/nowhere")).await;
    let metrics = refrain.metrics().await;
    let requests =
        |outcome: &str| metrics.sum("refrain_requests_total", &[("route", "all"), ("outcome", outcome)]);
    let counted = ["miss", "hit_exact", "request"].map(requests);
    assert_eq!(counted, [1.0, 2.0, 1.0], "{}", metrics.text());
    assert!(metrics.sum("refrain_errors_total", &[("code", "invalid_json")]) > 0.5);
    assert!((metrics.sum("refrain_cache_stored_total", &[]) - 2.0).abs() < 0.1);
    // "answer 1 to count me": five pieces, saved twice.
    assert!((metrics.sum("refrain_cache_saved_output_tokens_total", &[]) - 10.0).abs() < 0.1);
    assert!((metrics.sum("refrain_upstream_output_tokens_total", &[]) - 10.0).abs() < 0.1);
    for name in
        ["refrain_response_head_seconds", "refrain_upstream_first_byte_seconds", "refrain_process_ready"]
    {
        assert!(metrics.has(name), "{name}");
    }
}

#[tokio::test]
async fn nobodys_words_and_no_secret_appear_in_logs_metrics_or_config() {
    let ann = Person::new("ann", "acme");
    let fake = FakeUpstream::start().await;
    let own = format!(
        "[[pool.own.endpoint]]\nurl = \"{}\"\nauthorization = {{ value = \"Bearer upstream-secret\" }}\n\
         [route.own]\npool = \"own\"\npath = \"/v1\"",
        fake.url()
    );
    let config = Config::new(&fake.url()).people(&[&ann]).tables(&own).semantic("threshold = 0.8").on_disk();
    let refrain = Refrain::start(&config).await;
    let secret = "the zebra sleeps in the pantry";
    for ask in Ask::each_dialect(secret) {
        for ask in [ask.clone(), ask.clone(), ask.clone().streamed().cache_control("no-cache")] {
            refrain.send(&ask.by(&ann)).await;
        }
        let unknown = ask.clone().header("authorization", "Bearer sk-unknown-key");
        assert_eq!(refrain.send(&unknown).await.status, 401);
    }
    let cut = openai::chat_stream(&["the zebra ", "sleeps"], "stop").cut(3);
    fake.next(cut);
    let (_, _) = refrain.open(&Ask::chat("zebra again").streamed().by(&ann)).await.rest().await;
    fake.next(Answer::json(500, &json!({"error": {"message": "zebra trouble"}})));
    refrain.send(&Ask::chat("zebra trouble?").by(&ann)).await;
    for body in [
        "{\"zebra\":",
        "{\"model\":\"zebra\",\"model\":\"zebra\"}",
        "{\"model\":\"m\",\"messages\":\"zebra\"}",
    ] {
        assert_eq!(refrain.send(&Ask::post_bytes("/v1/chat/completions", body).by(&ann)).await.status, 400);
    }
    refrain.send(&Ask::get("/v1/models/zebra?q=zebra").by(&ann)).await;
    let seen = [
        ("log", refrain.logs()),
        ("metrics", refrain.metrics().await.text().to_owned()),
        ("config", refrain.admin(&Ask::get("/config")).await.text()),
        ("readyz", refrain.readiness().await.to_string()),
    ];
    for (place, text) in seen {
        assert!(!text.is_empty());
        for word in ["zebra", "pantry", &ann.token(), "sk-unknown-key", "upstream-secret"] {
            let line = text.lines().find(|line| line.contains(word));
            assert_eq!(line, None, "{word:?} in {place}");
        }
    }
}

#[tokio::test]
async fn errors_have_an_access_line_with_their_code() {
    let (_fake, refrain) = start().await;
    refrain.send(&Ask::post_bytes("/api/chat", "{")).await;
    refrain.logged(0, "invalid_json").await;
}

#[tokio::test]
async fn the_admin_listener_is_alive_ready_and_apart() {
    let (_fake, refrain) = start().await;
    assert_eq!(refrain.admin(&Ask::get("/livez")).await.status, 200);
    let ready = refrain.readiness().await;
    assert_eq!((&ready["ready"], &ready["store"]["state"]), (&true.into(), &"ok".into()), "{ready}");
    for path in ["/livez", "/readyz", "/metrics", "/config", "/reload"] {
        assert_eq!(refrain.send(&Ask::get(path)).await.status, 404, "{path} on the data listener");
    }
    assert_eq!(refrain.admin(&Ask::chat("x")).await.status, 404);
}

#[tokio::test]
async fn similarity_is_shown_to_admins_who_ask_only() {
    let (ann, root) = (Person::new("ann", "acme"), Person::new("root", "acme").admin());
    let (_fake, refrain) =
        start_with(|config| config.people(&[&ann, &root]).semantic("threshold = 0.8")).await;
    for person in [&ann, &root] {
        refrain.send(&Ask::chat("How do I reset my password?").by(person)).await;
    }
    let similar = Ask::chat("How can I reset my password?").header("x-refrain-debug", "1");
    assert_eq!(refrain.send(&similar.clone().by(&ann)).await.header("refrain-debug"), "");
    let debug = refrain.send(&similar.by(&root)).await.header("refrain-debug");
    assert!(debug.starts_with("similarity=0."), "{debug}");
}

#[tokio::test]
async fn a_drop_in_for_an_upstream_needs_no_file() {
    let fake = FakeUpstream::start().await;
    let refrain = Refrain::start_for(&fake.url()).await;
    let ask = Ask::chat("hello").header("authorization", "Bearer ollama");
    let miss = refrain.send(&ask).await;
    assert_eq!(miss.cache_status(), "refrain; fwd=miss");
    assert!(refrain.send(&ask).await.is_hit());
    assert_eq!(refrain.send(&Ask::post("/api/pull", json!({"model": "m"}))).await.status, 200);
}

#[tokio::test]
async fn a_key_made_by_the_binary_opens_the_door() {
    let make = ["key", "new", "--tenant", "acme", "--name", "ann"];
    let output = tokio::process::Command::new(refrain_binary()).args(make).kill_on_drop(true).output();
    let output = within("refrain key new", output).await.unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    let block = said.lines().skip_while(|line| !line.trim_start().starts_with("[key."));
    let table: Vec<&str> = block.take_while(|line| !line.trim().is_empty()).collect();
    let token =
        said.split_whitespace().find(|word| word.len() > 30 && !word.contains("blake3")).expect("a key");
    let fake = FakeUpstream::start().await;
    let config = Config::new(&fake.url()).people(&[]).tables(&table.join("\n"));
    let refrain = Refrain::start(&config).await;
    let ask = Ask::chat("hello").header("authorization", &format!("Bearer {token}"));
    assert_eq!(refrain.send(&ask).await.cache_status(), "refrain; fwd=miss");
    assert_eq!(refrain.send(&Ask::chat("hello")).await.status, 401);
}
