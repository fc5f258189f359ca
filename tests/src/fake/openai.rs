//! OpenAI's shapes, as vLLM and llama.cpp send them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Answer, pieces};

const SSE: &str = "text/event-stream";

/// The fake's own answer to a chat.
pub fn chat(body: &Value, nth: u64) -> Answer {
    let (pieces, finish) = limited(body, pieces(body, nth));
    if body["stream"] == true {
        let usage = body["stream_options"]["include_usage"] == true;
        return Answer::stream(SSE, chat_events(&pieces, finish, usage));
    }
    let message = json!({"role": "assistant", "content": pieces.concat()});
    Answer::json(200, &chat_whole(nth, &message, finish, pieces.len()))
}

/// A chat stream of these pieces, ended by `finish`, with usage.
pub fn chat_stream(pieces: &[&str], finish: &str) -> Answer {
    let pieces: Vec<String> = pieces.iter().map(ToString::to_string).collect();
    Answer::stream(SSE, chat_events(&pieces, finish, true))
}

/// A whole chat answer with this message.
pub fn chat_whole(nth: u64, message: &Value, finish: &str, tokens: usize) -> Value {
    json!({
        "id": format!("chatcmpl-{nth}"), "object": "chat.completion", "created": 1_795_299_724, "model": "m",
        "system_fingerprint": "fp_fake",
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish}],
        "usage": usage(tokens),
    })
}

/// The events of a chat stream; the last is `[DONE]`.
pub fn chat_events(pieces: &[String], finish: &str, with_usage: bool) -> Vec<String> {
    let role = json!({"role": "assistant", "content": ""});
    let mut events = vec![event(&chunk(&json!([{"index": 0, "delta": role, "finish_reason": null}])))];
    events.extend(pieces.iter().map(|piece| {
        event(&chunk(&json!([{"index": 0, "delta": {"content": piece}, "finish_reason": null}])))
    }));
    events.push(event(&chunk(&json!([{"index": 0, "delta": {}, "finish_reason": finish}]))));
    if with_usage {
        let mut last = chunk(&json!([]));
        last["usage"] = usage(pieces.len());
        events.push(event(&last));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

/// One event.
pub fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// A chat chunk with these choices.
pub fn chunk(choices: &Value) -> Value {
    json!({
        "id": "chatcmpl-s", "object": "chat.completion.chunk", "created": 1_795_299_724, "model": "m",
        "system_fingerprint": "fp_fake", "choices": choices,
    })
}

/// The fake's own text completion.
pub fn completion(body: &Value, nth: u64) -> Answer {
    let (pieces, finish) = limited(body, pieces(body, nth));
    let part = |text: &str, finish: Value| {
        json!({
            "id": format!("cmpl-{nth}"), "object": "text_completion", "created": 1_795_299_724, "model": "m",
            "choices": [{"index": 0, "text": text, "logprobs": null, "finish_reason": finish}],
        })
    };
    if body["stream"] != true {
        let mut whole = part(&pieces.concat(), json!(finish));
        whole["usage"] = usage(pieces.len());
        return Answer::json(200, &whole);
    }
    let mut events: Vec<String> = pieces.iter().map(|piece| event(&part(piece, Value::Null))).collect();
    events.push(event(&part("", json!(finish))));
    if body["stream_options"]["include_usage"] == true {
        let mut last = part("", Value::Null);
        (last["choices"], last["usage"]) = (json!([]), usage(pieces.len()));
        events.push(event(&last));
    }
    events.push("data: [DONE]\n\n".to_owned());
    Answer::stream(SSE, events)
}

/// A vector that names the generation.
pub fn embeddings(body: &Value, nth: u64) -> Answer {
    #[expect(clippy::cast_precision_loss, reason = "a handful of generations")]
    let vector = [nth as f32, 0.25, -0.5, 1.0];
    let embedding = match body["encoding_format"].as_str() {
        Some("base64") => {
            let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
            json!(STANDARD.encode(bytes))
        }
        _ => json!(vector),
    };
    let data = json!([{"object": "embedding", "index": 0, "embedding": embedding}]);
    let usage = json!({"prompt_tokens": 7, "total_tokens": 7});
    Answer::json(200, &json!({"object": "list", "model": "m", "data": data, "usage": usage}))
}

/// A response of the Responses API.
pub fn response(body: &Value, nth: u64) -> Answer {
    let text = format!("answer {nth} to {}", body["input"].as_str().unwrap_or_default());
    let output =
        json!([{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}]);
    Answer::json(
        200,
        &json!({"id": format!("resp_{nth}"), "object": "response", "status": "completed", "output": output}),
    )
}

/// A list of models; of one if none are given.
pub fn models(names: &[String]) -> Answer {
    let one = ["m".to_owned()];
    let names = if names.is_empty() { &one[..] } else { names };
    let data: Vec<Value> = names.iter().map(|name| json!({"id": name, "object": "model"})).collect();
    Answer::json(200, &json!({"object": "list", "data": data}))
}

/// vLLM's answer to a model that it doesn't serve.
pub fn model_missing() -> Value {
    let message = "The model `missing` does not exist.";
    json!({"error": {"message": message, "type": "NotFoundError", "param": "model", "code": 404}})
}

fn usage(tokens: usize) -> Value {
    let details = json!({"cached_tokens": 3});
    json!({
        "prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens, "prompt_tokens_details": details,
    })
}

/// Cuts an answer at the request's token limit, a piece being a token.
fn limited(body: &Value, mut pieces: Vec<String>) -> (Vec<String>, &'static str) {
    let limit = ["max_tokens", "max_completion_tokens"].iter().find_map(|name| body[*name].as_u64());
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
    let finish = if pieces.len() > limit { "length" } else { "stop" };
    pieces.truncate(limit);
    (pieces, finish)
}
