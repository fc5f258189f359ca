//! Answers: every fixture is read, replayed, rendered in the other form, stored and read back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "shared parts of tests fail by panicking"
)]

use proptest::prelude::*;
use refrain_core::{Api, Dialect, Skip, Usage};
use refrain_llm::answer::{Answer, AnswerError, AnswerReader, DecodeError, Form, Rendering};
use serde_json::{Value, json};

const WITH_USAGE: Rendering = Rendering::Stream { include_usage: true };
const WITHOUT_USAGE: Rendering = Rendering::Stream { include_usage: false };
const BYTES_MAX: usize = 1 << 20;

macro_rules! fixtures {
    ($($api:ident $form:ident $path:literal;)*) => {
        [$((Api::$api, Form::$form, include_str!(concat!("fixtures/", $path)), $path),)*]
    };
}

/// Every fixture that is a complete answer.
const FIXTURES: [(Api, Form, &str, &str); 19] = fixtures! {
    ChatCompletions Stream "captured/llamacpp-chat-stream.sse";
    ChatCompletions Stream "captured/vllm-chat-stream.sse";
    ChatCompletions Stream "captured/vllm-chat-n2-logprobs.sse";
    ChatCompletions Stream "written/openai-chat-stop-stream.sse";
    ChatCompletions Stream "written/openai-chat-tools-stream.sse";
    ChatCompletions Whole "written/openai-chat.json";
    ChatCompletions Whole "written/openai-chat-tools.json";
    Completions Stream "captured/llamacpp-completions-stream.sse";
    Completions Stream "captured/vllm-completions-stream.sse";
    Completions Whole "written/openai-completions.json";
    Messages Stream "captured/llamacpp-messages-stream.sse";
    Messages Stream "captured/vllm-messages-stream.sse";
    Messages Stream "written/anthropic-messages-stream.sse";
    Messages Whole "written/anthropic-messages.json";
    Messages Whole "written/anthropic-messages-tools.json";
    OllamaChat Stream "written/ollama-chat-stream.ndjson";
    OllamaChat Whole "written/ollama-chat.json";
    OllamaGenerate Stream "written/ollama-generate-stream.ndjson";
    OllamaGenerate Whole "written/ollama-generate.json";
};

fn read(api: Api, form: Form, bytes: &[u8]) -> Result<Answer, AnswerError> {
    let mut reader = AnswerReader::new(api, form, BYTES_MAX);
    reader.feed(bytes)?;
    reader.finish()
}

fn fixture(path: &str) -> Answer {
    let (api, form, text, _) = FIXTURES.into_iter().find(|fixture| fixture.3.ends_with(path)).unwrap();
    read(api, form, text.as_bytes()).unwrap()
}

/// The JSON documents of a stream, with what may differ in a replay taken out: pings and null usage.
fn documents(api: Api, stream: &str) -> Vec<Value> {
    let lines = stream.lines().filter_map(|line| match api.dialect() {
        Dialect::Ollama => Some(line),
        Dialect::OpenAi | Dialect::Anthropic => line.strip_prefix("data: "),
    });
    let documents = lines.filter(|line| *line != "[DONE]").map(|line| serde_json::from_str(line).unwrap());
    documents
        .filter(|document: &Value| document["type"] != "ping")
        .map(|mut document| {
            if document["usage"].is_null() && api.dialect() == Dialect::OpenAi {
                document.as_object_mut().unwrap().remove("usage");
            }
            document
        })
        .collect()
}

fn rendered(answer: &Answer, rendering: Rendering) -> String {
    String::from_utf8(answer.render(rendering).to_vec()).unwrap()
}

fn whole(answer: &Answer) -> Value {
    serde_json::from_str(&rendered(answer, Rendering::Whole)).unwrap()
}

#[test]
fn the_original_form_is_replayed_delta_by_delta() {
    for (api, form, text, path) in FIXTURES {
        let answer = read(api, form, text.as_bytes()).expect(path);
        match form {
            Form::Whole => assert_eq!(whole(&answer), serde_json::from_str::<Value>(text).unwrap(), "{path}"),
            Form::Stream => {
                let replay = rendered(&answer, WITH_USAGE);
                assert_eq!(documents(api, &replay), documents(api, text), "{path}");
                assert_eq!(replay.contains("data: [DONE]"), text.contains("data: [DONE]"), "{path}");
            }
        }
    }
}

