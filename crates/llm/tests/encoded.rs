//! Whole answers are stored as they came and judged without their record: as the record would have been, whatever they say.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "shared parts of tests fail by panicking"
)]

use proptest::prelude::*;
use proptest::sample::{Index, select};
use refrain_core::{Api, Skip};
use refrain_llm::answer::{Answer, AnswerReader, DecodeError, Encoded, Form, Rendering, as_it_came};
use serde_json::{Value, json};

const WHOLE: [(Api, &str); 9] = [
    (Api::ChatCompletions, include_str!("fixtures/written/openai-chat.json")),
    (Api::ChatCompletions, include_str!("fixtures/written/openai-chat-tools.json")),
    (Api::Completions, include_str!("fixtures/written/openai-completions.json")),
    (Api::Messages, include_str!("fixtures/written/anthropic-messages.json")),
    (Api::Messages, include_str!("fixtures/written/anthropic-messages-tools.json")),
    (Api::OllamaChat, include_str!("fixtures/written/ollama-chat.json")),
    (Api::OllamaChat, include_str!("fixtures/written/ollama-chat-tools.json")),
    (Api::OllamaGenerate, include_str!("fixtures/written/ollama-generate.json")),
    (Api::ChatCompletions, PLAIN),
];
const PLAIN: &str = r#"{ "id":"c", "choices":[
    {"index":0,"message":{"role":"assistant","content":"a\u00e9\n","tool_calls":[],"function_call":null},"finish_reason":"stop"},
    {"index":1,"message":{"role":"assistant","content":null},"finish_reason":"length"}],
    "usage":{"prompt_tokens":5,"completion_tokens":6,"prompt_tokens_details":{"cached_tokens":4}} }"#;

fn reader(api: Api, bytes: &[u8]) -> AnswerReader {
    let mut reader = AnswerReader::new(api, Form::Whole, 1 << 20);
    reader.feed(bytes).expect("short");
    reader
}

/// Whether the bytes are stored as they came. Fails where the record would say something else.
fn check(api: Api, bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    match (reader(api, bytes).finish_encoded(), reader(api, bytes).finish()) {
        (Ok(encoded), Ok(answer)) => {
            assert_eq!(encoded.answer().as_ref(), Ok(&answer), "{text}");
            assert_eq!((encoded.usage(), encoded.storable()), (answer.usage(), answer.storable()), "{text}");
            assert_eq!(Encoded::decode(encoded.bytes()).as_ref(), Ok(&encoded), "{text}");
            encoded.bytes().ends_with(bytes)
        }
        (Err(encoded), Err(answer)) => {
            assert_eq!(encoded, answer, "{text}");
            false
        }
        (encoded, answer) => panic!("{text}: {encoded:?} and {answer:?}"),
    }
}

#[test]
fn plain_whole_answers_are_stored_as_they_came() {
    let stored = WHOLE.map(|(api, text)| check(api, text.as_bytes()));
    assert_eq!(stored, [true, false, true, true, false, true, false, true, true], "those without tool calls");
    let encoded = reader(Api::ChatCompletions, PLAIN.as_bytes()).finish_encoded().unwrap();
    assert_eq!(encoded.storable(), Err(Skip::Length), "of the second choice");
    assert_eq!(encoded.bytes().len(), PLAIN.len() + 2, "and nothing besides");
}

#[test]
fn what_is_wanted_as_it_came_is_given_byte_for_byte() {
    for (api, text) in WHOLE {
        let encoded = reader(api, text.as_bytes()).finish_encoded().unwrap();
        let body = as_it_came(encoded.bytes(), Rendering::Whole);
        let kept = encoded.bytes().ends_with(text.as_bytes());
        assert_eq!(body.as_deref(), kept.then_some(text.as_bytes()));
        assert_eq!(as_it_came(encoded.bytes(), Rendering::Stream { include_usage: true }), None);
        let rendered = encoded.answer().unwrap().render(Rendering::Whole);
        let [as_it_came, rendered]: [Value; 2] =
            [text.as_bytes(), &*rendered].map(|json| serde_json::from_slice(json).unwrap());
        assert_eq!(as_it_came, rendered, "the record says no less");
    }
}

