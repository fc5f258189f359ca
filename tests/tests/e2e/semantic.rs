//! The semantic tier with the real embedding model.

use refrain_tests::fake::{Answer, openai};
use refrain_tests::{Ask, Refrain, eventually, wire};
use serde_json::json;

use crate::start_with;

const QUESTION: &str = "How do I reset my password?";
const PARAPHRASE: &str = "How can I reset my password?";

/// A request about a text.
type Make = fn(&str) -> Ask;

async fn check_miss(refrain: &Refrain, ask: &Ask) {
    let reply = refrain.send(&ask.clone().cache_control("no-store")).await;
    assert_eq!((reply.status, reply.cache_status().as_str()), (200, "refrain; fwd=miss"), "{ask:?}");
}

async fn check_semantic_hit(refrain: &Refrain, ask: &Ask, answer: &str) {
    let hit = refrain.send(ask).await;
    let status = hit.cache_status();
    assert!(
        status.starts_with("refrain; hit; ttl=") && status.ends_with("; detail=semantic"),
        "{ask:?}: {status}"
    );
    assert_eq!(hit.answer(), answer);
    assert_ne!(hit.header("age"), "");
}

#[tokio::test]
async fn a_paraphrase_is_a_hit_in_every_dialect_and_form() {
    let (fake, refrain) = start_with(|config| config.semantic("threshold = 0.85")).await;
    for (ask, similar) in Ask::each_dialect(QUESTION).into_iter().zip(Ask::each_dialect(PARAPHRASE)) {
        let answer = refrain.send(&ask).await.answer();
        check_semantic_hit(&refrain, &similar, &answer).await;
        check_semantic_hit(&refrain, &similar.streamed(), &answer).await;
    }
    let generate = refrain.send(&Ask::ollama_generate(QUESTION)).await.answer();
    check_semantic_hit(&refrain, &Ask::ollama_generate(PARAPHRASE), &generate).await;
    assert_eq!(fake.posts(), 4);
    refrain.counted("refrain_requests_total", &[("outcome", "hit_semantic")], 7.0).await;
}

#[tokio::test]
async fn near_misses_are_never_served() {
    let (_fake, refrain) = start_with(|config| config.semantic("threshold = 0.7")).await;
    let pairs = [
        ("How many kilometers are 10 miles?", "How many kilometers are 20 miles?"),
        ("How do I turn on dark mode?", "How do I turn off dark mode?"),
        ("Is it safe to eat this mushroom?", "Is it not safe to eat this mushroom?"),
        ("How do I get from Paris to London?", "How do I get from London to Paris?"),
        ("What happened on Monday in the market?", "What happened on Friday in the market?"),
        ("How much is 10 km?", "How much is 10 miles?"),
        ("How do I enable two-factor login?", "How do I disable two-factor login?"),
    ];
    for (first, second) in pairs {
        assert_eq!(refrain.send(&Ask::chat(first)).await.status, 200);
        check_miss(&refrain, &Ask::chat(second)).await;
    }
}

#[tokio::test]
async fn another_system_prompt_conversation_or_setting_is_never_a_hit() {
    let (_fake, refrain) = start_with(|config| config.semantic("threshold = 0.7")).await;
    let conversation = |system: &str, earlier: &str, last: &str| {
        Ask::chat("").field(
            "messages",
            json!([
                {"role": "system", "content": system}, {"role": "user", "content": earlier},
                {"role": "assistant", "content": "Fine."}, {"role": "user", "content": last},
            ]),
        )
    };
    let answer = refrain.send(&conversation("Be brief.", "Hello", QUESTION)).await.answer();
    check_semantic_hit(&refrain, &conversation("Be brief.", "Hello", PARAPHRASE), &answer).await;
    for other in [
        conversation("Be rude.", "Hello", PARAPHRASE),
        conversation("Be brief.", "Hi", PARAPHRASE),
        conversation("Be brief.", "Hello", PARAPHRASE).field("temperature", json!(1)),
        conversation("Be brief.", "Hello", PARAPHRASE).field("model", json!("n")),
        Ask::chat(PARAPHRASE),
        Ask::message(PARAPHRASE),
    ] {
        check_miss(&refrain, &other).await;
    }
}

#[tokio::test]
async fn what_can_not_be_compared_gets_exact_caching_only() {
    let (_fake, refrain) = start_with(|config| config.semantic("threshold = 0.5")).await;
    let variants: [(&str, Make); 5] = [
        ("choices", |text| Ask::chat(text).field("n", json!(2))),
        ("logprobs", |text| Ask::chat(text).field("logprobs", json!(true))),
        ("structured_output", |text| {
            Ask::chat(text).field("response_format", json!({"type": "json_object"}))
        }),
        ("tools", |text| {
            Ask::chat(text).field("tools", json!([{"type": "function", "function": {"name": "f"}}]))
        }),
        ("too_long", |text| Ask::chat(&format!("{text} {}", "word ".repeat(600)))),
    ];
    for (reason, ask) in variants {
        refrain.send(&ask(QUESTION)).await;
        check_miss(&refrain, &ask(PARAPHRASE)).await;
        refrain.counted("refrain_cache_exact_only_total", &[("reason", reason)], 1.0).await;
    }
}

