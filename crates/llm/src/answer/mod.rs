//! Answers: what an upstream sends, whole or streamed, as one record that renders either way.

use bytes::Bytes;
use refrain_core::{Api, Skip, Usage};

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
    /// A stream.
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

/// Why bytes are not a stored answer of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by another version.
    #[error("the record is of version {0}")]
    Version(u8),
    /// Cut short or damaged.
    #[error("the record is damaged")]
    Damaged,
}

/// Reads an upstream's answer as it arrives. After an error every further call gives an error too.
#[derive(Debug)]
pub struct AnswerReader {}

impl AnswerReader {
    /// Reads at most `bytes_max` bytes of an answer of `api`.
    pub fn new(api: Api, form: Form, bytes_max: usize) -> Self {
        let _ = (api, form, bytes_max);
        Self {}
    }

    /// Takes the next bytes; how they are split makes no difference.
    ///
    /// # Errors
    /// See [`AnswerError`].
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), AnswerError> {
        let _ = bytes;
        Ok(())
    }

    /// Whether the dialect's terminator has been seen: nothing of meaning follows.
    pub fn is_terminated(&self) -> bool {
        false
    }

    /// The answer, once the upstream's body has ended.
    ///
    /// # Errors
    /// See [`AnswerError`]; [`AnswerError::Incomplete`] without the dialect's terminator.
    pub fn finish(self) -> Result<Answer, AnswerError> {
        Err(AnswerError::Incomplete)
    }
}

/// One complete answer. Renders whole or streamed, in the API that it came by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {}

impl Answer {
    /// The API it came by and renders in.
    pub fn api(&self) -> Api {
        Api::ChatCompletions
    }

    /// The body for a client.
    pub fn render(&self, rendering: Rendering) -> Bytes {
        let _ = rendering;
        Bytes::new()
    }

    /// Token counts as the upstream reported them.
    pub fn usage(&self) -> Usage {
        Usage::default()
    }

    /// The visible text of the first choice.
    pub fn text(&self) -> String {
        String::new()
    }

    /// Whether the answer itself may be stored: every choice came to a natural stop and none calls tools.
    ///
    /// # Errors
    /// The reason why not. Whether tools were *offered* is the caller's to check.
    pub fn storable(&self) -> Result<(), Skip> {
        Ok(())
    }

    /// The record as bytes.
    pub fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Reads what [`Answer::encode`] wrote. Never panics and never allocates more than a small multiple of the input.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        let _ = record;
        Err(DecodeError::Damaged)
    }
}

/// The `content-type` of a rendering.
pub fn content_type(api: Api, rendering: Rendering) -> &'static str {
    let _ = (api, rendering);
    "application/json"
}
