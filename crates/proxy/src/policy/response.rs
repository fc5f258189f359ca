//! A finished answer as policies see it.

use std::time::Duration;

use http::header::SET_COOKIE;
use refrain_llm::answer::{Answer, Encoded};
use refrain_plugin::{ResponseSummary, ResponseView};

use crate::store::Provenance;

/// An answer that was generated, with how it came.
pub(crate) struct Answered {
    /// The answer.
    pub(crate) answer: Answer,
    /// The same, as it would be stored.
    pub(crate) encoded: Encoded,
    /// How it came.
    pub(crate) from: Provenance,
    /// How long it took.
    pub(crate) took: Duration,
}

impl ResponseView for Answered {
    fn summary(&self) -> ResponseSummary {
        let usage = self.answer.usage();
        let tokens = |count: Option<u64>| count.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        ResponseSummary {
            status: self.from.head.status.as_u16(),
            finish_reason: self.answer.finish_reason().unwrap_or_default().to_owned(),
            // What ended otherwise is no answer, and is not shown.
            complete: true,
            has_tool_calls: self.answer.has_tool_calls(),
            input_tokens: tokens(usage.input_tokens),
            output_tokens: tokens(usage.output_tokens),
            upstream: self.from.endpoint.as_str().to_owned(),
            latency_ms: u32::try_from(self.took.as_millis()).unwrap_or(u32::MAX),
            text_size: u32::try_from(self.answer.text().len()).unwrap_or(u32::MAX),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        if name.eq_ignore_ascii_case(SET_COOKIE.as_str()) {
            return None;
        }
        std::str::from_utf8(self.from.head.headers.get(name)?.as_bytes()).ok()
    }

    fn text(&self, max_bytes: u32) -> String {
        cut(self.answer.text().into_owned(), max_bytes)
    }
}

/// The text's start, to a character boundary.
pub(super) fn cut(mut text: String, max_bytes: u32) -> String {
    text.truncate(text.floor_char_boundary(max_bytes as usize));
    text
}
