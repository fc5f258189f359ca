//! Anthropic's shapes, as vLLM and llama.cpp send them.

use serde_json::{Value, json};

use super::{Answer, pieces};

/// The fake's own message.
pub fn message(body: &Value, nth: u64) -> Answer {
    let pieces = pieces(body, nth);
    let usage = json!({"input_tokens": 7, "output_tokens": pieces.len()});
    if body["stream"] == true {
        return Answer::stream("text/event-stream", events(&pieces, "end_turn"));
    }
    Answer::json(
        200,
        &json!({
            "id": format!("msg_{nth}"), "type": "message", "role": "assistant", "model": "m",
            "content": [{"type": "text", "text": pieces.concat()}],
            "stop_reason": "end_turn", "stop_sequence": null, "usage": usage,
        }),
    )
}

/// The events of a message that ends for this reason.
pub fn events(pieces: &[String], stop_reason: &str) -> Vec<String> {
    let start = json!({
        "id": "msg_s", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": null,
        "stop_sequence": null, "usage": {"input_tokens": 7, "output_tokens": 0},
    });
    let mut events = vec![
        event(&json!({"type": "message_start", "message": start})),
        event(
            &json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        ),
        event(&json!({"type": "ping"})),
    ];
    events.extend(pieces.iter().map(|piece| {
        let delta = json!({"type": "text_delta", "text": piece});
        event(&json!({"type": "content_block_delta", "index": 0, "delta": delta}))
    }));
    events.push(event(&json!({"type": "content_block_stop", "index": 0})));
    let delta = json!({"stop_reason": stop_reason, "stop_sequence": null});
    let usage = json!({"input_tokens": 7, "output_tokens": pieces.len()});
    events.push(event(&json!({"type": "message_delta", "delta": delta, "usage": usage})));
    events.push(event(&json!({"type": "message_stop"})));
    events
}

/// One event, named by its type.
pub fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap())
}
