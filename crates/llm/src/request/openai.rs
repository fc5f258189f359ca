//! OpenAI's requests, with the extra fields of vLLM and llama.cpp that matter here.

use refrain_core::{Bypass, ExactOnly};

use super::error::ParseError;
use super::fields::Fields;
use super::question::{Comparable, Conversation, Question, asks_structure};
use crate::json::Kind;

/// Fields that constrain the output's shape: `response_format` and the servers' own ways to say it.
const STRUCTURE: [&str; 9] = [
    "response_format",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "json_schema",
    "grammar",
    "audio",
];
/// Fields that ask for the tokens of the answer, or of the prompt itself.
const TOKEN_DETAILS: [&str; 5] = ["logprobs", "top_logprobs", "prompt_logprobs", "return_token_ids", "echo"];

/// `POST /v1/chat/completions`.
pub(super) fn chat(fields: Fields<'_>) -> Result<Question<'_>, ParseError> {
    let messages = fields.required(fields.array("messages")?, "messages", "an array")?;
    let conversation = Conversation::read(messages)?;
    let offers_tools = fields.is_filled("tools")
        || fields.is_filled("functions")
        || fields.any("web_search_options").is_some();
    let comparable = Comparable {
        offers_tools,
        tool_messages: conversation.has_tool_messages,
        structured: STRUCTURE.iter().any(|name| asks_structure(fields.any(name))),
        logprobs: TOKEN_DETAILS.iter().any(|name| fields.is_on(name)),
        many_choices: fields.integer("n")?.is_some_and(|n| n != "1"),
        text: match fields.boolean("continue_final_message")? {
            Some(true) => Err(ExactOnly::LastNotUser),
            _ => conversation.text,
        },
    };
    Ok(Question {
        stream: fields.boolean("stream")?.unwrap_or(false),
        include_usage: asks_usage(fields)?,
        embed: comparable.verdict(),
        bypass: stateful(fields)?.or(conversation.bypass),
        offers_tools,
        sampled: is_sampled(fields)?,
        message_count: conversation.count,
        has_tool_messages: conversation.has_tool_messages,
    })
}

/// `POST /v1/completions`.
pub(super) fn completions(fields: Fields<'_>) -> Result<Question<'_>, ParseError> {
    fields.text_or_array("prompt")?;
    fields.integer("n")?;
    Ok(Question {
        stream: fields.boolean("stream")?.unwrap_or(false),
        include_usage: asks_usage(fields)?,
        embed: Err(ExactOnly::Api),
        bypass: stateful(fields)?,
        offers_tools: false,
        sampled: is_sampled(fields)?,
        message_count: 1,
        has_tool_messages: false,
    })
}

/// `POST /v1/embeddings`.
pub(super) fn embeddings(fields: Fields<'_>) -> Result<Question<'_>, ParseError> {
    fields.text_or_array("input")?;
    Ok(Question {
        stream: false,
        include_usage: false,
        embed: Err(ExactOnly::Api),
        bypass: None,
        offers_tools: false,
        sampled: false,
        message_count: 1,
        has_tool_messages: false,
    })
}

/// `POST /v1/responses`: recognised, so that it is routed and refused like the others, but never cached.
pub(super) fn responses(fields: Fields<'_>) -> Result<Question<'_>, ParseError> {
    let input = fields.text_or_array("input")?;
    let items = input.filter(|input| input.kind() == Kind::Array).map(|items| items.elements().count());
    Ok(Question {
        stream: fields.boolean("stream")?.unwrap_or(false),
        include_usage: true,
        embed: Err(ExactOnly::Api),
        bypass: Some(Bypass::ApiNotCached),
        offers_tools: fields.is_filled("tools"),
        sampled: is_sampled(fields)?,
        message_count: items.map_or(1, |count| u32::try_from(count).unwrap_or(u32::MAX)),
        has_tool_messages: false,
    })
}

fn asks_usage(fields: Fields<'_>) -> Result<bool, ParseError> {
    match fields.within("stream_options")? {
        Some(options) => Ok(options.boolean("include_usage")?.unwrap_or(false)),
        None => Ok(false),
    }
}

fn is_sampled(fields: Fields<'_>) -> Result<bool, ParseError> {
    Ok(fields.number("temperature")?.is_none_or(|temperature| temperature > 0.0))
}

/// `store: true` asks the upstream to keep the answer under its id; the others refer to what it keeps already.
fn stateful(fields: Fields<'_>) -> Result<Option<Bypass>, ParseError> {
    let refers = fields.any("previous_response_id").is_some() || fields.any("conversation").is_some();
    let keeps = fields.boolean("store")?.unwrap_or(false);
    Ok((refers || keeps).then_some(Bypass::Stateful))
}
