//! Everything that an answer holds comes back from the cache: more than text, in either form.

use refrain_tests::fake::{Answer, anthropic, ollama, openai};
use refrain_tests::{Ask, Reply, wire};
use serde_json::{Value, json};

use crate::start;

/// Asks twice in the form that the answer comes in, then in the other.
async fn miss_hit_and_other_form(ask: &Ask, answer: Answer) -> [Reply; 3] {
    let (fake, refrain) = start().await;
    fake.next(answer);
    let miss = refrain.send(ask).await;
    let hit = refrain.send(ask).await;
    assert!(hit.is_hit(), "{}: {}", hit.cache_status(), miss.text());
    let streams = ask.clone().body().windows(13).any(|bytes| bytes == b"\"stream\":true");
    let other = refrain.send(&ask.clone().field("stream", json!(!streams))).await;
    assert!(other.is_hit(), "{}", other.cache_status());
    [miss, hit, other]
}

fn rich_chat() -> Value {
    let logprobs = json!({"content": [{"token": "a", "logprob": -0.25, "bytes": [97], "top_logprobs": []}]});
    let choice = |index: u32, text: &str| {
        json!({
            "index": index, "finish_reason": "stop", "logprobs": logprobs, "stop_reason": 7,
            "message": {"role": "assistant", "content": text, "reasoning_content": format!("why {text}"), "refusal": null},
        })
    };
    let mut whole = openai::chat_whole(1, &json!({}), "stop", 3);
    whole["choices"] = json!([choice(0, "one h\u{e9}"), choice(1, "two")]);
    whole["service_tier"] = json!("default");
    whole["timings"] = json!({"predicted_ms": 154.328, "cache_n": 3});
    whole
}