#[test]
fn what_may_be_an_error_a_tool_call_or_another_shape_is_read_into_a_record() {
    let chat = |choice: &str| format!(r#"{{"choices":[{choice}]}}"#);
    let choice = |inside: &str| chat(&format!(r#"{{"index":0,"finish_reason":"stop",{inside}}}"#));
    for text in [
        r#"{"error":"no"}"#.to_owned(),
        r#"{"type":"error"}"#.to_owned(),
        "{}".to_owned(),
        "[]".to_owned(),
        r#"{"choices":[]}"#.to_owned(),
        r#"{"choices":{}}"#.to_owned(),
        chat("null"),
        chat(&vec!["{}"; 129].join(",")),
        chat(r#"{"index":1,"message":{}}"#),
        chat(r#"{"index":"0","message":{}}"#),
        chat(r#"{"index":0,"message":{}},{"index":0,"message":{}}"#),
        choice(r#""message":{"tool_calls":[{}]}"#),
        choice(r#""message":{"tool_\u0063alls":[{}]}"#),
        choice(r#""message":{"function_call":{}}"#),
        choice(r#""message":{"content":"a"},"delta":{"tool_calls":[{}]}"#),
        choice(r#""message":{"content":"a","content":"b"}"#),
        choice(r#""message":{"content":"a"}"#)
            .replace("]}", r#"],"usage":{"prompt_tokens_details":{"deep":[[]],"cached_tokens":1}}}"#),
        choice(r#""message":{"content":"a"}"#).replace("]}", "]"),
        choice(r#""message":{"content":"a"}"#) + "x",
        choice(&format!(r#""message":{{"content":{:?}}}"#, vec![""; 300])),
    ] {
        assert!(!check(Api::ChatCompletions, text.as_bytes()), "{text}");
    }
    for text in [
        r#"{"content":[{"type":"tool_use","input":{}}],"stop_reason":"end_turn"}"#,
        r#"{"content":[{"text":"a"}],"stop_reason":"end_turn"}"#,
        r#"{"content":"a","stop_reason":"end_turn"}"#,
    ] {
        assert!(!check(Api::Messages, text.as_bytes()), "{text}");
    }
    for text in [
        r#"{"message":{"content":"a"},"done":false,"done_reason":"stop"}"#,
        r#"{"message":{"content":"a","tool_calls":[{}]},"done":true,"done_reason":"stop"}"#,
        r#"{"message":{"content":"a"},"tool_calls":[{}],"done":true,"done_reason":"stop"}"#,
    ] {
        assert!(!check(Api::OllamaChat, text.as_bytes()), "{text}");
    }
    assert!(!check(Api::Embeddings, br#"{"data":[]}"#));
}

#[test]
fn cut_answers_are_neither_stored_nor_read_back() {
    for (api, text) in WHOLE {
        let text = text.trim_end().as_bytes();
        (0..text.len()).for_each(|end| assert!(!check(api, &text[..end]), "{api:?} {end}"));
    }
    let encoded = reader(Api::ChatCompletions, PLAIN.as_bytes()).finish_encoded().unwrap();
    let bytes = encoded.bytes();
    for end in 1..bytes.len() {
        let expected = if end == 1 { DecodeError::Version(2) } else { DecodeError::Damaged };
        assert_eq!(Encoded::decode(&bytes[..end]), Err(expected), "{end}");
        assert_eq!(Answer::decode(&bytes[..end]), Err(expected), "{end}");
    }
}

#[test]
fn it_renders_as_its_record_does() {
    for (api, text) in WHOLE {
        let [stored, record] = [true, false].map(|stored| {
            let reader = reader(api, text.as_bytes());
            if stored { reader.finish_encoded().unwrap().answer().unwrap() } else { reader.finish().unwrap() }
        });
        let streams = [true, false].map(|include_usage| Rendering::Stream { include_usage });
        for rendering in [Rendering::Whole].into_iter().chain(streams) {
            assert_eq!(stored.render(rendering), record.render(rendering), "{text}");
        }
    }
}

/// Names and values that mean something in some dialect.
const NAMES: [&str; 31] = [
    "error",
    "type",
    "choices",
    "index",
    "message",
    "delta",
    "finish_reason",
    "tool_calls",
    "function_call",
    "function",
    "arguments",
    "usage",
    "prompt_tokens",
    "completion_tokens",
    "prompt_tokens_details",
    "cached_tokens",
    "content",
    "text",
    "thinking",
    "stop_reason",
    "role",
    "done",
    "done_reason",
    "response",
    "input",
    "input_tokens",
    "cache_read_input_tokens",
    "prompt_eval_count",
    "eval_count",
    "logprobs",
    "x",
];

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        select(vec![json!(0), json!(1), json!(-1), json!(1.5), json!(u64::MAX), json!(1e30)]),
        select(vec!["", "stop", "length", "end_turn", "error", "text", "tool_use", "7", "é\n"])
            .prop_map(Value::from),
    ];
    scalar.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((select(&NAMES[..]), inner), 0..3).prop_map(Value::from_iter),
        ]
    })
}

/// All places of a document that can be changed.
fn containers(value: &Value, at: &str, all: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            all.push(at.to_owned());
            members.iter().for_each(|(name, value)| containers(value, &format!("{at}/{name}"), all));
        }
        Value::Array(elements) => {
            all.push(at.to_owned());
            let places = elements.iter().enumerate();
            places.for_each(|(nth, value)| containers(value, &format!("{at}/{nth}"), all));
        }
        _ => {}
    }
}

/// Sets, replaces or (by none) removes something somewhere.
fn change(document: &mut Value, place: &Index, which: &Index, name: &str, value: Option<Value>) {
    let mut places = Vec::new();
    containers(document, "", &mut places);
    if places.is_empty() {
        return;
    }
    match document.pointer_mut(places[place.index(places.len())].as_str()).unwrap() {
        Value::Object(members) => {
            let known: Vec<String> = members.keys().cloned().chain([name.to_owned()]).collect();
            let name = &known[which.index(known.len())];
            match value {
                Some(value) => _ = members.insert(name.clone(), value),
                None => _ = members.remove(name),
            }
        }
        Value::Array(elements) => match value {
            Some(value) => elements.insert(which.index(elements.len() + 1), value),
            None => elements.truncate(which.index(elements.len() + 1)),
        },
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn changed_answers_are_judged_as_their_records_are(
        which in 0..WHOLE.len(),
        changes in prop::collection::vec(
            (any::<Index>(), any::<Index>(), select(&NAMES[..]), prop::option::weighted(0.8, value())), 0..4),
        pretty in any::<bool>(),
    ) {
        let (api, text) = WHOLE[which];
        let mut document = serde_json::from_str(text).unwrap();
        for (place, which, name, value) in changes {
            change(&mut document, &place, &which, name, value);
        }
        let text = if pretty { format!("{document:#}") } else { document.to_string() };
        check(api, text.as_bytes());
    }

    #[test]
    fn broken_answers_are_judged_as_their_records_are(
        which in 0..WHOLE.len(),
        edits in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let (api, text) = WHOLE[which];
        let mut bytes = text.as_bytes().to_vec();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        check(api, &bytes);
    }
}
