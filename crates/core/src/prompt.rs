//! A request's body, understood: what is asked, what of it makes the key, and how it goes upstream.
//!
//! Made by `refrain-llm`, which alone knows wire formats; plain data for everybody else.

use bytes::Bytes;

use crate::{Api, Bypass, ExactOnly};

/// A parsed inference request.
///
/// `partition_body` plus `embed_text` hold exactly what makes two requests the same question; what is in neither
/// (`stream`, `stream_options`, `user`, `metadata`, ...) can't change the answer's meaning.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Which API it came by.
    pub api: Api,
    /// The model as the client named it. Not part of `partition_body`: the *effective* model is keyed apart.
    pub model: String,
    /// Whether the client wants a stream (the dialect's default applied).
    pub stream: bool,
    /// Whether a streaming client asked for usage; always true where the dialect always reports it.
    pub include_usage: bool,
    /// Canonical JSON of the keyed body: keys sorted, number lexemes kept, without `model`, without the fields that are
    /// out of the key, and with a placeholder where `embed_text` stood.
    pub partition_body: Bytes,
    /// The last user message, if semantic look-up may compare it; else why it may not.
    pub embed_text: Result<String, ExactOnly>,
    /// Why nothing of this request may be looked up or stored, if so.
    pub bypass: Option<Bypass>,
    /// Whether the request offers tools to the model.
    pub offers_tools: bool,
    /// Whether sampling may give another answer next time (temperature absent or above zero).
    pub sampled: bool,
    /// Number of messages (1 for prompts without messages).
    pub message_count: u32,
}

/// Token counts as the upstream reported them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input_tokens: Option<u64>,
    /// Tokens of the answer.
    pub output_tokens: Option<u64>,
    /// Tokens of the prompt that the upstream found in its own prefix cache.
    pub cached_tokens: Option<u64>,
}