#[tokio::test]
async fn a_rich_whole_chat_comes_back_whole_and_its_stream_says_the_same() {
    let whole = rich_chat();
    let [miss, hit, other] = miss_hit_and_other_form(&Ask::chat("rich"), Answer::json(200, &whole)).await;
    assert_eq!(miss.json(), whole);
    assert_eq!(hit.json(), whole);
    let deltas = |index: u64, field: &str| -> String {
        let events = wire::events(&other.text());
        let choices = events.iter().filter_map(|event| event["choices"].as_array()).flatten();
        let own = choices.filter(|choice| choice["index"] == index);
        own.filter_map(|choice| choice["delta"][field].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(
        (deltas(0, "content"), deltas(1, "content")),
        ("one h\u{e9}".into(), "two".into()),
        "{}",
        other.text()
    );
    assert_eq!(deltas(0, "reasoning_content"), "why one h\u{e9}");
    assert!(other.text().contains("-0.25"), "logprobs are lost: {}", other.text());
}

#[tokio::test]
async fn a_rich_streamed_chat_comes_back_delta_for_delta_and_its_whole_says_the_same() {
    let choice = |index: u32, delta: Value, finish: Option<&str>| {
        openai::event(&openai::chunk(&json!([{
            "index": index, "delta": delta, "finish_reason": finish,
            "logprobs": {"content": [{"token": "a", "logprob": -0.25, "bytes": null, "top_logprobs": []}]},
        }])))
    };
    let mut events = vec![
        choice(0, json!({"role": "assistant", "content": null}), None),
        choice(1, json!({"role": "assistant", "content": null}), None),
        choice(0, json!({"reasoning_content": "why "}), None),
        choice(1, json!({"content": "two"}), None),
        choice(0, json!({"reasoning_content": "one"}), None),
        choice(0, json!({"content": "o"}), None),
        choice(0, json!({"content": "ne"}), None),
        choice(1, json!({}), Some("stop")),
        choice(0, json!({}), Some("stop")),
    ];
    let mut last = openai::chunk(&json!([]));
    last["usage"] = json!({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10});
    last["timings"] = json!({"predicted_ms": 1.5});
    events.extend([openai::event(&last), "data: [DONE]\n\n".to_owned()]);
    let ask = Ask::chat("rich").streamed().field("stream_options", json!({"include_usage": true}));
    let [miss, hit, other] = miss_hit_and_other_form(&ask, Answer::stream("text/event-stream", events)).await;
    assert_eq!(wire::events(&hit.text()), wire::events(&miss.text()));
    let whole = other.json();
    let mut choices = whole["choices"].as_array().unwrap().clone();
    choices.sort_by_key(|choice| choice["index"].as_u64());
    assert_eq!(
        (&choices[0]["message"]["content"], &choices[1]["message"]["content"]),
        (&json!("one"), &json!("two"))
    );
    assert_eq!(choices[0]["message"]["reasoning_content"], "why one");
    assert_eq!((&choices[0]["finish_reason"], &whole["usage"]["total_tokens"]), (&json!("stop"), &json!(10)));
    assert_eq!(choices[0]["message"]["role"], "assistant");
    assert_eq!(whole["object"], "chat.completion");
    assert!(choices[0]["logprobs"]["content"].as_array().is_some_and(|all| all.len() >= 2), "{whole}");
}

#[tokio::test]
async fn anthropics_thinking_comes_back_with_its_signature() {
    let content = json!([
        {"type": "thinking", "thinking": "let me see", "signature": "c2ln"},
        {"type": "text", "text": "done", "citations": null},
    ]);
    let whole = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content,
        "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 7, "output_tokens": 5, "cache_read_input_tokens": 2, "service_tier": "standard"},
    });
    let ask = Ask::message("think");
    let [miss, hit, other] = miss_hit_and_other_form(&ask, Answer::json(200, &whole)).await;
    assert_eq!((miss.json(), hit.json()), (whole.clone(), whole));
    let events = wire::events(&other.text());
    let deltas = |field: &str| -> String {
        events.iter().filter_map(|event| event["delta"][field].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(
        (deltas("thinking"), deltas("text"), deltas("signature")),
        ("let me see".into(), "done".into(), "c2ln".into())
    );
    let kinds: Vec<_> =
        events.iter().filter_map(|event| event["type"].as_str()).filter(|kind| *kind != "ping").collect();
    assert_eq!(
        (kinds[0], kinds[1], kinds[kinds.len() - 1]),
        ("message_start", "content_block_start", "message_stop")
    );
}

#[tokio::test]
async fn anthropics_stop_sequence_comes_back_from_a_stream() {
    let mut events = anthropic::events(&["a ".to_owned(), "b".to_owned()], "stop_sequence");
    let at = events.len() - 2;
    events[at] = events[at].replace("\"stop_sequence\":null", "\"stop_sequence\":\"END\"");
    let ask = Ask::message("stop").streamed();
    let [miss, hit, other] = miss_hit_and_other_form(&ask, Answer::stream("text/event-stream", events)).await;
    assert_eq!(hit.answer(), miss.answer());
    let whole = other.json();
    assert_eq!((&whole["stop_reason"], &whole["stop_sequence"]), (&json!("stop_sequence"), &json!("END")));
    assert_eq!((&whole["usage"]["input_tokens"], &whole["usage"]["output_tokens"]), (&json!(7), &json!(2)));
}

#[tokio::test]
async fn ollamas_thinking_and_timings_come_back() {
    let body = json!({"model": "m"});
    let mut lines: Vec<Value> =
        ollama::stream_lines(true, &body, &["do".to_owned(), "ne".to_owned()], "stop")
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
    lines[0]["message"] = json!({"role": "assistant", "content": "do", "thinking": "let me see"});
    let texts: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
    let ask = Ask::ollama_chat("think").streamed();
    let [miss, hit, other] =
        miss_hit_and_other_form(&ask, Answer::stream("application/x-ndjson", texts)).await;
    assert_eq!(wire::lines(&miss.text()), lines);
    assert_eq!(wire::lines(&hit.text()), lines);
    let whole = other.json();
    let message = &whole["message"];
    assert_eq!((&message["content"], &message["thinking"]), (&json!("done"), &json!("let me see")));
    for field in
        ["total_duration", "load_duration", "prompt_eval_count", "eval_count", "eval_duration", "done_reason"]
    {
        assert_eq!(whole[field], lines[2][field], "{field}");
    }
}

#[tokio::test]
async fn ollamas_generate_and_embeddings_come_back_whole() {
    let (_fake, refrain) = start().await;
    for ask in [
        Ask::ollama_generate("a b"),
        Ask::post("/api/embed", json!({"model": "m", "input": ["a", "b"]})),
        Ask::post("/v1/embeddings", json!({"model": "m", "input": "a"})),
        Ask::post("/v1/embeddings", json!({"model": "m", "input": "b", "encoding_format": "base64"})),
        Ask::completion("a b"),
    ] {
        let (miss, hit) = (refrain.send(&ask).await, refrain.send(&ask).await);
        assert!(hit.is_hit(), "{ask:?}");
        assert_eq!(hit.json(), miss.json(), "{ask:?}");
    }
}

#[tokio::test]
async fn numbers_come_back_as_they_were_written() {
    let whole = openai::chat_whole(1, &json!({"role": "assistant", "content": "n"}), "stop", 1).to_string();
    let whole = whole
        .replace("\"object\"", "\"big\":12345678901234567890123,\"tiny\":1.0e-400,\"one\":1.0,\"object\"");
    let [miss, hit, _] =
        miss_hit_and_other_form(&Ask::chat("n"), Answer::whole(200, "application/json", &whole)).await;
    for number in ["12345678901234567890123", "1.0e-400", "\"one\":1.0"] {
        assert!(miss.text().contains(number) && hit.text().contains(number), "{number}: {}", hit.text());
    }
}
