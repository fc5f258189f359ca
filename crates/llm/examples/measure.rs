//! Prints what parsing a 600-byte chat request and handling its answer cost: `cargo run --release --example measure`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring program")]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use refrain_core::Api;
use refrain_llm::answer::{Answer, AnswerReader, Form, Rendering};
use refrain_llm::request::{ParseLimits, parse};

const BATCHES: u32 = 400;
const ROUNDS: u32 = 50;
const STREAM: &[u8] = include_bytes!("../tests/fixtures/written/openai-chat-stop-stream.sse");

fn main() {
    let question = "What is the capital of France, and how many people live there today?\\n".repeat(5);
    let body = Bytes::from(format!(
        r#"{{"model":"llama3.1:8b","messages":[{{"role":"system","content":"You are a helpful assistant. Answer briefly."}},{{"role":"user","content":"{question}"}}],"temperature":0.7,"stream":true,"max_tokens":256}}"#
    ));
    let limits = ParseLimits::default();
    measure(&format!("parse {} bytes", body.len()), || parse(Api::ChatCompletions, &body, &limits).unwrap());
    let read = || {
        let mut reader = AnswerReader::new(Api::ChatCompletions, Form::Stream, 1 << 20);
        reader.feed(STREAM).unwrap();
        reader.finish().unwrap()
    };
    measure("read a stream of 5 chunks", read);
    let record = read().encode();
    measure("decode and replay it", || {
        Answer::decode(&record).unwrap().render(Rendering::Stream { include_usage: true })
    });
    measure("decode and join it", || Answer::decode(&record).unwrap().render(Rendering::Whole));
}

/// The best batch: what the work costs when nothing else has the core.
fn measure<T>(what: &str, mut run: impl FnMut() -> T) {
    let mut best = f64::INFINITY;
    for _ in 0..BATCHES {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            black_box(run());
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
    }
    println!("{what}: {best:.2} us");
}
