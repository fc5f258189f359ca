//! Reading Anthropic's answers: a whole message, or the events that build one block by block.

use std::borrow::Cow;

use super::frame::Frame;
use super::reader::{Builder, malformed};
use super::record::PartKind;
use super::{AnswerError, Form};
use crate::json::{Kind, Value};

impl Builder {
    /// One event of a stream; false if it is none of the answer's (a ping).
    pub(super) fn anthropic_event(
        &mut self,
        root: Value<'_>,
        frame: &mut Frame,
    ) -> Result<bool, AnswerError> {
        let kind = root.member("type").and_then(Value::as_str).ok_or(malformed("an event without type"))?;
        if kind == "ping" {
            return Ok(false);
        }
        let place = self.choice(0);
        let index = root.member("index").and_then(Value::as_u64).unwrap_or_default();
        frame.literal("{");
        for (name, value) in root.members() {
            frame.key(&name);
            match (&*kind, &*name, value.kind()) {
                ("message_start", "message", Kind::Object) => self.anthropic_message(value, frame)?,
                ("content_block_start", "content_block", Kind::Object) => {
                    self.anthropic_block(place, index, value, frame)?;
                }
                ("content_block_delta", "delta", Kind::Object) => {
                    self.anthropic_delta(place, index, value, frame)?;
                }
                ("message_delta", "delta", Kind::Object) => self.anthropic_message(value, frame)?,
                ("message_delta", "usage", Kind::Object) => self.anthropic_usage(value, frame),
                _ => frame.value(value),
            }
        }
        frame.literal("}");
        self.terminated |= kind == "message_stop";
        Ok(true)
    }

    /// A message: whole, as it starts, or the changes at its end.
    pub(super) fn anthropic_message(
        &mut self,
        message: Value<'_>,
        frame: &mut Frame,
    ) -> Result<(), AnswerError> {
        let place = self.choice(0);
        frame.literal("{");
        for (name, value) in message.members() {
            frame.key(&name);
            match (&*name, value.kind()) {
                ("content", Kind::Array) => {
                    frame.literal("[");
                    for (at, block) in value.elements().enumerate() {
                        frame.literal(if at > 0 { "," } else { "" });
                        self.anthropic_block(place, at as u64, block, frame)?;
                    }
                    frame.literal("]");
                }
                ("usage", Kind::Object) => self.anthropic_usage(value, frame),
                ("role", _) => {
                    self.choices[place].role = value.as_str().map(Cow::into_owned);
                    frame.value(value);
                }
                ("stop_reason", _) => {
                    self.choices[place].finish = value.as_str().map(Cow::into_owned);
                    frame.value(value);
                }
                _ => {
                    self.head.set(&name, value);
                    frame.value(value);
                }
            }
        }
        frame.literal("}");
        Ok(())
    }

    fn anthropic_usage(&mut self, usage: Value<'_>, frame: &mut Frame) {
        let known = self.usage.get_or_insert_default();
        usage.members().for_each(|(name, value)| known.set(&name, value));
        frame.raw(usage);
    }

    fn anthropic_block(
        &mut self,
        place: usize,
        index: u64,
        block: Value<'_>,
        frame: &mut Frame,
    ) -> Result<(), AnswerError> {
        let kind = block.member("type").and_then(Value::as_str).ok_or(malformed("a block without type"))?;
        let part_kind = match &*kind {
            "text" => PartKind::Text,
            "thinking" => PartKind::Reasoning,
            kind if is_tool_use(kind) => PartKind::ToolCall,
            _ => PartKind::Other,
        };
        let part = self.choices[place].part(part_kind, &kind, index);
        frame.literal("{");
        for (name, value) in block.members() {
            frame.key(&name);
            match (&*name, value.as_str()) {
                ("type", _) => frame.value(value),
                ("text" | "thinking", Some(text)) => {
                    frame.piece(&mut self.choices, place, (part_kind, &kind, index), &text);
                }
                ("input", None) if part_kind == PartKind::ToolCall => {
                    if self.form == Form::Whole {
                        self.choices[place].parts[part].text = super::record::compact(value);
                    }
                    frame.value(value);
                }
                _ => {
                    self.choices[place].parts[part].fields.set(&name, value);
                    frame.value(value);
                }
            }
        }
        frame.literal("}");
        Ok(())
    }

    fn anthropic_delta(
        &mut self,
        place: usize,
        index: u64,
        delta: Value<'_>,
        frame: &mut Frame,
    ) -> Result<(), AnswerError> {
        let found = self.choices[place].parts.iter().position(|part| part.index == index);
        let part = found.ok_or(malformed("a delta of a block that has not begun"))?;
        let (kind, name) =
            (self.choices[place].parts[part].kind, self.choices[place].parts[part].name.clone());
        frame.literal("{");
        for (field, value) in delta.members() {
            frame.key(&field);
            let fields = &mut self.choices[place].parts[part].fields;
            match (&*field, value.as_str()) {
                ("type", _) => frame.value(value),
                ("text" | "thinking" | "partial_json", Some(text)) => {
                    frame.piece(&mut self.choices, place, (kind, &name, index), &text);
                }
                ("citation", None) => {
                    fields.push_element("citations", value);
                    frame.value(value);
                }
                _ => {
                    fields.set(&field, value);
                    frame.value(value);
                }
            }
        }
        frame.literal("}");
        Ok(())
    }
}

/// Whether a block of this type calls a tool, the client's or the server's.
pub(super) fn is_tool_use(kind: &str) -> bool {
    kind.ends_with("tool_use")
}
