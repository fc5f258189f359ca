//! A herd of identical requests over two proxies.

use refrain_tests::fake::{Answer, Gate, openai};
use refrain_tests::redis::{Flavour, RedisServer};
use refrain_tests::{Ask, Client, eventually};
use serde_json::json;
use tokio::task::JoinSet;

use super::Fleet;

const HERD: usize = 200;
const ROUNDS: usize = 40;

#[tokio::test]
async fn a_herd_of_identical_requests_over_two_proxies_makes_at_most_two_generations() {
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let fleet = Fleet::of(&redis).await;
    let pair = fleet.pair().await;
    for (round, streamed) in [(1, false), (2, true)] {
        let ask = Ask::chat(&format!("all at once {round}"));
        let ask = if streamed { ask.streamed() } else { ask };
        let before = fleet.fake.posts();
        let mut herd = JoinSet::new();
        for nth in 0..HERD {
            let (client, ask) = (Client::http(pair[nth % 2].address()), ask.clone());
            herd.spawn(async move { client.send(&ask).await });
        }
        let replies = herd.join_all().await;
        let generated = fleet.fake.posts() - before;
        assert!((1..=2).contains(&generated), "{generated} generations");
        for reply in replies {
            assert_eq!(reply.status, 200, "{}", reply.text());
            let answer = reply.answer();
            let generation =
                (1..=generated).map(|nth| format!("answer {} to all at once {round}", before + nth));
            assert!(generation.into_iter().any(|made| made == answer), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_herd_before_a_slow_upstream_makes_at_most_two_generations() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let fleet = Fleet::of(&redis).await;
    let pair = fleet.pair().await;
    let gate = Gate::default();
    for text in ["one", "the other"] {
        let message = json!({"role": "assistant", "content": text});
        fleet.fake.next(Answer::json(200, &openai::chat_whole(1, &message, "stop", 1)).gate(0, &gate));
    }
    let ask = Ask::chat("all at once");
    let mut herd = JoinSet::new();
    for nth in 0..HERD {
        let (client, ask) = (Client::http(pair[nth % 2].address()), ask.clone());
        herd.spawn(async move { client.send(&ask).await });
    }
    // Both generate: the second has waited long enough.
    fleet.fake.posted(2).await;
    gate.open();
    for reply in herd.join_all().await {
        assert_eq!(reply.status, 200);
        assert!(["one", "the other"].contains(&reply.answer().as_str()), "{}", reply.text());
    }
    assert_eq!(fleet.fake.posts(), 2);
    // One of them is what stays, at both.
    let same = async || {
        let [a, b] = [super::look(&pair[0], &ask).await, super::look(&pair[1], &ask).await];
        (a.is_hit() && b.is_hit() && a.answer() == b.answer()).then_some(())
    };
    eventually("one answer for all", same).await;
}

#[tokio::test]
async fn the_same_question_at_two_proxies_at_once_is_mostly_asked_once() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let fleet = Fleet::of(&redis).await;
    let [a, b] = fleet.pair().await;
    for round in 0..ROUNDS {
        let ask = Ask::chat(&format!("question {round}")).streamed();
        let before = fleet.fake.posts();
        let (first, second) = tokio::join!(a.send(&ask), b.send(&ask));
        let generated = fleet.fake.posts() - before;
        assert!((1..=2).contains(&generated), "{generated} generations");
        for reply in [first, second] {
            assert_eq!(reply.status, 200);
            let made = (1..=generated)
                .any(|nth| reply.answer() == format!("answer {} to question {round}", before + nth));
            assert!(made, "{}", reply.text());
        }
    }
    // Whoever came second has waited, unless the machine was too slow for that.
    let generated = fleet.fake.posts();
    assert!(generated <= ROUNDS * 3 / 2, "{generated} generations for {ROUNDS} questions");
}
