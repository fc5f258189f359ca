//! Identical questions at the same time are asked once, and nobody notices but the GPU.

use refrain_tests::fake::{Answer, FakeUpstream, Gate, ollama, openai};
use refrain_tests::{Ask, Client, Config, Refrain, Streaming, within};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{start, start_with};

const CROWD: usize = 12;

/// Pieces of which the second waits: whoever has the first has joined.
fn held(gate: &Gate) -> Answer {
    openai::chat_stream(&["first ", "second ", "third"], "stop").gate(3, gate)
}

fn question() -> Ask {
    Ask::chat("all at once").streamed()
}

async fn joined(client: &Client, ask: &Ask) -> Streaming {
    let mut stream = client.open(ask).await;
    assert_eq!(stream.cache_status(), "refrain; fwd=miss; collapsed");
    stream.until("first ").await;
    stream
}

#[tokio::test]
async fn a_crowd_of_streams_is_one_generation() {
    let (fake, refrain) = start().await;
    let gate = Gate::default();
    fake.next(held(&gate));
    let client = Client::http(refrain.address());
    let mut leader = client.open(&question()).await;
    assert_eq!(leader.cache_status(), "refrain; fwd=miss");
    leader.until("first ").await;
    let mut followers = Vec::new();
    for _ in 1..CROWD {
        followers.push(joined(&client, &question()).await);
    }
    assert_eq!(fake.posts(), 1);
    gate.open();
    for stream in followers.into_iter().chain([leader]) {
        let rest = stream.whole().await.text();
        assert!(
            rest.contains("second ") && rest.contains("third") && rest.ends_with("data: [DONE]\n\n"),
            "{rest}"
        );
    }
    assert_eq!(fake.posts(), 1);
    let hit = refrain.send(&question()).await;
    assert!(hit.is_hit());
    assert_eq!(hit.answer(), "first second third");
    #[expect(clippy::cast_precision_loss, reason = "a dozen")]
    let collapsed = (CROWD - 1) as f64;
    refrain.counted("refrain_requests_total", &[("outcome", "collapsed")], collapsed).await;
}

#[tokio::test]
async fn a_crowd_of_whole_asks_is_one_generation() {
    let (fake, refrain) = start().await;
    let gate = Gate::default();
    let message = json!({"role": "assistant", "content": "the one"});
    fake.next(Answer::json(200, &openai::chat_whole(1, &message, "stop", 1)).gate(1, &gate));
    let client = Client::http(refrain.address());
    let ask = Ask::chat("all at once");
    let mut crowd = Vec::new();
    for nth in 0..CROWD {
        // The head is there, the body waits: everybody has joined.
        let response = client.open(&ask).await;
        assert_eq!(response.cache_status().contains("collapsed"), nth > 0, "{}", response.cache_status());
        crowd.push(response);
    }
    gate.open();
    for response in crowd {
        assert_eq!(response.whole().await.answer(), "the one");
    }
    assert_eq!(fake.posts(), 1);
}

#[tokio::test]
async fn whole_and_streamed_asks_share_a_generation() {
    let (fake, refrain) = start().await;
    let gate = Gate::default();
    fake.next(held(&gate));
    let client = Client::http(refrain.address());
    let mut leader = client.open(&question()).await;
    leader.until("first ").await;
    let mut wholes = JoinSet::new();
    for _ in 0..3 {
        let client = client.clone();
        wholes.spawn(async move { client.send(&Ask::chat("all at once")).await });
    }
    let follower = joined(&client, &question()).await;
    gate.open();
    assert!(follower.whole().await.text().contains("third"));
    assert!(leader.whole().await.text().contains("third"));
    for whole in within("whole answers", wholes.join_all()).await {
        assert_eq!(whole.answer(), "first second third");
        assert_eq!(whole.header("content-type"), "application/json");
        assert!(whole.json()["usage"]["completion_tokens"].is_u64(), "{}", whole.text());
        // One that came late has a hit.
        assert!(whole.is_hit() || whole.cache_status().ends_with("collapsed"), "{}", whole.cache_status());
    }
    assert_eq!(fake.posts(), 1);
}

#[tokio::test]
async fn usage_is_shown_to_those_who_asked_for_it_only() {
    let (fake, refrain) = start().await;
    let gate = Gate::default();
    fake.next(held(&gate));
    let client = Client::http(refrain.address());
    let mut without = client.open(&question()).await;
    without.until("first ").await;
    let asking = question().field("stream_options", json!({"include_usage": true}));
    let with = joined(&client, &asking).await;
    gate.open();
    assert!(with.whole().await.text().contains("completion_tokens"));
    assert!(!without.whole().await.text().contains("completion_tokens"));
    assert_eq!(fake.posts(), 1);
}

#[tokio::test]
async fn when_the_first_client_leaves_the_others_still_get_everything() {
    let (fake, refrain) = start().await;
    let gate = Gate::default();
    fake.next(held(&gate));
    let client = Client::http(refrain.address());
    let mut leader = client.open(&question()).await;
    leader.until("first ").await;
    let followers = [joined(&client, &question()).await, joined(&client, &question()).await];
    drop(leader);
    gate.open();
    for follower in followers {
        let rest = follower.whole().await.text();
        assert!(rest.contains("third") && rest.ends_with("data: [DONE]\n\n"), "{rest}");
    }
    assert!(refrain.send(&question()).await.is_hit());
    assert_eq!(fake.posts(), 1);
}

