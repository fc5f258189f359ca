//! Parts that policies add to the key never run into each other, whoever chooses them: the policy or the client.

use bytes::Bytes;
use refrain_tests::{Ask, Policy, Refrain};

use crate::start_with;

/// Each is a miss when it is asked first and has its own answer when it is asked again.
async fn each_has_its_own_entry(refrain: &Refrain, asks: &[Ask]) {
    let mut answers = Vec::new();
    for (nth, ask) in asks.iter().enumerate() {
        let reply = refrain.send(ask).await;
        assert_eq!(reply.cache_status(), "refrain; fwd=miss", "{nth}: {}", reply.text());
        answers.push(reply.answer());
    }
    for (nth, ask) in asks.iter().enumerate() {
        let reply = refrain.send(ask).await;
        assert!(reply.is_hit(), "{nth}: {}", reply.cache_status());
        assert_eq!(reply.answer(), answers[nth], "{nth}");
    }
    answers.sort_unstable();
    answers.dedup();
    assert_eq!(answers.len(), asks.len(), "the upstream's answers can be told apart");
}

/// One question, as often as the policy has lists; only white space, which is no part of any key, chooses the list.
fn one_question_for_each_list() -> Vec<Ask> {
    let question = Ask::chat("what now?").body();
    let first = question.len().next_multiple_of(Policy::COLLIDING_LISTS);
    let padded = |size: usize| Bytes::from(format!("{:size$}", String::from_utf8_lossy(&question)));
    let sizes = first..first + Policy::COLLIDING_LISTS;
    sizes.map(|size| Ask::post_bytes("/v1/chat/completions", padded(size))).collect()
}

#[tokio::test]
async fn without_its_parts_all_the_questions_are_one_so_the_next_test_can_fail() {
    let (fake, refrain) = start_with(|config| config.policy("test", &Policy::new(), "")).await;
    for ask in one_question_for_each_list() {
        refrain.send(&ask).await;
    }
    assert_eq!(fake.posts(), 1);
}

#[tokio::test]
async fn parts_that_a_policy_makes_to_collide_share_no_entry() {
    let policy = Policy::colliding_parts();
    for semantic in [false, true] {
        let (fake, refrain) = start_with(|config| {
            let config = config.policy("test", &policy, "");
            if semantic { config.semantic("threshold = 0.9") } else { config }
        })
        .await;
        each_has_its_own_entry(&refrain, &one_question_for_each_list()).await;
        assert_eq!(fake.posts(), Policy::COLLIDING_LISTS);
    }
}

#[tokio::test]
async fn parts_that_a_client_makes_to_collide_share_no_entry() {
    let policy = Policy::new().key_headers(&["x-a", "x-b"]);
    let (_fake, refrain) = start_with(|config| config.policy("test", &policy, "")).await;
    let values: [(Option<&str>, Option<&str>); 11] = [
        (None, None),
        (None, Some("")),
        (Some(""), None),
        (Some(""), Some("")),
        (Some("a"), Some("bc")),
        (Some("ab"), Some("c")),
        (Some("abc"), None),
        (None, Some("abc")),
        (Some("abc"), Some("")),
        (Some("a,x-b:bc"), None),
        (Some("bc"), Some("a")),
    ];
    let asks = values.map(|(a, b)| {
        let named = [("x-a", a), ("x-b", b)].into_iter().filter_map(|(name, value)| Some((name, value?)));
        named.fold(Ask::chat("what now?"), |ask, (name, value)| ask.header(name, value))
    });
    each_has_its_own_entry(&refrain, &asks).await;
}
