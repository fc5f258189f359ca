//! Ollama's native requests. Streams are on by default, and a request that asks nothing loads or unloads the model.

use refrain_core::{Bypass, ExactOnly};

use super::error::ParseError;
use super::fields::Fields;
use super::media;
use super::question::{Comparable, Conversation, Question, asks_structure};
use crate::json::Value;

/// `POST /api/chat`.
pub(super) fn chat(fields: Fields<'_>) -> Result<Question<'_>, ParseError> {
    let messages = fields.array("messages")?;
    let conversation = messages.map(Conversation::read).transpose()?;
    let count = conversation.as_ref().map_or(0, |conversation| conversation.count);
    let has_tool_messages = conversation.as_ref().is_some_and(|conversation| conversation.has_tool_messages);
    let offers_tools = fields.is_filled("tools");
    let comparable = Comparable {
        offers_tools,
        tool_messages: has_tool_messages,
        structured: asks_structure(fields.any("format")),
        logprobs: asks_logprobs(fields),
        many_choices: false,
        text: conversation.as_ref().map_or(Err(ExactOnly::Empty), |conversation| conversation.text),
    };
    Ok(Question {
        stream: fields.boolean("stream")?.unwrap_or(true),
        include_usage: true,
        embed: comparable.verdict(),
        bypass: load_or_unload(fields, count == 0)
            .or(conversation.and_then(|conversation| conversation.bypass)),
        offers_tools,
        sampled: is_sampled(fields)?,
        message_count: count,
        has_tool_messages,
    })
}

/// `POST /api/generate`.
pub(super) fn generate(fields: Fields<'_>) -> Result<Question<'_>, ParseError> {
    let prompt = fields.string("prompt")?;
    let suffix = fields.string("suffix")?;
    let is_empty = prompt.is_none_or(|prompt| prompt.is_empty());
    // A raw prompt carries the model's own template and may end within an assistant's turn.
    let is_plain = !fields.is_filled("images")
        && suffix.is_none_or(|suffix| suffix.is_empty())
        && !fields.boolean("raw")?.unwrap_or(false);
    let comparable = Comparable {
        offers_tools: false,
        tool_messages: false,
        structured: asks_structure(fields.any("format")),
        logprobs: asks_logprobs(fields),
        many_choices: false,
        text: match fields.any("prompt") {
            Some(prompt) if is_plain => Ok(prompt),
            None if is_plain => Err(ExactOnly::Empty),
            _ => Err(ExactOnly::NotText),
        },
    };
    Ok(Question {
        stream: fields.boolean("stream")?.unwrap_or(true),
        include_usage: true,
        embed: comparable.verdict(),
        bypass: load_or_unload(fields, is_empty).or(fields.any("images").and_then(media::images_bypass)),
        offers_tools: false,
        sampled: is_sampled(fields)?,
        message_count: 1,
        has_tool_messages: false,
    })
}

/// `POST /api/embed`.
pub(super) fn embed(fields: Fields<'_>) -> Result<Question<'_>, ParseError> {
    let input = fields.text_or_array("input")?;
    let is_empty = input.is_none_or(|input| matches!(input.raw(), "\"\"") || is_empty_array(input));
    Ok(Question {
        stream: false,
        include_usage: true,
        embed: Err(ExactOnly::Api),
        bypass: load_or_unload(fields, is_empty),
        offers_tools: false,
        sampled: false,
        message_count: 1,
        has_tool_messages: false,
    })
}

fn is_empty_array(value: Value<'_>) -> bool {
    value.as_str().is_none() && value.elements().next().is_none()
}

fn asks_logprobs(fields: Fields<'_>) -> bool {
    fields.is_on("logprobs") || fields.is_on("top_logprobs")
}

fn is_sampled(fields: Fields<'_>) -> Result<bool, ParseError> {
    let temperature = match fields.within("options")? {
        Some(options) => options.number("temperature")?,
        None => None,
    };
    Ok(temperature.is_none_or(|temperature| temperature > 0.0))
}

/// An empty question loads the model; `keep_alive: 0` unloads it after the answer, which a hit would not do.
fn load_or_unload(fields: Fields<'_>, asks_nothing: bool) -> Option<Bypass> {
    let unloads = fields.any("keep_alive").is_some_and(is_zero_duration);
    (asks_nothing || unloads).then_some(Bypass::LoadUnload)
}

/// Zero as a number, or as a Go duration (`"0"`, `"0s"`, `"0m0s"`).
fn is_zero_duration(value: Value<'_>) -> bool {
    match (value.as_number(), value.as_str()) {
        (Some(lexeme), _) => lexeme.parse() == Ok(0.0),
        (None, Some(text)) => text.contains('0') && !text.contains(|c: char| ('1'..='9').contains(&c)),
        (None, None) => false,
    }
}
