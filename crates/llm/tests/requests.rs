//! Requests: what is keyed, what is compared, what is refused, what goes upstream.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "shared parts of tests fail by panicking"
)]

use bytes::Bytes;
use proptest::prelude::*;
use refrain_core::{Api, Bypass, Code, ExactOnly};
use refrain_llm::request::{ParseLimits, ParsedRequest, Rewrite, parse};
use serde_json::{Value, json};

fn try_parse(api: Api, body: &str) -> Result<ParsedRequest, refrain_llm::request::ParseError> {
    parse(api, &Bytes::copy_from_slice(body.as_bytes()), &ParseLimits::default())
}

fn parsed(api: Api, body: &str) -> ParsedRequest {
    try_parse(api, body).unwrap_or_else(|error| panic!("{body}: {error}"))
}

fn chat(body: &str) -> ParsedRequest {
    parsed(Api::ChatCompletions, body)
}

/// The keyed body and the text that stands for its placeholder.
fn key(api: Api, body: &str) -> (Bytes, Option<String>) {
    let prompt = parsed(api, body).prompt;
    (prompt.partition_body, prompt.embed_text.ok())
}

const CHAT: &str = r#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}],"seed":1,"temperature":0.5}"#;

#[test]
fn the_question_is_cut_out_of_the_keyed_body() {
    let prompt = chat(CHAT).prompt;
    assert_eq!(prompt.embed_text.as_deref(), Ok("hi"));
    assert_eq!(
        prompt.partition_body,
        r#"{"messages":[{"content":"be brief","role":"system"},{"content":@,"role":"user"}],"seed":1,"temperature":0.5}"#
    );
    assert_eq!((prompt.model.as_str(), prompt.stream, prompt.sampled), ("m", false, true));
    assert_eq!((prompt.message_count, prompt.offers_tools, prompt.bypass), (2, false, None));
}

#[test]
fn a_text_that_looks_like_the_placeholder_is_not_one() {
    let base = key(Api::ChatCompletions, r#"{"model":"m","n":2,"messages":[{"role":"user","content":"@"}]}"#);
    assert_eq!(base.0, r#"{"messages":[{"content":"@","role":"user"}],"n":2}"#);
    assert_eq!(base.1, None);
}

#[test]
fn order_white_space_and_escapes_do_not_change_the_key() {
    let other = "{ \"temperature\" :0.5,\n\"\\u0073eed\":1,\"messages\":[{\"content\":\"be\\u0020brief\",\"role\":\"system\"},{\"role\":\"user\",\"content\":\"h\\u0069\"}],\"model\":\"m\"}";
    assert_eq!(key(Api::ChatCompletions, CHAT), key(Api::ChatCompletions, other));
}

#[test]
fn fields_outside_of_the_key_do_not_change_it() {
    let plain = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    for extra in [
        r#""stream":true"#,
        r#""stream_options":{"include_usage":true}"#,
        r#""user":"u""#,
        r#""metadata":{"a":1}"#,
        r#""store":false"#,
        r#""prompt_cache_key":"k""#,
        r#""request_id":"r""#,
        r#""keep_alive":"5m""#,
        r#""tools":[]"#,
    ] {
        let body = format!(r#"{{{extra},"model":"m","messages":[{{"role":"user","content":"x"}}]}}"#);
        assert_eq!(key(Api::ChatCompletions, plain), key(Api::ChatCompletions, &body), "{extra}");
    }
}

#[test]
fn every_other_change_changes_the_key() {
    let bodies = [
        r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"x "}]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":1}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":1.0}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":1e0}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":null}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"seed":9007199254740992}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"seed":9007199254740993}"#,
        r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]}"#,
        r#"{"model":"m","messages":[{"role":"user","name":"u","content":"x"}]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"x","metadata":{}}]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"y"},{"role":"user","content":"x"}]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"tools":null}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function"}]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"n":2}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"unknown":{"stream":true}}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"unknown":{}}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"é"}]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"e\u0301"}]}"#,
    ];
    let keys: std::collections::HashSet<_> =
        bodies.iter().map(|body| key(Api::ChatCompletions, body)).collect();
    assert_eq!(keys.len(), bodies.len());
}

fn embed(api: Api, body: &str) -> Result<String, ExactOnly> {
    parsed(api, body).prompt.embed_text
}

