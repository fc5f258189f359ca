//! Whole answers that are asked for as streams, for the sake of fronts that cut silent connections.

use refrain_tests::fake::FakeUpstream;
use refrain_tests::{Ask, Config, Refrain};
use serde_json::{Value, json};

use super::{fakes, fleet, pool_of};

fn without_id(mut answer: Value) -> Value {
    for field in ["id", "created", "created_at", "total_duration"] {
        answer.as_object_mut().unwrap().remove(field);
    }
    answer
}

#[tokio::test]
async fn a_whole_answer_is_the_same_though_it_came_as_a_stream() {
    for caches in [false, true] {
        let (plain, assembled) = (fakes(1).await, fakes(1).await);
        let config = |fakes: &[FakeUpstream], lines: &str| {
            if caches { Config::new(&fakes[0].url()).pool(lines) } else { pool_of(fakes, lines) }
        };
        let direct = Refrain::start(&config(&plain, "")).await;
        let refrain = Refrain::start(&config(&assembled, "assemble = true")).await;
        for ask in [Ask::chat("hello"), Ask::completion("hello"), Ask::message("hello")] {
            let (expected, got) = (direct.send(&ask).await, refrain.send(&ask).await);
            assert_eq!(got.header("content-type"), "application/json");
            assert_eq!(without_id(got.json()), without_id(expected.json()));
            assert_eq!(assembled[0].last_post().json()["stream"], json!(true));
            assert_eq!(plain[0].last_post().json()["stream"], json!(null));
            direct.send(&ask).await;
            assert_eq!(refrain.send(&ask).await.is_hit(), caches);
        }
    }
}

#[tokio::test]
async fn streams_and_errors_are_passed_on_as_they_are() {
    let fakes = fakes(1).await;
    let refrain = fleet(&fakes, "assemble = true").await;
    let streamed = refrain.send(&Ask::chat("hello").streamed()).await;
    assert!(streamed.text().ends_with("data: [DONE]\n\n"));
    let missing = refrain.send(&Ask::chat("hello").field("model", json!("missing"))).await;
    assert_eq!(missing.status, 404);
    let embedded = refrain.send(&Ask::post("/v1/embeddings", json!({"model": "m", "input": "x"}))).await;
    assert_eq!(embedded.status, 200);
    assert_eq!(fakes[0].last_post().json()["stream"], json!(null));
}
