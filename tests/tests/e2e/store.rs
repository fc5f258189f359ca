//! The store's bounds, and refreshed entries.

use refrain_tests::fake::{Answer, openai};
use refrain_tests::{Ask, Config, Refrain, eventually};
use serde_json::json;

use crate::{start, start_with};

const ENTRIES: usize = 120;

async fn fill(fake: &refrain_tests::fake::FakeUpstream, refrain: &Refrain) {
    for nth in 0..ENTRIES {
        let message = json!({"role": "assistant", "content": format!("{nth} {}", noise(nth))});
        fake.next(Answer::json(200, &openai::chat_whole(1, &message, "stop", 1)));
        assert_eq!(refrain.send(&ask(nth)).await.status, 200);
    }
}

fn ask(nth: usize) -> Ask {
    Ask::chat(&format!("question {nth}"))
}

/// 40 kB that no compression makes small.
fn noise(seed: usize) -> String {
    let mut state = seed as u64 + 1;
    let next = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap())
    });
    next.take(40_000).collect()
}

#[tokio::test]
async fn memory_stays_within_its_bound_and_what_remains_is_right() {
    let (fake, refrain) =
        start_with(|config| config.tables("[store]\nmemory = \"1 MiB\"\nentry_max = \"64 KiB\"")).await;
    fill(&fake, &refrain).await;
    let metrics = refrain.metrics().await;
    let held = metrics.sum("refrain_store_memory_bytes", &[]);
    assert!(held > 0.0 && held <= 1024.0 * 1024.0, "{held}");
    assert!(metrics.sum("refrain_store_evictions_total", &[]) > 0.5);
    let mut hits = 0;
    for nth in 0..ENTRIES {
        let reply = refrain.send(&ask(nth).cache_control("no-store")).await;
        if reply.is_hit() {
            hits += 1;
            assert_eq!(reply.answer(), format!("{nth} {}", noise(nth)));
        }
    }
    assert!((1..ENTRIES).contains(&hits), "{hits} hits");
}

#[tokio::test]
async fn what_left_memory_is_found_on_disk() {
    let (fake, refrain) = start_with(|config| {
        let table = "[store]\nmemory = \"1 MiB\"\nentry_max = \"64 KiB\"\ndir = \"data\"";
        config.tables(table)
    })
    .await;
    fill(&fake, &refrain).await;
    eventually("an empty write queue", async || {
        (refrain.metrics().await.sum("refrain_store_disk_queued_writes", &[]) < 0.5).then_some(())
    })
    .await;
    for nth in 0..ENTRIES {
        let reply = refrain.send(&ask(nth)).await;
        assert!(reply.is_hit(), "{nth}: {}", reply.cache_status());
        assert_eq!(reply.answer(), format!("{nth} {}", noise(nth)));
    }
    assert_eq!(fake.posts(), ENTRIES);
}

#[tokio::test]
async fn similar_questions_get_the_refreshed_answer() {
    let (_fake, refrain) = start_with(|config| config.semantic("threshold = 0.85")).await;
    let (question, similar) =
        (Ask::chat("How do I reset my password?"), Ask::chat("How can I reset my password?"));
    let old = refrain.send(&question).await.answer();
    assert_eq!(refrain.send(&similar).await.answer(), old);
    let new = refrain.send(&question.cache_control("no-cache")).await.answer();
    assert_ne!(new, old);
    let hit = refrain.send(&similar).await;
    assert!(hit.is_hit(), "{}", hit.cache_status());
    assert_eq!(hit.answer(), new);
}

#[tokio::test]
async fn similar_questions_find_nothing_after_the_entrys_time() {
    let (_fake, refrain) =
        start_with(|config| config.semantic("threshold = 0.85").cache("ttl = \"1s\"")).await;
    let similar = Ask::chat("How can I reset my password?").cache_control("no-store");
    refrain.send(&Ask::chat("How do I reset my password?")).await;
    assert!(refrain.send(&similar).await.is_hit());
    eventually("expiry", async || (!refrain.send(&similar).await.is_hit()).then_some(())).await;
}

#[tokio::test]
async fn without_a_store_everything_is_passed_through() {
    let (fake, refrain) = start_with(|config| config.without_cache().tables("[store]\nkind = \"off\"")).await;
    for nth in 1..=2 {
        let reply = refrain.send(&Ask::chat("a")).await;
        assert_eq!(reply.cache_status(), "refrain; fwd=bypass; detail=cache_off");
        assert_eq!(fake.posts(), nth);
    }
}

#[tokio::test]
async fn a_refrain_before_a_refrain_shows_its_own_word_last() {
    let (fake, inner) = start().await;
    let outer = Refrain::start(&Config::new(&inner.url())).await;
    let ask = Ask::chat("two of them");
    assert_eq!(outer.send(&ask).await.cache_status(), "refrain; fwd=miss, refrain; fwd=miss");
    let hit = outer.send(&ask).await;
    assert!(hit.is_hit() && !hit.cache_status().contains(','), "{}", hit.cache_status());
    let refreshed = outer.send(&ask.clone().cache_control("no-cache")).await;
    assert!(refreshed.cache_status().ends_with("refrain; fwd=request"), "{}", refreshed.cache_status());
    assert_eq!(fake.posts(), 2);
}