fn check_chat_embed(fields: &str, messages: &str, expected: Result<&str, ExactOnly>) {
    let body = format!(r#"{{"model":"m"{fields},"messages":[{messages}]}}"#);
    assert_eq!(embed(Api::ChatCompletions, &body), expected.map(str::to_owned), "{body}");
}

#[test]
fn only_a_plain_question_is_compared() {
    use ExactOnly::*;
    let user = r#"{"role":"user","content":"q"}"#;
    check_chat_embed("", user, Ok("q"));
    check_chat_embed(r#","n":1"#, user, Ok("q"));
    check_chat_embed(r#","tools":[],"response_format":{"type":"text"}"#, user, Ok("q"));
    check_chat_embed(r#","tools":[{}]"#, user, Err(Tools));
    check_chat_embed(r#","web_search_options":{}"#, user, Err(Tools));
    check_chat_embed(r#","response_format":{"type":"json_object"}"#, user, Err(StructuredOutput));
    check_chat_embed(r#","guided_choice":["a"]"#, user, Err(StructuredOutput));
    check_chat_embed(r#","logprobs":true"#, user, Err(Logprobs));
    check_chat_embed(r#","logprobs":false,"top_logprobs":0"#, user, Ok("q"));
    check_chat_embed(r#","n":2"#, user, Err(Choices));
    check_chat_embed(r#","continue_final_message":true"#, user, Err(LastNotUser));
    check_chat_embed("", "", Err(Empty));
    check_chat_embed("", r#"{"role":"user","content":" \n"}"#, Err(Empty));
    check_chat_embed("", r#"{"role":"user","content":null}"#, Err(Empty));
    check_chat_embed("", &format!(r#"{user},{{"role":"assistant","content":"Sure"}}"#), Err(LastNotUser));
    check_chat_embed("", &format!(r#"{{"role":"tool","content":"1"}},{user}"#), Err(ToolMessages));
    check_chat_embed(
        "",
        &format!(r#"{{"role":"assistant","content":null,"tool_calls":[{{}}]}},{user}"#),
        Err(ToolMessages),
    );
    let text = r#"{"type":"text","text":"q"}"#;
    let image = r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}"#;
    check_chat_embed("", &format!(r#"{{"role":"user","content":[{text}]}}"#), Ok("q"));
    check_chat_embed("", &format!(r#"{{"role":"user","content":[{text},{text}]}}"#), Err(NotText));
    check_chat_embed("", &format!(r#"{{"role":"user","content":[{text},{image}]}}"#), Err(NotText));
    check_chat_embed("", &format!(r#"{{"role":"user","content":[{image}]}}"#), Err(NotText));
    check_chat_embed("", &format!(r#"{{"role":"user","content":[{image}]}},{user}"#), Ok("q"));
}

#[test]
fn other_apis_are_compared_as_they_should_be() {
    use ExactOnly::{NotText, StructuredOutput, ToolMessages};
    let cases = [
        (Api::Completions, r#"{"model":"m","prompt":"p"}"#, Err(ExactOnly::Api)),
        (Api::Embeddings, r#"{"model":"m","input":["p"]}"#, Err(ExactOnly::Api)),
        (Api::OllamaEmbed, r#"{"model":"m","input":"p"}"#, Err(ExactOnly::Api)),
        (Api::OllamaGenerate, r#"{"model":"m","prompt":"p"}"#, Ok("p")),
        (Api::OllamaGenerate, r#"{"model":"m","prompt":"p","context":[1]}"#, Ok("p")),
        (Api::OllamaGenerate, r#"{"model":"m","prompt":"p","suffix":"s"}"#, Err(NotText)),
        (Api::OllamaGenerate, r#"{"model":"m","prompt":"p","raw":true}"#, Err(NotText)),
        (Api::OllamaGenerate, r#"{"model":"m","prompt":"p","images":["AA"]}"#, Err(NotText)),
        (Api::OllamaGenerate, r#"{"model":"m","prompt":"p","format":"json"}"#, Err(StructuredOutput)),
        (Api::OllamaGenerate, r#"{"model":"m","prompt":"p","format":""}"#, Ok("p")),
        (Api::OllamaChat, r#"{"model":"m","messages":[{"role":"user","content":"p"}],"tools":[]}"#, Ok("p")),
        (
            Api::OllamaChat,
            r#"{"model":"m","messages":[{"role":"user","content":"p","images":["AA"]}]}"#,
            Err(NotText),
        ),
        (
            Api::OllamaChat,
            r#"{"model":"m","messages":[{"role":"user","content":"p"}],"format":{"type":"object"}}"#,
            Err(StructuredOutput),
        ),
        (
            Api::Messages,
            r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"p"}]}"#,
            Ok("p"),
        ),
        (
            Api::Messages,
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"p","cache_control":{}}]}]}"#,
            Ok("p"),
        ),
        (
            Api::Messages,
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"tool_result","content":"p"}]}]}"#,
            Err(ToolMessages),
        ),
    ];
    for (api, body, expected) in cases {
        assert_eq!(embed(api, body), expected.map(str::to_owned), "{body}");
    }
}

fn bypass(api: Api, body: &str, expected: Option<Bypass>) {
    assert_eq!(parsed(api, body).prompt.bypass, expected, "{body}");
}

#[test]
fn media_by_url_state_and_load_calls_are_not_cached() {
    let part = |part: &str| format!(r#"{{"model":"m","messages":[{{"role":"user","content":[{part}]}}]}}"#);
    let chat = Api::ChatCompletions;
    let by_url = Some(Bypass::MediaByUrl);
    bypass(chat, &part(r#"{"type":"image_url","image_url":{"url":"https://x/y.png"}}"#), by_url);
    bypass(chat, &part(r#"{"type":"image_url","image_url":"http://x"}"#), by_url);
    bypass(chat, &part(r#"{"type":"image_url","image_url":{"url":"data:image\/png;base64,AA"}}"#), None);
    bypass(chat, &part(r#"{"type":"file","file":{"file_id":"f"}}"#), Some(Bypass::Stateful));
    bypass(Api::Messages, &part(r#"{"type":"image","source":{"type":"url","url":"https://x"}}"#), by_url);
    bypass(Api::Messages, &part(r#"{"type":"image","source":{"type":"base64","data":"AA"}}"#), None);
    bypass(Api::Messages, &part(r#"{"type":"tool_use","input":{"url":"https://x"}}"#), None);
    let nested =
        r#"{"type":"tool_result","content":[{"type":"image","source":{"type":"url","url":"https://x"}}]}"#;
    bypass(Api::Messages, &part(nested), by_url);
    bypass(chat, r#"{"model":"m","messages":[],"previous_response_id":"r"}"#, Some(Bypass::Stateful));
    bypass(chat, r#"{"model":"m","messages":[],"store":true}"#, Some(Bypass::Stateful));
    bypass(chat, r#"{"model":"m","messages":[],"store":false}"#, None);
    bypass(Api::Responses, r#"{"model":"m","input":"x"}"#, Some(Bypass::ApiNotCached));
}

#[test]
fn ollamas_load_and_unload_calls_are_recognised() {
    let load = Some(Bypass::LoadUnload);
    bypass(Api::OllamaGenerate, r#"{"model":"m"}"#, load);
    bypass(Api::OllamaGenerate, r#"{"model":"m","prompt":""}"#, load);
    bypass(Api::OllamaGenerate, r#"{"model":"m","prompt":"x","keep_alive":0}"#, load);
    bypass(Api::OllamaGenerate, r#"{"model":"m","prompt":"x","keep_alive":"0s"}"#, load);
    bypass(Api::OllamaGenerate, r#"{"model":"m","prompt":"x","keep_alive":"10m"}"#, None);
    bypass(Api::OllamaGenerate, r#"{"model":"m","prompt":"x","keep_alive":-1}"#, None);
    bypass(Api::OllamaChat, r#"{"model":"m"}"#, load);
    bypass(Api::OllamaChat, r#"{"model":"m","messages":[]}"#, load);
    bypass(Api::OllamaChat, r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#, None);
    bypass(Api::OllamaEmbed, r#"{"model":"m","input":[]}"#, load);
    bypass(Api::OllamaEmbed, r#"{"model":"m","input":"x"}"#, None);
}

#[test]
fn streams_are_on_by_default_only_at_ollama() {
    let messages = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    for (api, expected) in [(Api::ChatCompletions, false), (Api::OllamaChat, true), (Api::Messages, false)] {
        assert_eq!(parsed(api, messages).prompt.stream, expected, "{api:?}");
    }
    assert!(parsed(Api::OllamaGenerate, r#"{"model":"m","prompt":"x"}"#).prompt.stream);
    assert!(!parsed(Api::OllamaGenerate, r#"{"model":"m","prompt":"x","stream":false}"#).prompt.stream);
}

#[test]
fn sampling_is_read_where_the_dialect_keeps_it() {
    let sampled = |api, body| parsed(api, body).prompt.sampled;
    assert!(!sampled(Api::Completions, r#"{"model":"m","prompt":"x","temperature":0.0}"#));
    assert!(sampled(Api::Completions, r#"{"model":"m","prompt":"x","temperature":1e-3}"#));
    assert!(!sampled(Api::OllamaGenerate, r#"{"model":"m","prompt":"x","options":{"temperature":0}}"#));
    assert!(sampled(Api::OllamaGenerate, r#"{"model":"m","prompt":"x","temperature":0}"#));
    assert!(!sampled(Api::Embeddings, r#"{"model":"m","input":"x"}"#));
}

fn refused(api: Api, body: &str, code: Code, message: &str) {
    let error = try_parse(api, body).expect_err(body);
    assert_eq!((error.code(), error.to_string().as_str()), (code, message), "{body}");
}

#[test]
fn refusals_name_the_field() {
    use Code::*;
    let chat = Api::ChatCompletions;
    refused(chat, "{", InvalidJson, "the body is not valid json: unexpected end at byte 1");
    refused(chat, "[]", InvalidField, "field `body`: expected an object, found an array");
    refused(chat, r#"{"model":"m","m":1,"m":2}"#, DuplicateField, "duplicate field \"m\" at byte 19");
    refused(chat, r#"{"messages":[]}"#, MissingField, "field `model` is missing: expected a string");
    refused(chat, r#"{"model":null}"#, MissingField, "field `model` is missing: expected a string");
    refused(chat, r#"{"model":1}"#, InvalidField, "field `model`: expected a string, found a number");
    refused(
        chat,
        r#"{"model":""}"#,
        InvalidField,
        "field `model`: expected a model's name, found an empty string",
    );
    refused(chat, r#"{"model":"m"}"#, MissingField, "field `messages` is missing: expected an array");
    refused(
        chat,
        r#"{"model":"m","messages":[{"role":"user"},1]}"#,
        InvalidField,
        "field `messages[1]`: expected an object, found a number",
    );
    refused(
        chat,
        r#"{"model":"m","messages":[{"content":"x"}]}"#,
        MissingField,
        "field `messages[0].role` is missing: expected a string",
    );
    refused(
        chat,
        r#"{"model":"m","messages":[{"role":"user","content":1}]}"#,
        InvalidField,
        "field `messages[0].content`: expected a string, an array or null, found a number",
    );
    refused(
        chat,
        r#"{"model":"m","messages":[],"stream":"yes"}"#,
        InvalidField,
        "field `stream`: expected a boolean, found a string",
    );
    refused(
        chat,
        r#"{"model":"m","messages":[],"n":1.5}"#,
        InvalidField,
        "field `n`: expected an integer, found a number",
    );
    refused(
        chat,
        r#"{"model":"m","messages":[],"stream_options":{"include_usage":1}}"#,
        InvalidField,
        "field `stream_options.include_usage`: expected a boolean, found a number",
    );
}

fn upstream(body: &str, model: Option<&str>, include_usage: bool) -> String {
    let rewrite = Rewrite { model: model.map(Into::into), include_usage, ..Rewrite::default() };
    String::from_utf8(chat(body).upstream_body(&rewrite).to_vec()).unwrap()
}

#[test]
fn an_unchanged_body_is_the_same_bytes() {
    let body = Bytes::from_static(br#"{ "model":"m", "messages":[] }"#);
    let request = parse(Api::ChatCompletions, &body, &ParseLimits::default()).unwrap();
    let rewrite = Rewrite { model: Some("m".into()), include_usage: true, ..Rewrite::default() };
    assert_eq!(request.upstream_body(&rewrite).as_ptr(), body.as_ptr());
}

#[test]
fn a_clients_cache_salt_never_goes_upstream_and_makes_no_other_question() {
    let body = |salt: &str| format!(r#"{{"model":"m",{salt}"messages":[{{"role":"user","content":"hi"}}]}}"#);
    let salted = chat(&body(r#""cache_salt":"mine","#));
    let sent = salted.upstream_body(&Rewrite::default());
    assert_eq!(sent, body(r#""cache_salt":null,"#));
    assert_eq!(salted.prompt.partition_body, chat(&body("")).prompt.partition_body);
}

#[test]
fn a_stream_and_a_salt_are_set_where_they_stand_or_at_the_end() {
    let edited = |body: &str, expected: &str| {
        let salt = Some("s1".to_owned());
        let rewrite = Rewrite { stream: true, include_usage: true, salt, ..Rewrite::default() };
        assert_eq!(chat(body).upstream_body(&rewrite), expected);
    };
    edited(
        r#"{"model":"m","messages":[] }"#,
        r#"{"model":"m","messages":[] ,"stream_options":{"include_usage":true},"stream":true,"cache_salt":"s1"}"#,
    );
    edited(
        r#"{"cache_salt":"mine","stream":false,"model":"m","messages":[],"stream_options":{"include_usage":true}}"#,
        r#"{"cache_salt":"s1","stream":true,"model":"m","messages":[],"stream_options":{"include_usage":true}}"#,
    );
    edited(
        r#"{"stream":null,"cache_salt":null,"model":"m","messages":[],"stream_options":{}}"#,
        r#"{"stream":true,"cache_salt":"s1","model":"m","messages":[],"stream_options":{"include_usage":true}}"#,
    );
}

#[test]
fn rewrites_touch_only_their_places() {
    let edited = |body: &str, expected: &str| assert_eq!(upstream(body, Some("a\"b"), true), expected);
    edited(
        r#"{"stream":true , "model" : "m\u0031","messages":[] }"#,
        r#"{"stream":true , "model" : "a\"b","messages":[] ,"stream_options":{"include_usage":true}}"#,
    );
    edited(
        r#"{"stream_options":{"x":1},"stream":true,"messages":[],"model":"m"}"#,
        r#"{"stream_options":{"x":1,"include_usage":true},"stream":true,"messages":[],"model":"a\"b"}"#,
    );
    for options in [r#"{"include_usage":false}"#, r#"{"include_usage":null}"#, "{}", "null"] {
        edited(
            &format!(r#"{{"model":"m","stream":true,"messages":[],"stream_options":{options}}}"#),
            r#"{"model":"a\"b","stream":true,"messages":[],"stream_options":{"include_usage":true}}"#,
        );
    }
    let asked = r#"{"model":"m","stream":true,"messages":[],"stream_options":{"include_usage":true}}"#;
    assert_eq!(upstream(asked, None, true), asked);
    assert!(chat(asked).prompt.include_usage);
    let whole = r#"{"model":"m","messages":[]}"#;
    assert_eq!(upstream(whole, None, true), whole);
}

/// A chat body with everything in it that the key must tell apart.
fn any_chat() -> impl Strategy<Value = Value> {
    let message = (prop::sample::select(vec!["user", "assistant", "system"]), any::<String>())
        .prop_map(|(role, content)| json!({"role": role, "content": content}));
    let extras = prop::collection::btree_map(
        prop::sample::select(vec!["seed", "top_p", "stop", "x", "temperature"]),
        prop_oneof![any::<u32>().prop_map(Value::from), Just(Value::Null)],
        0..5,
    );
    (prop::collection::vec(message, 0..4), extras).prop_map(|(messages, extras)| {
        let mut body = json!({"model": "m", "messages": messages});
        for (name, value) in extras {
            if name != "temperature" || value.is_number() {
                body[name] = value;
            }
        }
        body
    })
}

/// The same document, its members in reverse order, with white space and every string escaped.
fn scrambled(value: &Value) -> String {
    let text = |text: &str| -> String {
        let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect::<String>();
        format!("\"{units}\"")
    };
    match value {
        Value::String(string) => text(string),
        Value::Array(elements) => {
            format!("[ {} ]", elements.iter().map(scrambled).collect::<Vec<_>>().join(" ,\n"))
        }
        Value::Object(members) => {
            let members =
                members.iter().rev().map(|(name, value)| format!("{} :\t{}", text(name), scrambled(value)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(" ,\r\n"))
        }
        other => other.to_string(),
    }
}

proptest! {
    #[test]
    fn the_key_is_stable_under_order_white_space_and_escapes(body in any_chat()) {
        prop_assert_eq!(key(Api::ChatCompletions, &body.to_string()), key(Api::ChatCompletions, &scrambled(&body)));
    }

    #[test]
    fn two_bodies_share_a_key_only_if_they_are_equal(a in any_chat(), b in any_chat()) {
        let same_key = key(Api::ChatCompletions, &a.to_string()) == key(Api::ChatCompletions, &b.to_string());
        prop_assert_eq!(same_key, a == b);
    }

    #[test]
    fn an_edited_body_says_the_same_but_for_the_edit(body in any_chat(), model in any::<String>()) {
        let mut body = body;
        body["stream"] = true.into();
        let edited: Value = serde_json::from_str(&upstream(&body.to_string(), Some(&model), true))?;
        body["model"] = model.into();
        body["stream_options"] = json!({"include_usage": true});
        prop_assert_eq!(edited, body);
    }

    #[test]
    fn mutated_bodies_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        for api in Api::ALL {
            let mut body = CHAT.as_bytes().to_vec();
            let place = at.index(body.len());
            body[place] = byte;
            let _ = parse(api, &Bytes::from(body.clone()), &ParseLimits::default());
            body.truncate(cut.index(body.len()));
            let _ = parse(api, &Bytes::from(body), &ParseLimits::default());
        }
    }
}
