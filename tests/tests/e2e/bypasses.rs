//! Requests past the cache: their reasons, and that nothing of them is stored or joined.

use refrain_tests::Ask;
use serde_json::json;

use crate::{start, start_with};

async fn check(change: &str, ask: &Ask, reason: &str) {
    let (fake, refrain) = start_with(|config| config.cache(change)).await;
    for nth in 1..=2 {
        let reply = refrain.send(ask).await;
        assert_eq!(reply.status, 200, "{reason}: {}", reply.text());
        assert_eq!(reply.cache_status(), format!("refrain; fwd=bypass; detail={reason}"), "{ask:?}");
        assert_eq!(fake.posts(), nth, "{reason}");
    }
    refrain.counted("refrain_cache_bypasses_total", &[("reason", reason)], 2.0).await;
}

#[tokio::test]
async fn media_by_url_is_unknown_content() {
    let part = json!({"type": "image_url", "image_url": {"url": "https://images.example/today.png"}});
    let messages = json!([{"role": "user", "content": [{"type": "text", "text": "what is this?"}, part]}]);
    check("", &Ask::chat("").field("messages", messages), "media_by_url").await;
}

#[tokio::test]
async fn media_by_their_bytes_are_keyed_by_them() {
    let (_fake, refrain) = start().await;
    let picture = |data: &str| {
        let part =
            json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{data}")}});
        Ask::chat("").field("messages", json!([{"role": "user", "content": [part]}]))
    };
    assert_eq!(refrain.send(&picture("AAAA")).await.cache_status(), "refrain; fwd=miss");
    assert_eq!(refrain.send(&picture("AAAB")).await.cache_status(), "refrain; fwd=miss");
    assert!(refrain.send(&picture("AAAA")).await.is_hit());
}

#[tokio::test]
async fn loading_and_unloading_a_model_always_reach_the_server() {
    check("", &Ask::post("/api/generate", json!({"model": "m"})), "load_unload").await;
    check(
        "",
        &Ask::post("/api/generate", json!({"model": "m", "prompt": "", "keep_alive": 0})),
        "load_unload",
    )
    .await;
    check("", &Ask::post("/api/chat", json!({"model": "m", "messages": []})), "load_unload").await;
}

#[tokio::test]
async fn the_responses_api_is_passed_through() {
    let (fake, refrain) = start().await;
    for _ in 0..2 {
        let reply = refrain.send(&Ask::post("/v1/responses", json!({"model": "m", "input": "hi"}))).await;
        assert_eq!(reply.status, 200);
        assert!(reply.cache_status().starts_with("refrain; fwd=bypass; detail="), "{}", reply.cache_status());
    }
    assert_eq!(fake.posts(), 2);
}

#[tokio::test]
async fn sampled_requests_bypass_where_the_route_says_so() {
    check("sampled = \"skip\"", &Ask::chat("dice").field("temperature", json!(0.7)), "sampled").await;
    let (_fake, refrain) = start_with(|config| config.cache("sampled = \"skip\"")).await;
    refrain.send(&Ask::chat("no dice")).await;
    assert!(refrain.send(&Ask::chat("no dice")).await.is_hit());
}

#[tokio::test]
async fn a_route_without_a_cache_passes_everything_through_unread() {
    let (fake, refrain) =
        start_with(|config| config.tables("[route.raw]\npool = \"llm\"\npath = \"/v1/chat\"\ncache = false"))
            .await;
    for body in ["{\"model\":\"m\",\"messages\":[]}", "{not even json"] {
        let reply = refrain.send(&Ask::post_bytes("/v1/chat/completions", body)).await;
        assert_eq!(reply.cache_status(), "refrain; fwd=bypass; detail=cache_off");
        assert_eq!(fake.last_post().text(), body);
    }
}