#[test]
fn either_form_says_the_same_as_the_other() {
    for (api, form, text, path) in FIXTURES {
        let answer = read(api, form, text.as_bytes()).expect(path);
        let streamed = read(api, Form::Stream, &answer.render(WITH_USAGE)).expect(path);
        assert_eq!(whole(&streamed), whole(&answer), "{path}");
        let joined = read(api, Form::Whole, &answer.render(Rendering::Whole)).expect(path);
        assert_eq!(whole(&joined), whole(&answer), "{path}");
        assert_eq!((joined.text(), joined.usage()), (answer.text(), answer.usage()), "{path}");
        assert_eq!(joined.storable(), answer.storable(), "{path}");
    }
}

#[test]
fn records_survive_storing() {
    for (api, form, text, path) in FIXTURES {
        let answer = read(api, form, text.as_bytes()).expect(path);
        let record = answer.encode();
        assert_eq!(Answer::decode(&record).as_ref(), Ok(&answer), "{path}");
        assert!(record.len() < text.len() * 2, "{path}: {} of {}", record.len(), text.len());
    }
}

#[test]
fn a_long_streams_record_is_smaller_than_the_stream() {
    let chunk = r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}"#;
    let end = r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let stream = format!("{}{end}\n\ndata: [DONE]\n\n", format!("{chunk}\n\n").repeat(500));
    let answer = read(Api::ChatCompletions, Form::Stream, stream.as_bytes()).unwrap();
    assert!(answer.encode().len() < 5_000, "{}", answer.encode().len());
    assert_eq!(rendered(&answer, WITH_USAGE), stream);
}

#[test]
fn a_streamed_chat_is_joined_as_the_server_would_have_sent_it() {
    assert_eq!(
        whole(&fixture("openai-chat-stop-stream.sse")),
        json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Héllo\n"}, "logprobs": null, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11, "prompt_tokens_details": {"cached_tokens": 4}}})
    );
    let tools = whole(&fixture("openai-chat-tools-stream.sse"));
    assert_eq!(
        tools["choices"][0]["message"],
        json!({"role": "assistant", "content": null, "reasoning": "let me", "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
            {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": "{}"}}]})
    );
    let n2 = whole(&fixture("vllm-chat-n2-logprobs.sse"));
    assert_eq!(n2["choices"][0]["message"]["content"], "eds some");
    assert_eq!(n2["choices"][0]["logprobs"]["content"].as_array().unwrap().len(), 2);
    assert_eq!(n2["choices"][1]["finish_reason"], "length");
    assert_eq!(whole(&fixture("llamacpp-chat-stream.sse"))["timings"]["prompt_n"], 15);
}

#[test]
fn streamed_messages_and_lines_are_joined_as_the_server_would_have_sent_them() {
    assert_eq!(
        whole(&fixture("anthropic-messages-stream.sse")),
        json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "tool_use", "stop_sequence": null,
            "content": [
                {"type": "thinking", "thinking": "why", "signature": "c2ln"},
                {"type": "text", "text": "Because."},
                {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}}],
            "usage": {"input_tokens": 3, "cache_read_input_tokens": 5, "output_tokens": 7}})
    );
    let mut chat: Value = serde_json::from_str(include_str!("fixtures/written/ollama-chat.json")).unwrap();
    chat["created_at"] = "2026-08-21T10:00:00.5Z".into();
    assert_eq!(whole(&fixture("ollama-chat-stream.ndjson")), chat);
    let generate: Value =
        serde_json::from_str(include_str!("fixtures/written/ollama-generate.json")).unwrap();
    assert_eq!(whole(&fixture("ollama-generate-stream.ndjson")), generate);
}

#[test]
fn a_whole_chat_is_streamed_as_sdks_expect() {
    let answer = fixture("openai-chat.json");
    let stream = rendered(&answer, WITH_USAGE);
    let chunks = documents(Api::ChatCompletions, &stream);
    assert!(
        chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == "chatcmpl-1")
    );
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let last = &chunks[chunks.len() - 2]["choices"][0];
    assert_eq!((&last["delta"], &last["finish_reason"]), (&json!({}), &json!("stop")));
    assert_eq!(chunks.last().unwrap()["choices"], json!([]));
    assert!(stream.ends_with("data: [DONE]\n\n"));
    assert_eq!(
        documents(Api::ChatCompletions, &rendered(&answer, WITHOUT_USAGE)),
        chunks[..chunks.len() - 1]
    );
}