#[tokio::test]
async fn no_cache_holds_for_similar_questions_too() {
    let (_fake, refrain) = start_with(|config| config.semantic("threshold = 0.85")).await;
    refrain.send(&Ask::chat(QUESTION)).await;
    let reply = refrain.send(&Ask::chat(PARAPHRASE).cache_control("no-cache, no-store")).await;
    assert!(!reply.is_hit(), "{}", reply.cache_status());
}

#[tokio::test]
async fn shadow_mode_serves_the_upstreams_answer_and_counts_what_it_would_have_served() {
    let (fake, refrain) = start_with(|config| config.semantic("threshold = 0.85\nshadow = true")).await;
    let first = refrain.send(&Ask::chat(QUESTION)).await.answer();
    let second = refrain.send(&Ask::chat(PARAPHRASE)).await;
    assert_eq!(second.cache_status(), "refrain; fwd=miss");
    assert_ne!(second.answer(), first);
    assert_eq!(fake.posts(), 2);
    refrain.counted("refrain_semantic_shadow_hits_total", &[], 1.0).await;
    // Exact hits are served all the same.
    assert!(refrain.send(&Ask::chat(QUESTION)).await.is_hit());
}

#[tokio::test]
async fn an_audit_asks_behind_the_clients_back_and_says_how_alike_the_answers_are() {
    let said = |text: &str| {
        let message = json!({"role": "assistant", "content": text});
        Answer::json(200, &openai::chat_whole(1, &message, "stop", 1))
    };
    let (fake, refrain) =
        start_with(|config| config.semantic("threshold = 0.85\naudit = 1.0").pool("price_per_hour = 3600.0"))
            .await;
    fake.next(said("By the link below the form."));
    refrain.send(&Ask::chat(QUESTION)).await;
    for (fresh, result) in [
        (said("by the link below the form"), "same"),
        (said("You never can"), "other"),
        (Answer::json(500, &json!({"error": "broken"})), "failed"),
    ] {
        fake.next(fresh);
        check_semantic_hit(&refrain, &Ask::chat(PARAPHRASE), "By the link below the form.").await;
        refrain.counted("refrain_semantic_audits_total", &[("result", result)], 1.0).await;
    }
    assert_eq!(fake.posts(), 4);
    let shadow = refrain.admin(&Ask::get("/shadow")).await.text();
    assert_eq!(shadow.lines().count(), 2, "they are labels for tune: {shadow}");
    let cost = eventually("the audits' cost", async || {
        let cost = refrain.admin(&Ask::get("/cost")).await.json();
        (cost["cache"]["audit_gpu_seconds"].as_f64() > Some(0.0)).then_some(cost)
    })
    .await;
    assert_eq!((&cost["cache"]["hits"], &cost["cache"]["misses"]), (&3.into(), &1.into()));
    // Who wants nothing but what is stored has no server asked.
    let stored = Ask::chat(PARAPHRASE).cache_control("no-store");
    assert!(refrain.send(&stored).await.is_hit());
    assert_eq!(fake.posts(), 4);
}

#[tokio::test]
async fn an_audit_that_breaks_off_is_one_that_failed_and_no_answer_that_was_not_stored() {
    let (fake, refrain) = start_with(|config| config.semantic("threshold = 0.85\naudit = 1.0")).await;
    let stored = refrain.send(&Ask::chat(QUESTION)).await.answer();
    fake.next(Answer::lying("{", 100));
    check_semantic_hit(&refrain, &Ask::chat(PARAPHRASE), &stored).await;
    refrain.counted("refrain_semantic_audits_total", &[("result", "failed")], 1.0).await;
    assert_eq!(refrain.metrics().await.sum("refrain_cache_skips_total", &[]), 0.0);
}

#[tokio::test]
async fn a_semantic_hit_streams_the_stored_deltas() {
    let (_fake, refrain) = start_with(|config| config.semantic("threshold = 0.85")).await;
    let miss = refrain.send(&Ask::chat(QUESTION).streamed()).await;
    let hit = refrain.send(&Ask::chat(PARAPHRASE).streamed()).await;
    assert_eq!(wire::events(&hit.text()), wire::events(&miss.text()));
}

#[tokio::test]
async fn readiness_shows_the_stores_self_test_and_the_embedder() {
    let (_fake, refrain) = start_with(|config| config.semantic("threshold = 0.85")).await;
    let ready = refrain.readiness().await.to_string();
    for word in ["self_test", "embedder"] {
        assert!(ready.contains(word), "no {word} in {ready}");
    }
}
