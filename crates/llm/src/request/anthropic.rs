//! Anthropic's Messages requests.

use refrain_core::Bypass;

use super::error::ParseError;
use super::fields::Fields;
use super::question::{Comparable, Conversation, Question, asks_structure};

/// `POST /v1/messages`.
pub(super) fn messages(fields: Fields<'_>) -> Result<Question<'_>, ParseError> {
    let messages = fields.required(fields.array("messages")?, "messages", "an array")?;
    let conversation = Conversation::read(messages)?;
    fields.text_or_array("system")?;
    let offers_tools = fields.is_filled("tools") || fields.is_filled("mcp_servers");
    let output_format = fields.any("output_config").and_then(|config| config.member("format"));
    let comparable = Comparable {
        offers_tools,
        tool_messages: conversation.has_tool_messages,
        structured: asks_structure(fields.any("output_format"))
            || asks_structure(output_format.filter(|format| !format.is_null())),
        logprobs: false,
        many_choices: false,
        text: conversation.text,
    };
    // A container is a sandbox that the upstream keeps between requests.
    let stateful = fields.any("container").map(|_| Bypass::Stateful);
    Ok(Question {
        stream: fields.boolean("stream")?.unwrap_or(false),
        include_usage: true,
        embed: comparable.verdict(),
        bypass: stateful.or(conversation.bypass),
        offers_tools,
        sampled: fields.number("temperature")?.is_none_or(|temperature| temperature > 0.0),
        message_count: conversation.count,
        has_tool_messages: conversation.has_tool_messages,
    })
}