#[test]
fn the_usage_chunk_is_replayed_only_for_who_asks() {
    for path in ["vllm-chat-stream.sse", "llamacpp-chat-stream.sse", "openai-chat-stop-stream.sse"] {
        let answer = fixture(path);
        let with = documents(Api::ChatCompletions, &rendered(&answer, WITH_USAGE));
        let without = documents(Api::ChatCompletions, &rendered(&answer, WITHOUT_USAGE));
        assert_eq!(without, with[..with.len() - 1], "{path}");
    }
}

#[test]
fn embeddings_are_replayed_as_they_came() {
    for (api, text) in [
        (Api::Embeddings, include_str!("fixtures/written/openai-embeddings.json")),
        (Api::OllamaEmbed, include_str!("fixtures/written/ollama-embed.json")),
    ] {
        let answer = read(api, Form::Whole, text.as_bytes()).unwrap();
        let answer = Answer::decode(&answer.encode()).unwrap();
        for rendering in [Rendering::Whole, WITH_USAGE] {
            let body = rendered(&answer, rendering);
            assert_eq!(
                serde_json::from_str::<Value>(&body).unwrap(),
                serde_json::from_str::<Value>(text).unwrap()
            );
            assert!(api == Api::Embeddings || body.contains("0.010,-2e-3"), "lexemes are kept");
        }
        assert_eq!(answer.storable(), Ok(()));
    }
}

#[test]
fn only_natural_stops_without_tool_calls_are_storable() {
    for (path, expected) in [
        ("openai-chat-stop-stream.sse", Ok(())),
        ("openai-chat.json", Ok(())),
        ("openai-completions.json", Ok(())),
        ("ollama-chat-stream.ndjson", Ok(())),
        ("ollama-generate.json", Ok(())),
        ("anthropic-messages.json", Ok(())),
        ("llamacpp-chat-stream.sse", Err(Skip::Length)),
        ("llamacpp-messages-stream.sse", Err(Skip::Length)),
        ("vllm-chat-n2-logprobs.sse", Err(Skip::Length)),
        ("openai-chat-tools.json", Err(Skip::ToolCalls)),
        ("openai-chat-tools-stream.sse", Err(Skip::ToolCalls)),
        ("anthropic-messages-tools.json", Err(Skip::ToolCalls)),
        ("anthropic-messages-stream.sse", Err(Skip::ToolCalls)),
    ] {
        assert_eq!(fixture(path).storable(), expected, "{path}");
    }
    let tools = include_bytes!("fixtures/written/ollama-chat-tools.json");
    assert_eq!(read(Api::OllamaChat, Form::Whole, tools).unwrap().storable(), Err(Skip::ToolCalls));
    let filtered = br#"{"choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"content_filter"}]}"#;
    assert_eq!(
        read(Api::ChatCompletions, Form::Whole, filtered).unwrap().storable(),
        Err(Skip::FinishReason)
    );
}

#[test]
fn usage_is_read_in_every_dialect() {
    let usage =
        |input, output, cached| Usage { input_tokens: input, output_tokens: output, cached_tokens: cached };
    assert_eq!(fixture("openai-chat.json").usage(), usage(Some(12), Some(3), Some(8)));
    assert_eq!(fixture("ollama-chat-stream.ndjson").usage(), usage(Some(11), Some(3), None));
    assert_eq!(fixture("anthropic-messages.json").usage(), usage(Some(10), Some(7), Some(5)));
    assert_eq!(fixture("openai-chat-stop-stream.sse").text(), "Héllo\n");
}

