//! Just enough of the wire formats to tell what an answer says. Independent of Refrain's own reader, on purpose.

use serde_json::Value;

/// The JSON of every `data:` event but `[DONE]`, in order.
pub fn events(sse: &str) -> Vec<Value> {
    let data = sse.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
    data.filter(|data| *data != "[DONE]").map(parse).collect()
}

/// The JSON of every line.
pub fn lines(ndjson: &str) -> Vec<Value> {
    ndjson.lines().filter(|line| !line.is_empty()).map(parse).collect()
}

/// What the model said.
pub fn answer(content_type: &str, body: &str) -> String {
    let parts = match content_type.split(';').next().unwrap_or_default() {
        "text/event-stream" => events(body),
        "application/x-ndjson" => lines(body),
        _ => vec![parse(body)],
    };
    parts.iter().map(text_of).collect()
}

/// The text within an answer, or within a piece of one.
fn text_of(value: &Value) -> String {
    const TEXTS: [&str; 7] = [
        "/choices/0/message/content",
        "/choices/0/delta/content",
        "/choices/0/text",
        "/message/content",
        "/response",
        "/content/0/text",
        "/delta/text",
    ];
    const VECTORS: [&str; 2] = ["/data/0/embedding", "/embeddings"];
    let text = TEXTS.iter().find_map(|place| value.pointer(place)?.as_str());
    let vector = || VECTORS.iter().find_map(|place| value.pointer(place)).map(Value::to_string);
    text.map(str::to_owned).or_else(vector).unwrap_or_default()
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}
