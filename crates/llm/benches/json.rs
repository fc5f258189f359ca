//! Reading requests and whole answers of the sizes that are usual: what a miss pays for JSON.

#![allow(clippy::expect_used, reason = "a benchmark")]

use bytes::Bytes;
use divan::Bencher;
use divan::counter::BytesCount;
use refrain_core::Api;
use refrain_llm::answer::{AnswerReader, Encoded, Form};
use refrain_llm::request::{ParseLimits, ParsedRequest, parse};

/// Prose with what is escaped in it: line ends, quotes, a character beyond ASCII.
const PROSE: &str = "When a number is asked for, give it first and explain it after.\nSay \"I do not know\" where \
                     nothing is known; prefer short words \u{2014} and no more of them than are needed. ";

fn main() {
    divan::main();
}

#[divan::bench(args = [600, 60 * 1024], sample_size = 100)]
fn request(bencher: Bencher<'_, '_>, bytes: usize) {
    let body = request_of(bytes);
    bencher.counter(BytesCount::new(body.len())).bench_local(|| parsed(divan::black_box(&body)));
}

#[divan::bench(args = [1024, 20 * 1024], sample_size = 100)]
fn answer(bencher: Bencher<'_, '_>, bytes: usize) {
    let body = answer_of(bytes);
    bencher.counter(BytesCount::new(body.len())).bench_local(|| judged(divan::black_box(&body)));
}

fn parsed(body: &Bytes) -> ParsedRequest {
    parse(Api::ChatCompletions, body, &ParseLimits::default()).expect("it is well-formed")
}

fn judged(body: &[u8]) -> Encoded {
    let mut reader = AnswerReader::new(Api::ChatCompletions, Form::Whole, usize::MAX);
    reader.feed(body).expect("no limit");
    reader.finish_encoded().expect("it is well-formed")
}

fn request_of(bytes: usize) -> Bytes {
    let system = prose(bytes.saturating_sub(300));
    format!(
        r#"{{"model":"gemma","messages":[{{"role":"system","content":{system}}},{{"role":"user","content":"How do I keep a proxy from holding a request back while it reads the body?"}}],"temperature":0.7,"max_tokens":256,"stream":false}}"#
    )
    .into()
}

fn answer_of(bytes: usize) -> Bytes {
    let content = prose(bytes.saturating_sub(400));
    format!(
        r#"{{"id":"chatcmpl-6b0e8f1c","object":"chat.completion","created":1795299724,"model":"gemma","choices":[{{"index":0,"message":{{"role":"assistant","content":{content},"refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":120,"completion_tokens":150,"total_tokens":270,"prompt_tokens_details":{{"cached_tokens":64}}}},"system_fingerprint":"fp_6b0e8f1c"}}"#
    )
    .into()
}

/// So many characters of it as a JSON string.
fn prose(bytes: usize) -> String {
    serde_json::Value::from(PROSE.chars().cycle().take(bytes).collect::<String>()).to_string()
}