#[test]
fn errors_and_cut_answers_are_no_answers() {
    use AnswerError::{Incomplete, UpstreamError};
    let chat = Api::ChatCompletions;
    let check = |api, form, text: &str, expected: AnswerError| {
        assert_eq!(read(api, form, text.as_bytes()).unwrap_err(), expected, "{text}");
    };
    check(chat, Form::Stream, include_str!("fixtures/written/openai-error-stream.sse"), UpstreamError);
    check(
        Api::OllamaGenerate,
        Form::Stream,
        include_str!("fixtures/written/ollama-error-stream.ndjson"),
        UpstreamError,
    );
    check(
        Api::Messages,
        Form::Stream,
        include_str!("fixtures/written/anthropic-error-stream.sse"),
        UpstreamError,
    );
    check(chat, Form::Whole, r#"{"error":{"message":"no"}}"#, UpstreamError);
    check(Api::OllamaChat, Form::Whole, r#"{"error":"no"}"#, UpstreamError);
    check(Api::Messages, Form::Whole, r#"{"type":"error","error":{}}"#, UpstreamError);
    check(Api::OllamaChat, Form::Whole, r#"{"message":{},"done":false}"#, Incomplete);
    for (api, form, text, path) in FIXTURES.into_iter().filter(|fixture| fixture.1 == Form::Stream) {
        let last = text.trim_end().rfind('\n').unwrap();
        assert_eq!(read(api, form, &text.as_bytes()[..last]), Err(Incomplete), "{path}");
    }
    let mut reader = AnswerReader::new(chat, Form::Whole, 3);
    assert_eq!(reader.feed(b"{\"a\""), Err(AnswerError::TooLarge { limit: 3 }));
    assert_eq!(reader.feed(b""), Err(AnswerError::TooLarge { limit: 3 }));
    assert!(matches!(read(chat, Form::Whole, b"<html>"), Err(AnswerError::Malformed { .. })));
    assert!(matches!(read(chat, Form::Whole, b"{}"), Err(AnswerError::Malformed { .. })));
    assert!(matches!(read(Api::Messages, Form::Whole, b"{}"), Err(AnswerError::Malformed { .. })));
}

#[test]
fn an_answer_of_very_many_fields_or_parts_is_refused() {
    let members: Vec<String> = (0..20_000).map(|at| format!("\"k{at}\":1")).collect();
    let fields =
        format!(r#"{{"choices":[{{"finish_reason":"stop","message":{{"x":1}}}}],{}}}"#, members.join(","));
    let calls = "{},".repeat(20_000);
    let calls =
        format!(r#"{{"choices":[{{"finish_reason":"stop","message":{{"tool_calls":[{calls}{{}}]}}}}]}}"#);
    for text in [fields, calls] {
        let error = read(Api::ChatCompletions, Form::Whole, text.as_bytes()).unwrap_err();
        assert_eq!(error, AnswerError::Malformed { reason: "too many fields" });
    }
}

#[test]
fn records_of_other_versions_or_cut_ones_are_refused() {
    let record = fixture("openai-chat.json").encode();
    assert_eq!(Answer::decode(&[9]), Err(DecodeError::Version(9)));
    for end in 0..record.len() {
        assert_eq!(Answer::decode(&record[..end]), Err(DecodeError::Damaged));
    }
}

proptest! {
    #[test]
    fn any_split_gives_the_same_answer(which in 0..FIXTURES.len(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let (api, form, text, _) = FIXTURES[which];
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
        cuts.sort_unstable();
        let mut reader = AnswerReader::new(api, form, BYTES_MAX);
        let mut at = 0;
        for cut in cuts.into_iter().chain([text.len()]) {
            reader.feed(&text.as_bytes()[at..cut]).expect("valid");
            at = cut;
        }
        prop_assert_eq!(reader.finish(), read(api, form, text.as_bytes()));
    }

    #[test]
    fn any_pieces_survive_every_rendering(pieces in prop::collection::vec(any::<String>(), 1..6)) {
        let chunk = |delta: Value, finish: Value| format!("data: {}\n\n", json!({"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}));
        let mut stream: String = pieces.iter().map(|piece| chunk(json!({"content": piece}), Value::Null)).collect();
        stream.push_str(&chunk(json!({}), "stop".into()));
        stream.push_str("data: [DONE]\n\n");
        let answer = read(Api::ChatCompletions, Form::Stream, stream.as_bytes()).expect("valid");
        let answer = Answer::decode(&answer.encode()).expect("just encoded");
        prop_assert_eq!(answer.text(), pieces.concat());
        prop_assert_eq!(documents(Api::ChatCompletions, &rendered(&answer, WITH_USAGE)), documents(Api::ChatCompletions, &stream));
        prop_assert_eq!(&whole(&answer)["choices"][0]["message"]["content"], &Value::from(pieces.concat()));
    }

    #[test]
    fn mutated_answers_and_records_never_panic(which in 0..FIXTURES.len(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let (api, form, text, _) = FIXTURES[which];
        let mutate = |bytes: &mut Vec<u8>| for (at, byte) in &edits {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        };
        let mut bytes = text.as_bytes().to_vec();
        mutate(&mut bytes);
        let answers = [read(api, form, &bytes).ok(), read(api, form, text.as_bytes()).ok().and_then(|answer| {
            let mut record = answer.encode();
            mutate(&mut record);
            Answer::decode(&record).ok()
        })];
        for answer in answers.into_iter().flatten() {
            let _ = (answer.render(Rendering::Whole), answer.render(WITH_USAGE), answer.usage(), answer.text(), answer.storable());
            prop_assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
    }

    #[test]
    fn random_records_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Answer::decode(&[&[1], bytes.as_slice()].concat());
    }
}
