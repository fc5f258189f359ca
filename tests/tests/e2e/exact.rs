//! The exact tier: what is the same question, what a hit looks like, what is stored.

use refrain_tests::fake::{Answer, anthropic, ollama, openai};
use refrain_tests::{Ask, Refrain, eventually, wire};
use serde_json::{Value, json};

use crate::{start, start_with};

async fn check_miss_then_hit(refrain: &Refrain, ask: &Ask) {
    let miss = refrain.send(ask).await;
    assert_eq!((miss.status, miss.cache_status().as_str()), (200, "refrain; fwd=miss"), "{ask:?}");
    assert_eq!(miss.header("age"), "");
    let hit = refrain.send(ask).await;
    let status = hit.cache_status();
    let ttl = status.strip_prefix("refrain; hit; ttl=").and_then(|rest| rest.strip_suffix("; detail=exact"));
    let ttl: u64 = ttl.unwrap_or_else(|| panic!("{ask:?}: {status}")).parse().unwrap();
    assert!((3590..=3600).contains(&ttl), "{status}");
    assert!(hit.header("age").parse::<u64>().unwrap() < 10);
    assert_eq!(hit.header("content-type"), miss.header("content-type"), "{ask:?}");
    assert_eq!(hit.answer(), miss.answer(), "{ask:?}");
    assert!(!hit.answer().is_empty(), "{ask:?}");
}

#[tokio::test]
async fn the_second_ask_is_a_hit_in_every_api_and_form() {
    let (fake, refrain) = start().await;
    let generate = Ask::post("/api/generate", json!({"model": "m", "prompt": "stream by default"}));
    let asks = [
        Ask::chat("one"),
        Ask::chat("two").streamed(),
        Ask::chat("three").streamed().field("stream_options", json!({"include_usage": true})),
        Ask::completion("one"),
        Ask::completion("two").streamed(),
        Ask::message("one"),
        Ask::message("two").streamed(),
        Ask::ollama_chat("one"),
        Ask::ollama_chat("two").streamed(),
        Ask::ollama_generate("one"),
        generate,
        Ask::post("/v1/embeddings", json!({"model": "m", "input": "one"})),
        Ask::post("/v1/embeddings", json!({"model": "m", "input": "one", "encoding_format": "base64"})),
        Ask::post("/api/embed", json!({"model": "m", "input": ["one", "two"]})),
    ];
    for ask in &asks {
        check_miss_then_hit(&refrain, ask).await;
    }
    assert_eq!(fake.posts(), asks.len());
}

/// It is stored before its client has it.
#[tokio::test]
async fn whoever_asks_again_at_once_hits() {
    let (fake, refrain) = start().await;
    for number in 0..200 {
        let ask = Ask::chat(&format!("question {number}"));
        assert_eq!(refrain.send(&ask).await.cache_status(), "refrain; fwd=miss");
        let (one, two, three) = tokio::join!(refrain.send(&ask), refrain.send(&ask), refrain.send(&ask));
        for again in [one, two, three] {
            assert!(again.is_hit(), "{number}: {}", again.cache_status());
        }
        assert_eq!(fake.posts(), number + 1);
    }
}

#[tokio::test]
async fn a_whole_hit_equals_its_whole_miss_in_every_field() {
    let (_fake, refrain) = start().await;
    for ask in Ask::each_dialect("the same") {
        let (miss, hit) = (refrain.send(&ask).await, refrain.send(&ask).await);
        assert!(hit.is_hit());
        assert_eq!(hit.json(), miss.json(), "{ask:?}");
    }
}

#[tokio::test]
async fn a_streamed_hit_equals_its_streamed_miss_event_for_event() {
    let (_fake, refrain) = start().await;
    let usage = json!({"include_usage": true});
    for ask in [Ask::chat("a b c").streamed(), Ask::chat("d e f").streamed().field("stream_options", usage)] {
        let (miss, hit) = (refrain.send(&ask).await, refrain.send(&ask).await);
        assert!(hit.is_hit());
        assert_eq!(wire::events(&hit.text()), wire::events(&miss.text()), "{ask:?}");
        assert!(hit.text().ends_with("data: [DONE]\n\n"));
    }
    let ask = Ask::message("a b c").streamed();
    let (miss, hit) = (refrain.send(&ask).await, refrain.send(&ask).await);
    let without_pings = |text: &str| {
        wire::events(text).into_iter().filter(|event| event["type"] != "ping").collect::<Vec<Value>>()
    };
    assert_eq!(without_pings(&hit.text()), without_pings(&miss.text()));
    let ask = Ask::ollama_chat("a b c").streamed();
    let (miss, hit) = (refrain.send(&ask).await, refrain.send(&ask).await);
    assert_eq!(wire::lines(&hit.text()), wire::lines(&miss.text()));
}

