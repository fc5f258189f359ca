//! `on-candidates` and `on-response`: which stored answer is served, and how an answer is kept; and stale answers.

use refrain_tests::fake::{Answer, openai};
use refrain_tests::{Ask, Person, Policy, Scope, eventually};
use serde_json::json;

use super::{twice, with_policy};
use crate::start_with;

#[tokio::test]
async fn a_policy_has_no_stored_answer_served_and_says_why() {
    let (fake, refrain) = with_policy(&Policy::new().accepts_none("declared")).await;
    let [first, second] = twice(&refrain, &Ask::chat("again?")).await;
    assert_eq!(first.cache_status(), "refrain; fwd=miss");
    assert_eq!(second.cache_status(), "refrain; fwd=miss; detail=policy");
    assert_eq!(fake.posts(), 2);
    let labels = [("plugin", "test"), ("reason", "declared")];
    refrain.counted("refrain_policy_reasons_total", &labels, 1.0).await;
}

#[tokio::test]
async fn a_similar_question_is_served_unless_a_policy_is_against_it() {
    let (question, paraphrase) = ("How do I reset my password?", "How can I reset my password?");
    let config = |policy: Policy| {
        start_with(move |config| config.semantic("threshold = 0.85").policy("test", &policy, ""))
    };
    let (_fake, refrain) = config(Policy::new().keeps(u32::MAX)).await;
    refrain.send(&Ask::chat(question)).await;
    assert!(refrain.send(&Ask::chat(paraphrase)).await.cache_status().ends_with("; detail=semantic"));

    for policy in [
        Policy::new().accepts_none("declared"),
        Policy::new().threshold("0.9999"),
        Policy::new().exact_only(),
    ] {
        let (_fake, refrain) = config(policy).await;
        refrain.send(&Ask::chat(question)).await;
        let reply = refrain.send(&Ask::chat(paraphrase)).await;
        assert!(!reply.is_hit(), "{}", reply.cache_status());
    }
}

#[tokio::test]
async fn an_answer_that_a_policy_skips_is_not_stored() {
    let (fake, refrain) = with_policy(&Policy::new().skips("declared")).await;
    let replies = twice(&refrain, &Ask::chat("keep it?")).await;
    assert!(replies.iter().all(|reply| !reply.is_hit()));
    assert_eq!(fake.posts(), 2);
    refrain.counted("refrain_cache_skips_total", &[("reason", "policy")], 2.0).await;
}

#[tokio::test]
async fn an_answer_is_kept_for_as_long_as_the_policy_says_and_no_longer_than_planned() {
    for (said, at_most) in [(50, 50), (u32::MAX, 3600)] {
        let (_fake, refrain) = with_policy(&Policy::new().keeps(said)).await;
        let [_, second] = twice(&refrain, &Ask::chat("how long?").streamed()).await;
        let status = second.cache_status();
        let ttl = status.split("ttl=").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
        let ttl: u32 = ttl.parse().unwrap();
        assert!(ttl <= at_most && ttl + 10 >= at_most, "{status}");
    }
}

#[tokio::test]
async fn an_answer_that_is_kept_for_fewer_is_found_by_its_user_alone() {
    let (ann, bob) = (Person::new("ann", "acme"), Person::new("bob", "acme"));
    let people = [&ann, &bob];
    let policy = Policy::new().narrows(Scope::User);
    let (_fake, refrain) =
        start_with(|config| config.people(&people).cache("scope = \"tenant\"").policy("test", &policy, ""))
            .await;
    refrain.send(&Ask::chat("my name?").by(&ann)).await;
    assert!(refrain.send(&Ask::chat("my name?").by(&ann)).await.is_hit());
    assert!(!refrain.send(&Ask::chat("my name?").by(&bob)).await.is_hit());
}

#[tokio::test]
async fn a_streamed_answer_is_stored_though_its_client_leaves_at_the_terminator() {
    let (_fake, refrain) = with_policy(&Policy::new().keeps(60)).await;
    let ask = Ask::chat("bye").streamed();
    let mut stream = refrain.open(&ask).await;
    stream.until("[DONE]").await;
    drop(stream);
    eventually("the entry", async || refrain.send(&ask).await.is_hit().then_some(())).await;
}

#[tokio::test]
async fn a_stale_answer_is_served_while_one_request_refreshes_it() {
    // Its time is over at once: nothing here waits for a clock.
    let policy = Policy::new().ttl(0).stale(600, 0);
    let (fake, refrain) =
        start_with(|config| config.cache("stale_while_revalidate = \"10m\"").policy("test", &policy, ""))
            .await;
    let ask = Ask::chat("still?");
    let first = refrain.send(&ask).await;
    let second = refrain.send(&ask).await;
    let status = second.cache_status();
    assert!(
        status.starts_with("refrain; hit; ttl=") && status.ends_with("; detail=stale_while_revalidate"),
        "{status}"
    );
    assert_eq!(second.answer(), first.answer());
    fake.posted(2).await;
    let fresh = eventually("the fresh answer", async || {
        let reply = refrain.send(&ask).await;
        (reply.answer() != first.answer()).then_some(reply)
    })
    .await;
    assert!(fresh.is_hit());
    refrain.counted("refrain_requests_total", &[("outcome", "hit_stale")], 2.0).await;
}

