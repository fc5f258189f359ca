use refrain_core::{Dialect, Usage};

use super::UsageObserver;
use crate::answer::Form;

const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\":{\"}}],\"usage\":null}\n\n\
    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n\
    data: [DONE]\n\n";
const MESSAGES: &str = "event: message_start\r\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5,\"cache_read_input_tokens\":2,\"output_tokens\":1}}}\r\n\r\n\
    event: content_block_start\r\ndata: {\"type\":\"content_block_start\",\"content_block\":{\"usage\":{\"output_tokens\":99}}}\r\n\r\n\
    event: message_delta\r\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":9}}\r\n\r\n";
const RESPONSES: &str = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"usage\":{\"input_tokens\":8,\"input_tokens_details\":{\"cached_tokens\":1},\"output_tokens\":2}}}\n\n";
const LINES: &str = "{\"message\":{\"content\":\"eval_count\"},\"done\":false}\n\
    {\"message\":{\"tool_calls\":[{\"function\":{\"arguments\":{\"eval_count\":50}}}]},\"done\":true,\"prompt_eval_count\":11,\"eval_count\":6}\n";
const WHOLE: &str = "{\"choices\":[{\"message\":{\"content\":\"\\\\\\\"usage\\\":{\",\n\"usage\":{\"prompt_tokens\":90}}}],\n  \"usage\" : { \"prompt_tokens\": 12, \"completion_tokens\": 4 } }";

fn usage(input: u64, output: u64, cached: Option<u64>) -> Usage {
    Usage { input_tokens: Some(input), output_tokens: Some(output), cached_tokens: cached }
}

fn observed(dialect: Dialect, form: Form, pieces: &[&[u8]]) -> UsageObserver {
    let mut observer = UsageObserver::new(dialect, form);
    pieces.iter().for_each(|piece| observer.feed(piece));
    observer
}

#[test]
fn usage_is_found_in_every_dialect_however_the_answer_is_cut() {
    let cases = [
        (Dialect::OpenAi, Form::Stream, STREAM, usage(7, 3, Some(4))),
        (Dialect::Anthropic, Form::Stream, MESSAGES, usage(7, 9, Some(2))),
        (Dialect::OpenAi, Form::Stream, RESPONSES, usage(8, 2, Some(1))),
        (Dialect::Ollama, Form::Stream, LINES, usage(11, 6, None)),
        (Dialect::OpenAi, Form::Whole, WHOLE, usage(12, 4, None)),
        (Dialect::Ollama, Form::Whole, LINES.lines().last().unwrap(), usage(11, 6, None)),
    ];
    for (dialect, form, text, expected) in cases {
        for size in 1..=text.len() {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(observed(dialect, form, &pieces).usage(), expected, "{text} by {size}");
        }
    }
}

#[test]
fn an_answer_that_breaks_off_is_counted_by_its_events() {
    let half = &STREAM[..STREAM.find("data: {\"choices\":[],").unwrap()];
    let observer = observed(Dialect::OpenAi, Form::Stream, &[half.as_bytes()]);
    assert_eq!((observer.usage(), observer.passed_tokens()), (Usage::default(), 1));
    assert_eq!(observed(Dialect::Anthropic, Form::Stream, &[MESSAGES.as_bytes()]).passed_tokens(), 3);
    assert_eq!(observed(Dialect::Ollama, Form::Stream, &[LINES.as_bytes()]).passed_tokens(), 2);
    assert_eq!(observed(Dialect::OpenAi, Form::Whole, &[&[b'x'; 40]]).passed_tokens(), 10);
}

#[test]
fn nothing_of_a_long_or_malformed_answer_is_kept() {
    let mut observer = UsageObserver::new(Dialect::OpenAi, Form::Whole);
    observer.feed(b"{\"usage\":{\"prompt_tokens\":\"");
    for _ in 0..1000 {
        observer.feed(&[b'9'; 1000]);
    }
    observer.feed(b"]]]}}}}\"},:{,,\"");
    assert!(format!("{observer:?}").len() < 1000);
    assert_eq!(observer.usage(), Usage::default());
}