#[tokio::test]
async fn a_streamed_miss_serves_whole_hits_with_usage_and_a_whole_miss_streamed_ones() {
    let (fake, refrain) = start().await;
    for ask in Ask::each_dialect("crosswise one two") {
        let streamed_first = ask.clone().field("seed", json!(1));
        let miss = refrain.send(&streamed_first.clone().streamed()).await;
        let hit = refrain.send(&streamed_first).await;
        assert!(hit.is_hit(), "{ask:?}: {}", hit.cache_status());
        assert_eq!(hit.answer(), miss.answer());
        let usage = ["/usage/completion_tokens", "/usage/output_tokens", "/eval_count"];
        assert!(usage.iter().any(|place| hit.json().pointer(place).is_some()), "{}", hit.text());

        let whole_first = ask.clone().field("seed", json!(2));
        let miss = refrain.send(&whole_first).await;
        let hit = refrain.send(&whole_first.clone().streamed()).await;
        assert!(hit.is_hit(), "{ask:?}: {}", hit.cache_status());
        assert_eq!(hit.answer(), miss.answer());
    }
    assert_eq!(fake.posts(), 6);
}

#[tokio::test]
async fn formatting_of_the_body_and_fields_without_meaning_do_not_matter() {
    let (fake, refrain) = start().await;
    let bodies = [
        r#"{"model":"m","messages":[{"role":"user","content":"h\u00e9"}],"temperature":0}"#,
        "{ \"temperature\":0,\n\"messages\": [ {\"content\":\"hé\", \"role\":\"user\"} ], \"model\":\"m\"}",
        r#"{"model":"m","messages":[{"role":"user","content":"hé"}],"temperature":0,"tools":[],"user":"u","metadata":{"a":"b"}}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"hé"}],"temperature":0,"stream":false,"prompt_cache_key":"x"}"#,
    ];
    for (nth, body) in bodies.iter().enumerate() {
        let reply = refrain.send(&Ask::post_bytes("/v1/chat/completions", *body)).await;
        assert_eq!(reply.is_hit(), nth > 0, "{body}: {}", reply.cache_status());
    }
    assert_eq!(fake.posts(), 1);
}

#[tokio::test]
async fn every_difference_with_a_meaning_is_another_question() {
    let (fake, refrain) = start().await;
    let base = Ask::chat("hello");
    let with_system = |text: &str| {
        let messages = json!([{"role": "system", "content": text}, {"role": "user", "content": "hello"}]);
        base.clone().field("messages", messages)
    };
    let asks = [
        base.clone(),
        base.clone().field("temperature", json!(0.5)),
        base.clone().field("seed", json!(1)),
        base.clone().field("seed", json!(9_007_199_254_740_993_u64)),
        base.clone().field("seed", json!(9_007_199_254_740_992_u64)),
        base.clone().field("model", json!("n")),
        base.clone().field("max_tokens", json!(50)),
        base.clone().field("stop", json!(["\n"])),
        base.clone().field("unknown_to_refrain", json!({"a": [1]})),
        base.clone().field("tools", json!([{"type": "function", "function": {"name": "f"}}])),
        base.clone().header("anthropic-beta", "x"),
        with_system("Be brief."),
        with_system("Be long."),
        Ask::chat("hello "),
        Ask::chat("Hello"),
        Ask::completion("hello"),
        Ask::message("hello"),
        Ask::message("hello").header("anthropic-beta", "y"),
    ];
    for ask in &asks {
        assert_eq!(refrain.send(ask).await.cache_status(), "refrain; fwd=miss", "{ask:?}");
    }
    assert_eq!(fake.posts(), asks.len());
}

/// The answer is passed on as it is, and the same question asks the upstream again.
async fn check_not_stored(ask: &Ask, answer: Answer, skip: &str) {
    let (fake, refrain) = start().await;
    fake.next(answer);
    refrain.send(ask).await;
    let second = refrain.send(ask).await;
    assert_eq!(second.cache_status(), "refrain; fwd=miss", "{skip}");
    assert_eq!(fake.posts(), 2, "{skip}");
    refrain.counted("refrain_cache_skips_total", &[("reason", skip)], 1.0).await;
}

