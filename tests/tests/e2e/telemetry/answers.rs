//! How answers are counted: once each, as what they are.

use std::time::Duration;

use refrain_tests::fake::{Answer, FakeUpstream, Gate, openai};
use refrain_tests::{Ask, Client, Config, Refrain, eventually};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{start, start_with};

/// What `refrain_responses_total` says once so many answers have ended: complete ones, and those that were left.
async fn ended(refrain: &Refrain, all: f64) -> (f64, f64) {
    refrain.counted("refrain_responses_total", &[], all).await;
    let metrics = refrain.metrics().await;
    let how = |ended| metrics.sum("refrain_responses_total", &[("ended", ended)]);
    (how("complete"), how("left"))
}

/// A request that always goes past the cache.
fn uncached() -> Ask {
    let picture = json!({"type": "image_url", "image_url": {"url": "https://images.example/today.png"}});
    Ask::chat("").field("messages", json!([{"role": "user", "content": [picture]}]))
}

#[tokio::test]
async fn an_answer_without_a_body_is_complete() {
    let (fake, refrain) = start_with(|config| config.without_cache().route("cache = false")).await;
    fake.next(Answer::json(200, &json!({})));
    refrain.send(&Ask::chat("a body")).await;
    fake.next(Answer::whole(200, "application/json", ""));
    assert_eq!(refrain.send(&Ask::chat("no byte of one")).await.status, 200);
    fake.next(Answer::raw("HTTP/1.1 204 Nothing\r\n\r\n"));
    assert_eq!(refrain.send(&Ask::chat("none")).await.status, 204);
    assert_eq!(ended(&refrain, 3.0).await, (3.0, 0.0));
}

#[tokio::test]
async fn a_whole_answer_that_several_share_is_complete_for_each() {
    const CLIENTS: usize = 8;
    let (fake, refrain) = start().await;
    let gate = Gate::default();
    let held = gate.clone();
    fake.always(move |request| openai::chat(&request.json(), 1).gate(1, &held));
    let client = Client::http(refrain.address());
    let mut asks = JoinSet::new();
    for _ in 0..CLIENTS {
        let client = client.clone();
        asks.spawn(async move { client.send(&Ask::chat("all at once")).await.status });
    }
    eventually("the request of all", async || (fake.in_flight() == 1).then_some(())).await;
    gate.open();
    assert!(asks.join_all().await.iter().all(|status| *status == 200));
    let all = CLIENTS as f64;
    assert_eq!(ended(&refrain, all).await, (all, 0.0));
}

#[tokio::test]
async fn tokens_are_generated_whatever_becomes_of_the_answer() {
    let (_fake, refrain) = start().await;
    let generated = async |least| {
        refrain.counted("refrain_upstream_output_tokens_total", &[("route", "all")], least).await;
        let metrics = refrain.metrics().await;
        let route = metrics.sum("refrain_upstream_output_tokens_total", &[]);
        assert_eq!(metrics.sum("refrain_pool_output_tokens_total", &[]), route, "of the pool, too");
        route
    };
    refrain.send(&Ask::chat("to be stored")).await;
    let stored = generated(1.0).await;
    refrain.send(&Ask::chat("not to be stored").cache_control("no-store")).await;
    let unstored = generated(stored + 1.0).await;
    // Past the cache.
    refrain.send(&uncached()).await;
    generated(unstored + 1.0).await;
}

#[tokio::test]
async fn gaps_are_those_of_streams_and_outlive_a_reload() {
    let (fake, refrain) = start().await;
    let whole = openai::chat_whole(1, &json!({"role": "assistant", "content": "in two pieces"}), "stop", 3)
        .to_string();
    let (first, second) = whole.split_at(20);
    let head = format!(
        "HTTP/1.1 200 Fake\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        whole.len()
    );
    fake.next(Answer::raw(head + first).then(second).pause(1, Duration::from_millis(20)));
    refrain.send(&Ask::chat("a whole one")).await;
    assert_eq!(ended(&refrain, 1.0).await, (1.0, 0.0));
    for name in ["refrain_response_gap_seconds_count", "refrain_response_stall_seconds_count"] {
        assert_eq!(refrain.metrics().await.sum(name, &[]), 0.0, "{name}");
    }
    fake.next(openai::chat_stream(&["one ", "two ", "three"], "stop").paced(Duration::from_millis(20)));
    refrain.open(&Ask::chat("a stream").streamed()).await.rest().await.1.unwrap();
    refrain.counted("refrain_response_first_token_seconds_count", &[("origin", "upstream")], 1.0).await;
    let metrics = refrain.metrics().await;
    let (gaps, up_to) = (
        metrics.sum("refrain_response_gap_seconds_count", &[("route", "all")]),
        metrics.sum("refrain_response_gap_seconds_bucket", &[("le", "+Inf")]),
    );
    assert!(gaps >= 2.0 && gaps == up_to, "{gaps} {up_to}");
    assert!(metrics.sum("refrain_response_gap_seconds_bucket", &[("le", "0.01")]) < gaps);
    refrain.reload().await;
    assert_eq!(refrain.metrics().await.sum("refrain_response_gap_seconds_count", &[]), gaps);
}

#[tokio::test]
async fn a_request_past_the_cache_is_one_though_another_pool_stands_in() {
    let second = FakeUpstream::start().await;
    let tables = format!("[pool.second]\nendpoints = [{:?}]\n", second.url());
    let config = Config::new("http://127.0.0.1:1").pool("fallback = \"second\"").tables(&tables);
    let refrain = Refrain::start(&config).await;
    assert_eq!(refrain.send(&uncached()).await.status, 200);
    let metrics = refrain.metrics().await;
    assert_eq!(metrics.sum("refrain_upstream_fallbacks_total", &[]), 1.0);
    assert_eq!(metrics.sum("refrain_cache_bypasses_total", &[]), 1.0);
}

#[tokio::test]
async fn questions_of_one_answer_are_counted_on_over_a_reload() {
    let (_fake, refrain) = start_with(|config| config.semantic("threshold = 0.8")).await;
    refrain.send(&Ask::chat("How do I reset my password?")).await;
    assert!(refrain.send(&Ask::chat("How can I reset my password?")).await.is_hit());
    let crowd = async || refrain.metrics().await.sum("refrain_semantic_questions_of_one_answer", &[]);
    assert_eq!(crowd().await, 1.0);
    assert_eq!(refrain.reload().await.status, 200);
    assert_eq!(crowd().await, 1.0);
}
