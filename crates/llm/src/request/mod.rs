//! Requests: bytes to [`Prompt`], what policies may read of them and change, and the few edits that a body may see on
//! its way upstream.
//!
//! Only fields that decide something here are checked; all others pass unseen and are part of the keyed body.

mod anthropic;
mod compared;
mod edit;
mod error;
mod fields;
mod key_part;
mod media;
mod ollama;
mod openai;
mod pieces;
mod prefix;
mod question;
mod rewrite;
mod view;

use std::sync::OnceLock;

use bytes::Bytes;
use bytestring::ByteString;
use refrain_core::{Api, ExactOnly, Prompt};

pub use compared::Compared;
pub use error::ParseError;
pub use pieces::{PIECES_MAX, PieceName};
pub use prefix::Beginnings;
pub use rewrite::Rewrite;

use crate::json::{self, Cut, Outline, Value};
use fields::Fields;
use question::Question;
use rewrite::Places;

/// Bounds of what is parsed. The body's length itself is bounded by the reader of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseLimits {
    /// Deepest nesting of arrays and objects; at most 512 counts.
    pub depth_max: usize,
    /// Most values and object names in one body. A node takes 16 bytes of memory while parsing.
    pub nodes_max: usize,
}

impl Default for ParseLimits {
    fn default() -> Self {
        Self { depth_max: 64, nodes_max: 1 << 20 }
    }
}

/// A request that was understood, with its original bytes.
#[derive(Clone, Debug)]
pub struct ParsedRequest {
    /// What is asked.
    pub prompt: Prompt,
    body: ByteString,
    /// Of `body`.
    outline: Outline,
    places: Places,
    /// The place of the text that `prompt.embed_text` holds.
    embed: Option<u32>,
    has_tool_messages: bool,
    /// Places of the messages, once somebody asked for one.
    messages: OnceLock<Box<[u32]>>,
}

impl ParsedRequest {
    /// The body to send: the client's own bytes (not copied) where nothing is rewritten, else those with only the
    /// rewritten places changed.
    pub fn upstream_body(&self, rewrite: &Rewrite) -> Bytes {
        let model = rewrite.model.as_deref().filter(|model| *model != self.prompt.model);
        self.places.apply(self.body(), model, rewrite)
    }
}

/// Reads a request body of `api`.
///
/// # Errors
/// See [`ParseError`]: the body isn't strict JSON, or a field that is read has the wrong type or is missing.
pub fn parse(api: Api, body: &Bytes, limits: &ParseLimits) -> Result<ParsedRequest, ParseError> {
    let reader_limits = json::Limits { depth_max: limits.depth_max, nodes_max: limits.nodes_max };
    let refused = |error| ParseError::of_json(error, body);
    let body = ByteString::try_from(body.clone()).map_err(|error| refused(json::Error::of_utf8(error)))?;
    let document = json::read_text(&body, reader_limits).map_err(refused)?;
    let fields = Fields::top(document.root())?;
    let model = fields.required(fields.any("model"), "model", "a string")?;
    let name = model.as_str().ok_or_else(|| fields.invalid("model", model, "a string"))?;
    if name.is_empty() {
        return Err(fields.refused("model", "a model's name", "an empty string"));
    }
    let question = read(api, fields)?;
    let usage = if question.include_usage { None } else { Places::usage_edit(api, fields) };
    let salt = fields.member("cache_salt").map(Value::span);
    let stream = fields.member("stream").map(Value::span);
    let end = document.root().span().end - 1;
    let places = Places { model: model.span(), usage, streams: question.stream, stream, end, salt };
    let has_tool_messages = question.has_tool_messages;
    let (prompt, embed) = prompt(api, name.into_owned(), question, document.root());
    let outline = document.into_outline();
    Ok(ParsedRequest { prompt, body, outline, places, embed, has_tool_messages, messages: OnceLock::new() })
}

fn read(api: Api, fields: Fields<'_>) -> Result<Question<'_>, ParseError> {
    match api {
        Api::ChatCompletions => openai::chat(fields),
        Api::Completions => openai::completions(fields),
        Api::Embeddings => openai::embeddings(fields),
        Api::Responses => openai::responses(fields),
        Api::OllamaChat => ollama::chat(fields),
        Api::OllamaGenerate => ollama::generate(fields),
        Api::OllamaEmbed => ollama::embed(fields),
        Api::Messages => anthropic::messages(fields),
    }
}

/// What is asked, and the place of the text that is compared.
fn prompt(api: Api, model: String, question: Question<'_>, root: Value<'_>) -> (Prompt, Option<u32>) {
    // Without `..`: a new field can't compile until someone decides where it belongs.
    let Question {
        stream,
        include_usage,
        embed,
        bypass,
        offers_tools,
        sampled,
        message_count,
        has_tool_messages: _, // Where they matter to the cache, `embed` says so.
    } = question;
    // Decoded once: the text may be long.
    let compared = embed.and_then(|value| match value.as_str() {
        Some(text) if !text.trim().is_empty() => Ok((value, text.into_owned())),
        _ => Err(ExactOnly::Empty),
    });
    let cut: &[Value<'_>] = compared.as_ref().map_or(&[], |(value, _)| std::slice::from_ref(value));
    let mut keyed = String::with_capacity(root.span().len());
    json::canonical_members(root, is_keyed, Cut { values: cut, mark: "@" }, &mut keyed);
    let place = compared.as_ref().ok().map(|(value, _)| value.place());
    let prompt = Prompt {
        api,
        model,
        stream,
        include_usage,
        partition_body: keyed.into(),
        embed_text: compared.map(|(_, text)| text),
        bypass,
        offers_tools,
        sampled,
        message_count,
    };
    (prompt, place)
}

/// Whether a top-level field belongs to the keyed body. What is left out can't change what the answer says.
fn is_keyed(name: &str, value: Value<'_>) -> bool {
    match name {
        // The effective model is keyed apart.
        "model" => false,
        "stream" | "stream_options" | "user" | "metadata" | "store" | "prompt_cache_key" | "request_id"
        | "keep_alive" => false,
        // It does not reach the upstream.
        "cache_salt" => false,
        // Clients send it where they mean "no tools".
        "tools" => value.kind() != json::Kind::Array || value.elements().next().is_some(),
        _ => true,
    }
}