#[tokio::test]
async fn answers_cut_by_a_token_limit_are_never_stored() {
    let chat = Ask::chat("long");
    check_not_stored(&chat.clone().streamed(), openai::chat_stream(&["half"], "length"), "length").await;
    let message = json!({"role": "assistant", "content": "half"});
    check_not_stored(&chat, Answer::json(200, &openai::chat_whole(1, &message, "length", 1)), "length").await;
    let ask = Ask::ollama_chat("long");
    check_not_stored(&ask, ollama::cut_by_length(&json!({"model": "m"})), "length").await;
    let events = anthropic::events(&["half".to_owned()], "max_tokens");
    check_not_stored(&Ask::message("long").streamed(), Answer::stream("text/event-stream", events), "length")
        .await;
}

#[tokio::test]
async fn filtered_answers_are_never_stored() {
    let message = json!({"role": "assistant", "content": ""});
    let answer = Answer::json(200, &openai::chat_whole(1, &message, "content_filter", 1));
    check_not_stored(&Ask::chat("bad"), answer, "finish_reason").await;
}

#[tokio::test]
async fn tool_calls_are_never_stored_and_pass_unchanged() {
    let call =
        json!({"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}});
    let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let whole = openai::chat_whole(1, &message, "tool_calls", 9);
    check_not_stored(&Ask::chat("call"), Answer::json(200, &whole), "tool_calls").await;
    // A model that calls a tool and says `stop`.
    let whole = openai::chat_whole(1, &message, "stop", 9);
    check_not_stored(&Ask::chat("call"), Answer::json(200, &whole), "tool_calls").await;

    let delta = json!({"tool_calls": [{"index": 0, "id": "call_1", "type": "function",
        "function": {"name": "f", "arguments": "{}"}}]});
    let events = [
        openai::event(&openai::chunk(&json!([{"index": 0, "delta": delta, "finish_reason": null}]))),
        openai::event(&openai::chunk(&json!([{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]))),
        "data: [DONE]\n\n".to_owned(),
    ];
    let streamed = Ask::chat("call").streamed();
    check_not_stored(&streamed, Answer::stream("text/event-stream", events), "tool_calls").await;
}

#[tokio::test]
async fn answers_to_requests_that_offered_tools_are_stored_only_if_the_route_says_so() {
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    let ask = Ask::chat("what can you do?").field("tools", tools);
    for (line, stored) in [("", false), ("store_tool_offers = true", true)] {
        let (_fake, refrain) = start_with(|config| config.cache(line)).await;
        refrain.send(&ask).await;
        assert_eq!(refrain.send(&ask).await.is_hit(), stored, "{line:?}");
    }
}

#[tokio::test]
async fn only_listed_upstream_headers_are_replayed_and_cookies_never() {
    let (_fake, refrain) = start_with(|config| config.cache("replay_headers = [\"x-fake-build\"]")).await;
    let ask = Ask::chat("headers");
    let (miss, hit) = (refrain.send(&ask).await, refrain.send(&ask).await);
    assert_eq!(miss.header("x-fake-build"), "7");
    assert_eq!((hit.header("x-fake-build").as_str(), hit.header("set-cookie").as_str()), ("7", ""));

    let (_fake, refrain) = start().await;
    refrain.send(&ask).await;
    assert_eq!(refrain.send(&ask).await.header("x-fake-build"), "");
}

#[tokio::test]
async fn an_entry_expires_and_a_hit_does_not_prolong_it() {
    let (fake, refrain) = start_with(|config| config.cache("ttl = \"1s\"")).await;
    let ask = Ask::chat("short-lived");
    let first = refrain.send(&ask).await.answer();
    assert!(refrain.send(&ask).await.is_hit());
    // Asks all the time: were a hit to prolong the entry, this would never end.
    let second = eventually("expiry", async || {
        let reply = refrain.send(&ask).await;
        (!reply.is_hit()).then_some(reply)
    });
    let second = second.await;
    assert_eq!(second.cache_status(), "refrain; fwd=miss");
    assert_ne!(second.answer(), first);
    assert_eq!(fake.posts(), 2);
}

#[tokio::test]
async fn an_entry_over_the_limit_is_passed_on_and_not_stored() {
    let (fake, refrain) = start_with(|config| config.tables("[store]\nentry_max = \"64 KiB\"")).await;
    let text = "x".repeat(200 * 1024);
    let message = json!({"role": "assistant", "content": text});
    fake.next(Answer::json(200, &openai::chat_whole(1, &message, "stop", 9)));
    assert_eq!(refrain.send(&Ask::chat("much")).await.answer(), text);
    assert_eq!(refrain.send(&Ask::chat("much")).await.cache_status(), "refrain; fwd=miss");
    refrain.counted("refrain_cache_skips_total", &[("reason", "too_large")], 1.0).await;
}
