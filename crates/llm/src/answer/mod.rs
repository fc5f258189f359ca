//! Answers: what an upstream sends, whole or streamed, as one record that renders either way.
//!
//! A record keeps what the answer says (choices, parts, usage, every other field) and how the upstream cut it, so that
//! it is replayed as it came; the other form is written as a server of the dialect would have sent it.

mod anthropic;
mod encode;
mod encoded;
mod frame;
mod judge;
mod ndjson;
mod ollama;
mod openai;
mod plain;
mod reader;
mod record;
mod render;
mod sse;

use refrain_core::{Api, Dialect, Skip};

pub use encode::DecodeError;
pub use encoded::{Encoded, as_it_came};
pub use reader::AnswerReader;
pub use record::{Answer, Choice, Fields, Part, PartKind};

/// How an upstream's answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON object.
    Whole,
    /// Server-sent events or NDJSON, as the dialect has it.
    Stream,
}

/// How an answer is to be written for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rendering {
    /// One JSON object.
    Whole,
    /// A stream. Embeddings have none and are rendered whole.
    Stream {
        /// Whether an OpenAI stream ends with its usage chunk. The other dialects always report usage.
        include_usage: bool,
    },
}

/// Why an upstream's answer can't become a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Longer than the reader's limit.
    #[error("the answer is longer than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// It ended without the dialect's terminator.
    #[error("the answer ended before its terminator")]
    Incomplete,
    /// It is not what the dialect says.
    #[error("the answer is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: &'static str,
    },
    /// The upstream reported a failure with status 200.
    #[error("the upstream reported an error within its answer")]
    UpstreamError,
}

impl AnswerError {
    /// The reason for not storing.
    pub fn skip(&self) -> Skip {
        match self {
            Self::TooLarge { .. } => Skip::TooLarge,
            Self::Incomplete => Skip::Incomplete,
            Self::Malformed { .. } | Self::UpstreamError => Skip::Malformed,
        }
    }
}

/// The `content-type` of a rendering.
pub fn content_type(api: Api, rendering: Rendering) -> &'static str {
    let streams = !matches!(api, Api::Embeddings | Api::OllamaEmbed);
    match (rendering, api.dialect()) {
        (Rendering::Stream { .. }, Dialect::Ollama) if streams => "application/x-ndjson",
        (Rendering::Stream { .. }, Dialect::OpenAi | Dialect::Anthropic) if streams => "text/event-stream",
        _ => "application/json",
    }
}
