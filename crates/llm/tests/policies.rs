//! What policies read of a request, name as key parts, and choose to compare.

#![allow(clippy::unwrap_used, clippy::panic, reason = "shared parts of tests fail by panicking")]

use bytes::Bytes;
use proptest::prelude::*;
use refrain_core::{Api, EmbedSource, ExactOnly, KeyPart};
use refrain_llm::request::{Compared, ParseLimits, ParsedRequest, parse};

fn parsed(api: Api, body: &str) -> ParsedRequest {
    parse(api, &Bytes::copy_from_slice(body.as_bytes()), &ParseLimits::default())
        .unwrap_or_else(|error| panic!("{body}: {error}"))
}

fn chat(body: &str) -> ParsedRequest {
    parsed(Api::ChatCompletions, body)
}

const CHAT: &str = r#"{"model":"m","messages":[
    {"role":"system","content":"be brief"},
    {"role":"user","content":[{"type":"text","text":"one"},{"type":"image_url","image_url":{"url":"data:x"}},{"type":"text","text":"tw\u00f6"}]},
    {"role":"assistant","content":null},
    {"role":"user","content":"h\u0069 there"}
],"temperature":0.50,"seed":1,"max_tokens":null}"#;

fn texts(request: &ParsedRequest) -> Vec<(String, String)> {
    let message =
        |index| Some((request.message_role(index)?.into_owned(), request.message_text(index, 100)?));
    (0..).map_while(message).collect()
}

fn check_texts(api: Api, body: &str, expected: &[(&str, &str)]) {
    let request = parsed(api, body);
    let found = texts(&request);
    let found: Vec<_> = found.iter().map(|(role, text)| (role.as_str(), text.as_str())).collect();
    assert_eq!(found, expected, "{body}");
    assert_eq!(request.prompt.message_count as usize, expected.len(), "{body}");
}