#[tokio::test]
async fn when_all_clients_leave_the_upstream_is_cancelled_and_nothing_is_stored() {
    let (fake, refrain) = start().await;
    fake.next(held(&Gate::default()));
    let client = Client::http(refrain.address());
    let mut leader = client.open(&question()).await;
    leader.until("first ").await;
    let follower = joined(&client, &question()).await;
    drop(leader);
    drop(follower);
    fake.abandoned(1).await;
    refrain.counted("refrain_cache_skips_total", &[("reason", "cancelled")], 1.0).await;
    let next = refrain.send(&question()).await;
    assert!(!next.is_hit(), "{}", next.cache_status());
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_begins_cancels_the_upstream() {
    for ask in Ask::each_dialect("never mind") {
        let (fake, refrain) = start().await;
        fake.next(Answer::never());
        let mut asking = JoinSet::new();
        let client = Client::http(refrain.address());
        asking.spawn(async move { client.send(&ask).await });
        fake.posted(1).await;
        asking.abort_all();
        fake.abandoned(1).await;
    }
}

#[tokio::test]
async fn bypassed_requests_are_cancelled_with_their_client_too() {
    let (fake, refrain) = start_with(|config| config.cache("sampled = \"skip\"")).await;
    let gate = Gate::default();
    fake.next(held(&gate));
    let mut stream = refrain.open(&question().field("temperature", json!(1))).await;
    assert_eq!(stream.cache_status(), "refrain; fwd=bypass; detail=sampled");
    stream.until("first ").await;
    drop(stream);
    fake.abandoned(1).await;
}

#[tokio::test]
async fn who_wants_a_fresh_answer_does_not_join() {
    let (fake, refrain) = start().await;
    let gate = Gate::default();
    fake.next(held(&gate));
    let client = Client::http(refrain.address());
    let mut leader = client.open(&question()).await;
    leader.until("first ").await;
    // In this order: what `no-cache` stores would serve `no-store`.
    for directives in ["no-store", "no-cache"] {
        let own = client.send(&question().cache_control(directives)).await;
        assert!(own.answer().starts_with("answer "), "{directives}: {}", own.answer());
    }
    assert_eq!(fake.posts(), 3);
    gate.open();
    leader.whole().await;
}

#[tokio::test]
async fn a_route_may_switch_joining_off() {
    let (fake, refrain) = start_with(|config| config.cache("collapse = false")).await;
    let gate = Gate::default();
    fake.next(held(&gate));
    let client = Client::http(refrain.address());
    let mut leader = client.open(&question()).await;
    leader.until("first ").await;
    assert_eq!(client.send(&question()).await.cache_status(), "refrain; fwd=miss");
    assert_eq!(fake.posts(), 2);
    gate.open();
    leader.whole().await;
}

#[tokio::test]
async fn followers_learn_that_the_generation_failed_in_their_dialect() {
    let (fake, refrain) = start().await;
    let gate = Gate::default();
    fake.next(openai::chat_stream(&["first ", "second ", "third"], "stop").cut(4).gate(3, &gate));
    let client = Client::http(refrain.address());
    let mut leader = client.open(&question()).await;
    leader.until("first ").await;
    let follower = joined(&client, &question()).await;
    gate.open();
    for stream in [leader, follower] {
        let (rest, _) = stream.rest().await;
        let rest = String::from_utf8_lossy(&rest).into_owned();
        assert!(rest.contains("\"error\"") && !rest.contains("[DONE]"), "{rest}");
    }
    assert!(!refrain.send(&question()).await.is_hit());
}

#[tokio::test]
async fn ollama_streams_are_shared_too() {
    let fake = FakeUpstream::start().await;
    let refrain = Refrain::start(&Config::new(&fake.url()).ollama()).await;
    crate::model_known(&refrain).await;
    let before = fake.posts();
    let gate = Gate::default();
    let body = json!({"model": "m"});
    let pieces = ["first ", "second"].map(str::to_owned);
    let lines = ollama::stream_lines(true, &body, &pieces, "stop");
    fake.next(Answer::stream("application/x-ndjson", lines).gate(2, &gate));
    let ask = Ask::post("/api/chat", json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}));
    let client = Client::http(refrain.address());
    let mut leader = client.open(&ask).await;
    leader.until("first ").await;
    let follower = joined(&client, &ask).await;
    gate.open();
    for stream in [leader, follower] {
        assert!(stream.whole().await.text().contains("\"done\":true"));
    }
    assert_eq!(fake.posts(), before + 1);
}

#[tokio::test]
async fn a_slow_reader_does_not_hold_the_others_up_or_lose_anything() {
    let (fake, refrain) = start().await;
    let gate = Gate::default();
    let pieces: Vec<String> = (0..2000).map(|nth| format!("{nth:04}{} ", "x".repeat(1000))).collect();
    let events = openai::chat_events(&pieces, "stop", true);
    fake.next(Answer::stream("text/event-stream", events).gate(2, &gate));
    let client = Client::http(refrain.address());
    let leader = client.open(&question()).await;
    let slow = client.open(&question()).await;
    assert_eq!(slow.cache_status(), "refrain; fwd=miss; collapsed");
    gate.open();
    // `slow` is read after the other has ended.
    for stream in [leader, slow] {
        assert_eq!(stream.whole().await.answer(), pieces.concat());
    }
    assert_eq!(fake.posts(), 1);
}
