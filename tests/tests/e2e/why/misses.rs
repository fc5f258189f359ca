//! What keeps requests apart is found, without a word of them.

use refrain_tests::fake::{Answer, FakeUpstream, Gate, openai};
use refrain_tests::{Ask, Config, Refrain, eventually};
use serde_json::Value;

use super::{chat, run};
use crate::start_with;

async fn route(refrain: &Refrain) -> Value {
    refrain.admin(&Ask::get("/misses")).await.json()["routes"][0].clone()
}

#[tokio::test]
async fn the_line_that_makes_each_request_unique_is_named_with_its_share() {
    let (_fake, refrain) = start_with(|config| config.cache("miss_sample = 1.0").quiet()).await;
    for round in 0..10 {
        for question in ["zebra", "yak", "walrus", "vole", "urchin"] {
            let system = format!("Be brief.\nYou are Ann.\nIt is 12:0{round}.\nBye.");
            refrain.send(&chat(&system, &format!("What is a {question}?"))).await;
        }
    }
    let found = route(&refrain).await;
    assert_eq!(found["misses"], 50);
    let first = &found["causes"][0];
    // Each question's first time has no earlier one: 45 of 50.
    assert_eq!(
        (&first["parts"][0], first["count"].as_u64()),
        (&"system prompt line 3".into(), Some(45)),
        "{found:#}"
    );
    assert!(!found.to_string().contains("zebra") && !found.to_string().contains("12:0"), "{found:#}");
    let (_, page) = run(&["misses", "--admin", &refrain.admin_address().to_string()]).await;
    let sentence = "90 % of misses on `all` differ only in line 3 of the system prompt (45)";
    assert!(page.contains(sentence) && page.contains("agent-safe"), "{page}");
}

#[tokio::test]
async fn nothing_is_noted_where_nothing_is_sampled_and_hits_never_are() {
    let (_fake, refrain) = start_with(|config| config.cache("miss_sample = 0.0")).await;
    refrain.send(&Ask::chat("Hello")).await;
    assert_eq!(route(&refrain).await, Value::Null);
    let (_fake, refrain) = start_with(|config| config.cache("miss_sample = 1.0")).await;
    for _ in 0..3 {
        refrain.send(&Ask::chat("Hello")).await;
    }
    refrain.send(&Ask::chat("Hello").cache_control("no-cache")).await;
    let found = route(&refrain).await;
    assert_eq!(found["misses"], 2);
    let kinds: Vec<&str> =
        found["causes"].as_array().unwrap().iter().map(|cause| cause["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["forbidden", "unlike"], "{found:#}");
}

#[tokio::test]
async fn a_request_that_falls_back_is_one_miss() {
    let second = FakeUpstream::start().await;
    let tables = format!("[pool.second]\nendpoints = [{:?}]\n", second.url());
    let config = Config::new("http://127.0.0.1:1")
        .pool("fallback = \"second\"")
        .tables(&tables)
        .cache("miss_sample = 1.0");
    let refrain = Refrain::start(&config).await;
    assert_eq!(refrain.send(&Ask::chat("Hello")).await.status, 200);
    assert_eq!(route(&refrain).await["misses"], 1);
}

#[tokio::test]
async fn who_joins_a_generation_has_missed_nothing() {
    let (fake, refrain) = start_with(|config| config.cache("miss_sample = 1.0")).await;
    let gate = Gate::default();
    let events = openai::chat_events(&["a".into()], "stop", true);
    fake.next(Answer::stream("text/event-stream", events).gate(3, &gate));
    let ask = Ask::chat("Hello").streamed();
    let mut first = refrain.open(&ask).await;
    first.until("\"a\"").await;
    let mut second = refrain.open(&ask).await;
    second.until("\"a\"").await;
    gate.open();
    first.whole().await;
    second.whole().await;
    eventually("the noted miss", async || (route(&refrain).await != Value::Null).then_some(())).await;
    assert_eq!(route(&refrain).await["misses"], 1);
}
