//! Reading OpenAI's answers: a whole body and a chunk differ only in `message` and `delta`.

use std::borrow::Cow;

use refrain_core::Api;

use super::frame::Frame;
use super::reader::{Builder, malformed};
use super::record::{Fields, PartKind};
use super::{AnswerError, Form};
use crate::json::{Kind, Value};

/// Most choices of one answer.
pub(super) const CHOICES_MAX: usize = 128;

impl Builder {
    /// A chat or text completion, whole or a chunk.
    pub(super) fn openai(&mut self, root: Value<'_>, frame: &mut Frame) -> Result<(), AnswerError> {
        let choices = root.member("choices").filter(|choices| choices.kind() == Kind::Array);
        let usage = root.member("usage").filter(|usage| usage.kind() == Kind::Object);
        if choices.is_none() && usage.is_none() {
            return Err(malformed("neither choices nor usage"));
        }
        if usage.is_some() && choices.is_none_or(|choices| choices.elements().next().is_none()) {
            frame.mark_usage();
        }
        frame.literal("{");
        for (name, value) in root.members() {
            // Chunks of a stream that reports usage say `null` until the last: that is the asker's wish, not the answer.
            if name == "usage" && value.is_null() && self.form == Form::Stream {
                continue;
            }
            frame.key(&name);
            self.openai_member(&name, value, frame)?;
        }
        frame.literal("}");
        Ok(())
    }

    fn openai_member(&mut self, name: &str, value: Value<'_>, frame: &mut Frame) -> Result<(), AnswerError> {
        match (name, value.kind()) {
            ("choices", Kind::Array) => self.openai_choices(value, frame)?,
            ("usage", Kind::Object) => {
                self.usage = Some(Fields::of(value));
                frame.raw(value);
            }
            // Random padding.
            ("obfuscation", _) => frame.raw(value),
            _ => {
                self.head.set(name, value);
                frame.unknown(value);
            }
        }
        Ok(())
    }

    fn openai_choices(&mut self, choices: Value<'_>, frame: &mut Frame) -> Result<(), AnswerError> {
        frame.literal("[");
        for (at, choice) in choices.elements().enumerate() {
            frame.literal(if at > 0 { "," } else { "" });
            let index = choice.member("index").map_or(Some(at as u64), Value::as_u64);
            let index = index.ok_or(malformed("a choice's index is not a number"))?;
            let place = self.choice(index);
            if place >= CHOICES_MAX {
                return Err(malformed("too many choices"));
            }
            self.openai_choice(place, choice, frame);
        }
        frame.literal("]");
        Ok(())
    }

    fn openai_choice(&mut self, place: usize, choice: Value<'_>, frame: &mut Frame) {
        frame.literal("{");
        for (name, value) in choice.members() {
            frame.key(&name);
            match (&*name, value.kind()) {
                ("delta" | "message", Kind::Object) => self.openai_message(place, value, frame),
                ("logprobs", Kind::Object) => {
                    let logprobs = self.choices[place].logprobs.get_or_insert_default();
                    value.members().for_each(|(list, tokens)| logprobs.append(&list, tokens));
                    frame.raw(value);
                }
                ("index", _) => frame.value(value),
                ("finish_reason", _) => {
                    let reason = value.as_str().map(Cow::into_owned);
                    self.choices[place].finish = reason.or(self.choices[place].finish.take());
                    frame.value(value);
                }
                ("text", Kind::PlainString | Kind::EscapedString) if self.api == Api::Completions => {
                    self.text(place, "text", value, frame);
                }
                _ => {
                    self.choices[place].extra.append(&name, value);
                    frame.unknown(value);
                }
            }
        }
        frame.literal("}");
    }

    /// A message or a delta of one. Every string but the role grows from chunk to chunk.
    fn openai_message(&mut self, place: usize, message: Value<'_>, frame: &mut Frame) {
        frame.literal("{");
        for (name, value) in message.members() {
            frame.key(&name);
            match (&*name, value.kind()) {
                ("role", _) if value.as_str().is_some() => {
                    self.choices[place].role = value.as_str().map(Cow::into_owned);
                    frame.value(value);
                }
                ("tool_calls", Kind::Array) => self.openai_tool_calls(place, value, frame),
                ("function_call", Kind::Object) => {
                    let part = self.choices[place].part(PartKind::ToolCall, "function_call", 0);
                    self.openai_function(place, part, value, frame);
                }
                (_, Kind::PlainString | Kind::EscapedString) => self.text(place, &name, value, frame),
                _ => {
                    self.choices[place].message.append(&name, value);
                    frame.unknown(value);
                }
            }
        }
        frame.literal("}");
    }

    fn openai_tool_calls(&mut self, place: usize, calls: Value<'_>, frame: &mut Frame) {
        frame.literal("[");
        for (at, call) in calls.elements().enumerate() {
            frame.literal(if at > 0 { ",{" } else { "{" });
            let index = call.member("index").and_then(Value::as_u64).unwrap_or(at as u64);
            let part = self.choices[place].part(PartKind::ToolCall, "tool_calls", index);
            for (name, value) in call.members() {
                frame.key(&name);
                match (&*name, value.kind()) {
                    ("function", Kind::Object) => self.openai_function(place, part, value, frame),
                    ("index", _) => frame.value(value),
                    _ => {
                        self.choices[place].parts[part].fields.set(&name, value);
                        frame.unknown(value);
                    }
                }
            }
            frame.literal("}");
        }
        frame.literal("]");
    }

    fn openai_function(&mut self, place: usize, part: usize, function: Value<'_>, frame: &mut Frame) {
        let (part_name, index) =
            (self.choices[place].parts[part].name.clone(), self.choices[place].parts[part].index);
        frame.literal("{");
        for (name, value) in function.members() {
            frame.key(&name);
            match value.as_str() {
                Some(text) if name == "arguments" => {
                    frame.piece(&mut self.choices, place, (PartKind::ToolCall, &part_name, index), &text);
                }
                _ => {
                    self.choices[place].parts[part].function.set(&name, value);
                    frame.unknown(value);
                }
            }
        }
        frame.literal("}");
    }
}