#[tokio::test]
async fn a_stale_answer_is_not_refreshed_for_who_wants_nothing_but_what_is_stored() {
    let policy = Policy::new().ttl(0).stale(600, 0);
    let (fake, refrain) =
        start_with(|config| config.cache("stale_while_revalidate = \"10m\"").policy("test", &policy, ""))
            .await;
    let ask = Ask::chat("still?");
    let first = refrain.send(&ask).await;
    for _ in 0..3 {
        let reply = refrain.send(&ask.clone().cache_control("only-if-cached")).await;
        assert_eq!((reply.is_hit(), reply.answer()), (true, first.answer()));
    }
    assert_eq!(fake.posts(), 1);
}

#[tokio::test]
async fn a_stale_answer_is_served_where_no_upstream_can_answer() {
    let policy = Policy::new().ttl(0).stale(0, 600);
    let (fake, refrain) =
        start_with(|config| config.cache("stale_if_error = \"10m\"").policy("test", &policy, "")).await;
    let ask = Ask::chat("still?");
    let first = refrain.send(&ask).await;
    let failures = [Answer::raw("no HTTP at all\r\n\r\n"), Answer::json(503, &json!({"error": "busy"}))];
    for failure in failures {
        fake.next(failure);
        let reply = refrain.send(&ask).await;
        assert!(reply.cache_status().ends_with("; detail=stale_if_error"), "{}", reply.cache_status());
        assert_eq!(reply.answer(), first.answer());
    }
    let healthy = refrain.send(&ask).await;
    assert_eq!(healthy.cache_status(), "refrain; fwd=stale");
    assert_ne!(healthy.answer(), first.answer());
}

#[tokio::test]
async fn a_clients_own_mistake_is_told_whatever_is_stale() {
    let policy = Policy::new().ttl(0).stale(0, 600);
    let (fake, refrain) =
        start_with(|config| config.cache("stale_if_error = \"10m\"").policy("test", &policy, "")).await;
    let ask = Ask::chat("still?");
    refrain.send(&ask).await;
    fake.next(Answer::json(404, &openai::model_missing()));
    assert_eq!(refrain.send(&ask).await.status, 404);
}

#[tokio::test]
async fn a_stale_answer_that_a_policy_is_against_is_no_fall_back() {
    let against = Policy::new().ttl(0).stale(0, 600).accepts_none("declared");
    let shadow = Policy::new().ttl(0).stale(0, 600).shadow();
    for policy in [against, shadow] {
        let (fake, refrain) =
            start_with(|config| config.cache("stale_if_error = \"10m\"").policy("test", &policy, "")).await;
        let ask = Ask::chat("still?");
        refrain.send(&ask).await;
        fake.next(Answer::json(503, &json!({"error": "busy"})));
        let reply = refrain.send(&ask).await;
        assert_eq!((reply.status, &*reply.cache_status()), (503, "refrain; fwd=stale"));
    }
}

#[tokio::test]
async fn a_refreshed_answer_is_found_by_similar_questions_again() {
    let (question, paraphrase) = ("How do I reset my password?", "How can I reset my password?");
    let policy = Policy::new().stale(600, 0).on_request(
        // Its time is over at once for the first two calls, then it lives.
        "(i32.store (i32.const 0x844) (select (i32.const 0) (i32.const 600) (i32.le_u (global.get $calls) (i32.const 1))))",
    );
    let (fake, refrain) = start_with(|config| {
        let config = config.semantic("threshold = 0.85");
        config.cache("stale_while_revalidate = \"10m\"").policy("test", &policy, "limits.instances = 1")
    })
    .await;
    refrain.send(&Ask::chat(question)).await;
    // Drops the stale vector, since a similar question looks for it.
    let other = refrain.send(&Ask::chat(paraphrase).cache_control("no-store")).await;
    assert!(!other.is_hit());
    assert!(refrain.send(&Ask::chat(question)).await.cache_status().ends_with("stale_while_revalidate"));
    fake.posted(3).await;
    eventually("the fresh answer, by its meaning", async || {
        let reply = refrain.send(&Ask::chat(paraphrase).cache_control("no-store")).await;
        reply.cache_status().ends_with("; detail=semantic").then_some(())
    })
    .await;
}
