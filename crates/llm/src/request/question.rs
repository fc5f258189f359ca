//! What the dialects' readers find in a body, before it becomes a [`refrain_core::Prompt`].

use refrain_core::{Bypass, ExactOnly};

use super::error::ParseError;
use super::fields::Fields;
use super::media;
use crate::json::{Kind, Value};

/// A request as its dialect's reader understands it.
#[derive(Debug)]
pub(super) struct Question<'d> {
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// The string value that semantic look-up may compare, blank or not.
    pub(super) embed: Result<Value<'d>, ExactOnly>,
    pub(super) bypass: Option<Bypass>,
    pub(super) offers_tools: bool,
    pub(super) sampled: bool,
    pub(super) message_count: u32,
    pub(super) has_tool_messages: bool,
}

/// Everything that forbids semantic look-up; the first that holds is the reason.
#[derive(Debug)]
pub(super) struct Comparable<'d> {
    pub(super) offers_tools: bool,
    pub(super) tool_messages: bool,
    pub(super) structured: bool,
    pub(super) logprobs: bool,
    pub(super) many_choices: bool,
    /// The last message's text, or why there is none.
    pub(super) text: Result<Value<'d>, ExactOnly>,
}

impl<'d> Comparable<'d> {
    pub(super) fn verdict(self) -> Result<Value<'d>, ExactOnly> {
        let reasons = [
            (self.offers_tools, ExactOnly::Tools),
            (self.tool_messages, ExactOnly::ToolMessages),
            (self.structured, ExactOnly::StructuredOutput),
            (self.logprobs, ExactOnly::Logprobs),
            (self.many_choices, ExactOnly::Choices),
        ];
        match reasons.into_iter().find(|(holds, _)| *holds) {
            Some((_, reason)) => Err(reason),
            None => self.text,
        }
    }
}

/// The `messages` of a chat, in any dialect.
#[derive(Debug)]
pub(super) struct Conversation<'d> {
    pub(super) count: u32,
    pub(super) has_tool_messages: bool,
    pub(super) bypass: Option<Bypass>,
    /// The last message's text, or why it can't be compared.
    pub(super) text: Result<Value<'d>, ExactOnly>,
}

impl<'d> Conversation<'d> {
    /// Reads an array of messages and checks the types of what is read.
    pub(super) fn read(messages: Value<'d>) -> Result<Self, ParseError> {
        let mut conversation =
            Self { count: 0, has_tool_messages: false, bypass: None, text: Err(ExactOnly::Empty) };
        for (index, message) in messages.elements().enumerate() {
            conversation.message(Fields::message(message, index)?)?;
            conversation.count = conversation.count.saturating_add(1);
        }
        Ok(conversation)
    }

    fn message(&mut self, message: Fields<'d>) -> Result<(), ParseError> {
        let role = message.required(message.string("role")?, "role", "a string")?;
        let content = message.text_or_array("content")?;
        let parts = || content.into_iter().flat_map(Value::elements);
        self.has_tool_messages |= matches!(&*role, "tool" | "function")
            || message.is_filled("tool_calls")
            || message.any("function_call").is_some()
            || parts().any(is_tool_part);
        let images = message.any("images");
        self.bypass = self
            .bypass
            .or_else(|| parts().find_map(media::part_bypass))
            .or_else(|| images.and_then(media::images_bypass))
            .or_else(|| message.any("audio").and_then(|audio| audio.member("id")).map(|_| Bypass::Stateful));
        self.text = match (&*role, content) {
            ("user", Some(content)) if !message.is_filled("images") => plain_text(content),
            ("user", None) if !message.is_filled("images") => Err(ExactOnly::Empty),
            ("user", _) => Err(ExactOnly::NotText),
            _ => Err(ExactOnly::LastNotUser),
        };
        Ok(())
    }
}

fn is_tool_part(part: Value<'_>) -> bool {
    let kind = part.member("type").and_then(Value::as_str);
    kind.is_some_and(|kind| kind.contains("tool_use") || kind.contains("tool_result"))
}

/// The text of a string, or of an array with one text part and nothing else.
pub(super) fn plain_text(content: Value<'_>) -> Result<Value<'_>, ExactOnly> {
    if content.kind() != Kind::Array {
        return Ok(content);
    }
    let mut parts = content.elements();
    let (Some(part), None) = (parts.next(), parts.next()) else { return Err(ExactOnly::NotText) };
    let is_text = part.member("type").and_then(Value::as_str).is_some_and(|kind| kind == "text");
    part.member("text").filter(|text| is_text && text.as_str().is_some()).ok_or(ExactOnly::NotText)
}

/// Whether a field asks for a structured output: there, and neither `""` nor OpenAI's `{"type":"text"}`.
pub(super) fn asks_structure(format: Option<Value<'_>>) -> bool {
    format.is_some_and(|format| {
        let is_text = |kind: Value<'_>| kind.as_str().is_some_and(|kind| kind == "text");
        format.as_str().is_none_or(|text| !text.is_empty()) && !format.member("type").is_some_and(is_text)
    })
}