#[test]
fn messages_are_read_with_their_roles_in_every_dialect() {
    let expected = [("system", "be brief"), ("user", "one\ntwö"), ("assistant", ""), ("user", "hi there")];
    check_texts(Api::ChatCompletions, CHAT, &expected);
    let messages = r#"{"model":"m","max_tokens":9,"system":"s","messages":[{"role":"user","content":[{"type":"text","text":"q"}]}]}"#;
    check_texts(Api::Messages, messages, &[("user", "q")]);
    check_texts(
        Api::OllamaChat,
        r#"{"model":"m","messages":[{"role":"tool","content":"t"}]}"#,
        &[("tool", "t")],
    );
    check_texts(Api::OllamaChat, r#"{"model":"m"}"#, &[]);
}

#[test]
fn a_prompt_is_message_0_of_the_user() {
    check_texts(Api::OllamaGenerate, r#"{"model":"m","prompt":"p","system":"s"}"#, &[("user", "p")]);
    check_texts(Api::Completions, r#"{"model":"m","prompt":["a","b"]}"#, &[("user", "a\nb")]);
    check_texts(Api::Completions, r#"{"model":"m","prompt":[1,2]}"#, &[("user", "")]);
    check_texts(Api::Embeddings, r#"{"model":"m","input":"i"}"#, &[("user", "i")]);
    let input = r#"{"model":"m","input":[{"role":"developer","content":"d"},{"type":"x"},{"role":"user","content":[{"type":"input_text","text":"q"}]}]}"#;
    check_texts(Api::Responses, input, &[("developer", "d"), ("", ""), ("user", "q")]);
    check_texts(Api::Responses, r#"{"model":"m","input":"q"}"#, &[("user", "q")]);
}

#[test]
fn texts_are_cut_at_characters() {
    let request = chat(CHAT);
    let cut = |index, bytes| request.message_text(index, bytes).unwrap();
    assert_eq!(cut(1, 7), "one\ntw");
    assert_eq!(cut(1, 8), "one\ntwö");
    assert_eq!(cut(1, 4), "one\n");
    assert_eq!(cut(1, 3), "one");
    assert_eq!((cut(3, 0), cut(3, 2), cut(3, 4)), (String::new(), "hi".into(), "hi t".into()));
    assert_eq!(request.message_text(4, 9), None);
    assert_eq!(request.message_role(u32::MAX), None);
}

#[test]
fn json_is_told_as_it_was_written_or_not_at_all() {
    let request = chat(CHAT);
    assert_eq!(request.json("/temperature", 4), Some("0.50"));
    assert_eq!(request.json("/temperature", 3), None);
    assert_eq!(request.json("/messages/3/content", 99), Some(r#""h\u0069 there""#));
    assert_eq!(request.json("/messages/9", 99), None);
    assert_eq!(request.json("", 10_000), Some(CHAT));
    assert_eq!(request.body(), CHAT.as_bytes());
}

#[test]
fn media_tools_and_temperature_are_seen() {
    let request = chat(CHAT);
    assert_eq!((request.has_media(), request.has_tools(), request.temperature()), (true, false, Some(0.5)));
    let ollama = parsed(
        Api::OllamaGenerate,
        r#"{"model":"m","prompt":"p","images":["aGk="],"options":{"temperature":0}}"#,
    );
    assert_eq!((ollama.has_media(), ollama.temperature()), (true, Some(0.0)));
    let plain =
        r#"{"model":"m","messages":[{"role":"user","content":"an image file"}],"options":{"temperature":1}}"#;
    assert_eq!(
        (chat(plain).has_media(), chat(plain).has_tools(), chat(plain).temperature()),
        (false, false, None)
    );
    let result = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"tool_result","content":[{"type":"image","source":{"type":"base64"}}]}]}]}"#;
    let result = parsed(Api::Messages, result);
    assert!(result.has_media() && result.has_tools());
    assert!(chat(r#"{"model":"m","messages":[],"tools":[{}]}"#).has_tools());
}

fn part(request: &ParsedRequest, part: &KeyPart) -> Option<String> {
    request.key_part(part, "effective").map(|bytes| String::from_utf8(bytes.into_owned()).unwrap())
}

#[test]
fn key_parts_are_canonical() {
    let request = chat(
        r#"{"tools":[{ "type":"function"}],"temperature":0.50,"n":null,"seed":1,"user":"u","model":"m","messages":[{"role":"developer","content":"d"},{"role":"user","content":"a"},{"content":"\u0062","role":"user"}]}"#,
    );
    let check = |name: KeyPart, expected: Option<&str>| {
        assert_eq!(part(&request, &name).as_deref(), expected, "{name:?}");
    };
    let (developer, first, last) = (
        r#"{"content":"d","role":"developer"}"#,
        r#"{"content":"a","role":"user"}"#,
        r#"{"content":"b","role":"user"}"#,
    );
    check(KeyPart::Model, Some("effective"));
    check(KeyPart::Message(2), Some(last));
    check(KeyPart::Message(3), None);
    check(KeyPart::Json("/tools/0".into()), Some(r#"{"type":"function"}"#));
    check(KeyPart::Json("/n".into()), Some("null"));
    check(KeyPart::Json("/absent".into()), None);
    check(KeyPart::Sampling, Some(r#"{"seed":1,"temperature":0.50}"#));
    check(KeyPart::Tools, Some(r#"{"tools":[{"type":"function"}]}"#));
    check(KeyPart::SystemPrompt, Some(&format!("[{developer}]")));
    check(KeyPart::Messages, Some(&format!("[{developer},{first},{last}]")));
    check(KeyPart::History, Some(&format!("[{developer},{first}]")));
    for other in [KeyPart::Text("t".into()), KeyPart::Header("h".into()), KeyPart::Claim("c".into())] {
        check(other, None);
    }
}

#[test]
fn absent_parts_are_not_empty_ones() {
    let request = parsed(Api::OllamaGenerate, r#"{"model":"m","prompt":"p","system":"s"}"#);
    assert_eq!(part(&request, &KeyPart::SystemPrompt).as_deref(), Some(r#"["s"]"#));
    assert_eq!(part(&request, &KeyPart::Messages).as_deref(), Some(r#"["p"]"#));
    assert_eq!(part(&request, &KeyPart::History).as_deref(), Some("[]"));
    assert_eq!(part(&request, &KeyPart::Tools), None);
    let empty = parsed(Api::OllamaChat, r#"{"model":"m"}"#);
    for absent in [KeyPart::SystemPrompt, KeyPart::Messages, KeyPart::History, KeyPart::Message(0)] {
        assert_eq!(part(&empty, &absent), None, "{absent:?}");
    }
}

const TALK: &str = r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"one"},{"role":"assistant","content":"ok"},{"role":"user","content":[{"type":"text","text":"tw\u00f6 or three"}]}]}"#;

fn check_compared(source: &EmbedSource, content: [&str; 4], excised: &str, embed_text: &str) {
    let [system, first, answer, last] = content;
    let partition_body = format!(
        r#"{{"messages":[{{"content":{system},"role":"system"}},{{"content":{first},"role":"user"}},{{"content":{answer},"role":"assistant"}},{{"content":[{{"text":{last},"type":"text"}}],"role":"user"}}]}}"#
    );
    let expected = Compared {
        partition_body: partition_body.into(),
        excised: excised.to_owned(),
        embed_text: embed_text.to_owned(),
    };
    assert_eq!(chat(TALK).compared(source), Ok(expected), "{source:?}");
}

#[test]
fn each_source_cuts_out_what_it_compares_and_leaves_the_rest() {
    let (s, one, ok) = (r#""s""#, r#""one""#, r#""ok""#);
    let whole = "twö or three";
    check_compared(&EmbedSource::LastUserMessage, [s, one, ok, "@"], whole, whole);
    let span = EmbedSource::Span { start: 5, len: 2 };
    check_compared(&span, [s, one, ok, "@\"twö \"\" three\""], "or", "or");
    let derived = EmbedSource::Text("2 or 3".into());
    check_compared(&derived, [s, one, ok, "@t"], whole, "2 or 3");
    let all = r#""one""twö or three""#;
    check_compared(&EmbedSource::AllUserMessages, [s, "@u", ok, "@u"], all, "one\ntwö or three");
    let last_two = r#""ok""twö or three""#;
    check_compared(
        &EmbedSource::LastMessages(2),
        [s, one, "@m", "@m"],
        last_two,
        "assistant: ok\nuser: twö or three",
    );
    check_compared(
        &EmbedSource::LastMessages(0),
        [s, one, ok, "@m"],
        "\"twö or three\"",
        "user: twö or three",
    );
}

#[test]
fn the_default_source_is_the_prompts_own_split() {
    let request = chat(TALK);
    let compared = request.compared(&EmbedSource::LastUserMessage).unwrap();
    assert_eq!(compared.partition_body, request.prompt.partition_body);
    assert_eq!(Ok(compared.embed_text), request.prompt.embed_text);
}

#[test]
fn a_span_is_cut_inwards_to_whole_characters() {
    let request = chat(TALK);
    let span =
        |start, len| request.compared(&EmbedSource::Span { start, len }).map(|compared| compared.embed_text);
    assert_eq!(span(0, 3).as_deref(), Ok("tw"));
    assert_eq!(span(3, 5).as_deref(), Ok(" or "));
    assert_eq!(span(0, u32::MAX).as_deref(), Ok("twö or three"));
    for (start, len) in [(0, 0), (2, 1), (3, 1), (13, 5), (u32::MAX, u32::MAX), (4, 1)] {
        assert_eq!(span(start, len), Err(ExactOnly::Empty), "{start} {len}");
    }
}

#[test]
fn every_source_obeys_what_forbids_comparing() {
    let sources = [
        EmbedSource::LastUserMessage,
        EmbedSource::Span { start: 0, len: 1 },
        EmbedSource::AllUserMessages,
        EmbedSource::LastMessages(2),
        EmbedSource::Text("t".into()),
    ];
    let media = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:x"}}]},{"role":"user","content":"what?"}]}"#;
    for source in &sources {
        let check =
            |body: &str, reason| assert_eq!(chat(body).compared(source), Err(reason), "{source:?} {body}");
        check(r#"{"model":"m","tools":[{}],"messages":[{"role":"user","content":"q"}]}"#, ExactOnly::Tools);
        check(r#"{"model":"m","n":2,"messages":[{"role":"user","content":"q"}]}"#, ExactOnly::Choices);
        check(r#"{"model":"m","messages":[{"role":"assistant","content":"q"}]}"#, ExactOnly::LastNotUser);
        check(r#"{"model":"m","messages":[{"role":"user","content":" "}]}"#, ExactOnly::Empty);
        if matches!(source, EmbedSource::AllUserMessages | EmbedSource::LastMessages(_)) {
            check(media, ExactOnly::NotText);
        } else {
            assert!(chat(media).compared(source).is_ok(), "{source:?}");
        }
    }
    assert_eq!(chat(TALK).compared(&EmbedSource::Text(" ".into())), Err(ExactOnly::Empty));
}

fn sources() -> impl Strategy<Value = EmbedSource> {
    prop_oneof![
        Just(EmbedSource::LastUserMessage),
        (0u32..6, 0u32..6).prop_map(|(start, len)| EmbedSource::Span { start, len }),
        Just(EmbedSource::AllUserMessages),
        (0u32..4).prop_map(EmbedSource::LastMessages),
        "[a@]{1,2}".prop_map(EmbedSource::Text),
    ]
}

/// Conversations out of few characters, among them all that the marks and frames are made of.
fn talks() -> impl Strategy<Value = Vec<(bool, String)>> {
    prop::collection::vec((any::<bool>(), "[a@\"\\\\]{1,3}"), 1..4)
}

fn talk(messages: &[(bool, String)]) -> ParsedRequest {
    let last = messages.len() - 1;
    let message = |(at, (is_user, text)): (usize, &(bool, String))| {
        let role = if *is_user || at == last { "user" } else { "assistant" };
        serde_json::json!({ "role": role, "content": text })
    };
    let messages: Vec<_> = messages.iter().enumerate().map(message).collect();
    chat(&serde_json::json!({ "model": "m", "messages": messages }).to_string())
}

#[test]
fn a_text_that_looks_like_another_sources_frame_is_another_key() {
    let split = |text: &str, source: &EmbedSource| {
        let compared = talk(&[(true, text.to_owned())]).compared(source).unwrap();
        (compared.partition_body, compared.excised)
    };
    let framed = "\"a\"";
    let plain = split(framed, &EmbedSource::LastUserMessage);
    assert_eq!(plain.1, split("a", &EmbedSource::AllUserMessages).1, "the texts alone would be mistaken");
    for (text, source) in [
        ("a", EmbedSource::AllUserMessages),
        ("a", EmbedSource::LastMessages(1)),
        (framed, EmbedSource::Text("t".into())),
        (framed, EmbedSource::Span { start: 0, len: 3 }),
    ] {
        assert_ne!(split(text, &source), plain, "{source:?}");
    }
}

proptest! {
    /// Whatever is compared by meaning, the exact key forgets nothing: not even between sources.
    #[test]
    fn two_requests_share_partition_and_excised_text_only_if_they_are_equal(
        a in talks(), b in talks(), by in sources(), other in sources(),
    ) {
        let (a, b) = (talk(&a), talk(&b));
        let all = |request: &ParsedRequest| request.key_part(&KeyPart::Messages, "").unwrap().into_owned();
        if let (Ok(left), Ok(right)) = (a.compared(&by), b.compared(&other)) {
            if (&left.partition_body, &left.excised) == (&right.partition_body, &right.excised) {
                prop_assert_eq!(all(&a), all(&b));
            } else if by == other {
                prop_assert_ne!(all(&a), all(&b));
            }
        }
    }

    #[test]
    fn any_pointer_and_any_length_are_read_without_panic(pointer in "[/a-z0-9~*]{0,12}", bytes in 0usize..200, index: u32) {
        let request = chat(CHAT);
        let _ = (request.json(&pointer, bytes), request.message_text(index % 5, bytes));
        let _ = request.compared(&EmbedSource::Span { start: index % 20, len: bytes as u32 });
    }
}
