use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use refrain_core::Api;
use serde_json::{Value as Json, json};

use super::*;
use crate::request::{ParseLimits, parse};

fn request(api: Api, body: &Json) -> ParsedRequest {
    parse(api, &Bytes::from(body.to_string()), &ParseLimits::default()).unwrap()
}

fn pieces(api: Api, body: &Json) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    request(api, body).pieces(&mut |name, text| {
        assert_eq!(found.insert(name.to_string(), text.to_owned()), None, "{name} twice in {body}");
    });
    found
}

fn names(api: Api, body: &Json) -> Vec<String> {
    pieces(api, body).into_keys().collect()
}

/// Names of the pieces in which two bodies differ.
fn differ(api: Api, a: &Json, b: &Json) -> Vec<String> {
    let (a, b) = (pieces(api, a), pieces(api, b));
    let mut all: Vec<String> = a.keys().chain(b.keys()).cloned().collect();
    all.sort_unstable();
    all.dedup();
    all.retain(|name| a.get(name) != b.get(name));
    all
}

fn chat(system: &str, question: &str) -> Json {
    json!({"model": "m", "temperature": 0, "messages": [
        {"role": "system", "content": system}, {"role": "user", "content": question},
    ]})
}

#[test]
fn a_line_of_the_system_prompt_is_told_by_its_number() {
    let api = Api::ChatCompletions;
    let a = chat("Be brief.\nYou are Ann.\nIt is 12:01.", "Hello");
    assert_eq!(
        differ(api, &a, &chat("Be brief.\nYou are Ann.\nIt is 12:02.", "Hello")),
        ["system prompt line 3"]
    );
    assert_eq!(differ(api, &a, &chat("Be brief.\nYou are Ann.\nIt is 12:01.", "Hi")), ["last message"]);
}

#[test]
fn system_prompts_are_found_in_every_dialect() {
    let blocks = |line: &str| {
        json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}],
            "system": [{"type": "text", "text": "You are Claude."}, {"type": "text", "text": format!("cch={line}\nBe nice.")}]})
    };
    assert_eq!(differ(Api::Messages, &blocks("1"), &blocks("2")), ["system prompt line 2"]);
    let generate = |system: &str, ctx: u32| json!({"model": "m", "prompt": "Hi", "system": system, "options": {"num_ctx": ctx, "seed": 1}});
    assert_eq!(
        differ(Api::OllamaGenerate, &generate("a", 1), &generate("b", 2)),
        ["options.num_ctx", "system prompt line 1"]
    );
}

#[test]
fn turns_tools_and_fields_have_names_of_their_own() {
    let body = json!({"model": "m", "seed": 1, "stream": true, "user": "ann", "tools": [{"a": 1}, {"b": 2}],
        "messages": [{"role": "user", "content": "One"}, {"role": "assistant", "content": "1"},
            {"role": "user", "content": [{"type": "text", "text": "Two"}]}]});
    assert_eq!(
        names(Api::ChatCompletions, &body),
        [
            "last message",
            "last message beside its text",
            "message 1",
            "message 2",
            "seed",
            "tool 1",
            "tool 2"
        ]
    );
}

#[test]
fn what_is_beyond_the_bounds_counts_still() {
    let tools = |count: usize, last: u32| {
        let mut tools: Vec<Json> = (0..count).map(|nth| json!({"nth": nth})).collect();
        tools.push(json!({"last": last}));
        let messages: Vec<Json> =
            (0..count).map(|nth| json!({"role": "user", "content": nth.to_string()})).collect();
        let mut body = json!({"model": "m", "tools": tools, "messages": messages});
        (0..count).for_each(|nth| body[format!("f{nth}")] = json!(nth));
        body["z"] = json!(last);
        body
    };
    let api = Api::ChatCompletions;
    assert_eq!(differ(api, &tools(200, 1), &tools(200, 2)), ["further fields", "tool 64"]);
    assert!(names(api, &tools(200, 1)).len() <= 3 * PIECES_MAX + 2);
    let lines = |last: &str| chat(&format!("{}{last}", "line\n".repeat(500)), "Hi");
    assert_eq!(differ(api, &lines("a"), &lines("b")), ["system prompt beside its lines"]);
}

#[test]
fn names_that_a_client_chose_are_neither_long_nor_commands_for_terminals() {
    let api = Api::ChatCompletions;
    let with = |name: &str, value: u32| {
        let mut body = chat("Be brief.", "Hi");
        body[name] = json!(value);
        body
    };
    let long = "x".repeat(1 << 20);
    assert!(names(api, &with(&long, 1)).iter().all(|name| name.len() < 100));
    assert_eq!(differ(api, &with(&long, 1), &with(&long, 2)), ["further fields"]);
    assert_eq!(differ(api, &with("a\u{1b}[2J", 1), &with("a\u{1b}[2J", 2)), ["a\\u{1b}[2J"]);
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "\n", ",", ";", "=", "@", "\""]), 0..5)
        .prop_map(|all| all.concat())
}

fn content() -> impl Strategy<Value = Json> {
    let part = text().prop_map(|text| json!({"type": "text", "text": text}));
    prop_oneof![
        text().prop_map(Json::from),
        prop::collection::vec(part, 0..3).prop_map(Json::from),
        Just(Json::Null)
    ]
}

fn body() -> impl Strategy<Value = Json> {
    let role = prop::sample::select(vec!["system", "user", "assistant", "developer"]);
    let message = (role, content()).prop_map(|(role, content)| json!({"role": role, "content": content}));
    let fields = prop::collection::btree_map(
        prop::sample::select(vec![
            "seed",
            "options",
            "tools",
            "system",
            "instructions",
            "prompt",
            "input",
            "user",
        ]),
        prop_oneof![
            Just(json!(1)),
            Just(json!("a\nb")),
            Just(json!([])),
            Just(json!({})),
            Just(json!({"a": 1})),
            Just(json!([{"a": 1}])),
            Just(json!(["a", "b"])),
            Just(Json::Null),
        ],
        0..3,
    );
    (prop::collection::vec(message, 0..4), fields).prop_map(|(messages, fields)| {
        let mut body = json!({"model": "m", "messages": messages});
        fields.into_iter().for_each(|(name, value)| body[name] = value);
        body
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn bodies_have_the_same_pieces_if_and_only_if_they_have_the_same_keyed_body(a in body(), b in body()) {
        let read = |body: &Json| parse(Api::ChatCompletions, &Bytes::from(body.to_string()), &ParseLimits::default());
        if let (Ok(first), Ok(second)) = (read(&a), read(&b)) {
            let keyed = |one: &ParsedRequest| (one.prompt.partition_body.clone(), one.prompt.embed_text.clone().ok());
            let is_same = keyed(&first) == keyed(&second);
            prop_assert_eq!(pieces(Api::ChatCompletions, &a) == pieces(Api::ChatCompletions, &b), is_same);
        }
    }
}
