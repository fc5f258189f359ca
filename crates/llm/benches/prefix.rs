//! Hashing the beginnings of a conversation of 32 KiB: what a request pays for prefix affinity.

#![allow(clippy::expect_used, reason = "a benchmark")]

use bytes::Bytes;
use divan::Bencher;
use divan::counter::BytesCount;
use refrain_core::Api;
use refrain_llm::request::{ParseLimits, parse};
use serde_json::{Value, json};

const BODY_BYTES: usize = 32 * 1024;

fn main() {
    divan::main();
}

/// By the length of a message.
#[divan::bench(args = [256, 2048, 16 * 1024], sample_size = 100)]
fn beginnings(bencher: Bencher<'_, '_>, message_bytes: usize) {
    let body = conversation(message_bytes);
    let count = BytesCount::new(body.len());
    let request = parse(Api::ChatCompletions, &body, &ParseLimits::default()).expect("it is well-formed");
    bencher.counter(count).bench_local(|| divan::black_box(&request).beginnings(7));
}

fn conversation(message_bytes: usize) -> Bytes {
    let text = "the quick brown fox jumps over the lazy dog. ".repeat(message_bytes / 45 + 1);
    let roles = ["user", "assistant"].into_iter().cycle();
    let messages: Vec<Value> = roles
        .take(BODY_BYTES / message_bytes)
        .map(|role| json!({"role": role, "content": &text[..message_bytes]}))
        .collect();
    json!({"model": "gemma", "messages": messages}).to_string().into()
}
