//! Reading Ollama's answers: a whole body and a line of a stream have the same shape.

use std::borrow::Cow;

use refrain_core::Api;

use super::AnswerError;
use super::frame::Frame;
use super::reader::{Builder, malformed};
use crate::json::{Kind, Value};

impl Builder {
    /// A chat or generate answer, whole or a line.
    pub(super) fn ollama(&mut self, root: Value<'_>, frame: &mut Frame) -> Result<(), AnswerError> {
        let done = root.member("done").and_then(Value::as_bool).ok_or(malformed("no `done`"))?;
        let place = self.choice(0);
        frame.literal("{");
        for (name, value) in root.members() {
            frame.key(&name);
            self.ollama_member(place, &name, value, frame);
        }
        frame.literal("}");
        self.terminated |= done;
        Ok(())
    }

    fn ollama_member(&mut self, place: usize, name: &str, value: Value<'_>, frame: &mut Frame) {
        match (name, value.kind()) {
            ("message", Kind::Object) => self.ollama_message(place, value, frame),
            ("response" | "thinking", Kind::PlainString | Kind::EscapedString)
                if self.api == Api::OllamaGenerate =>
            {
                self.text(place, name, value, frame);
            }
            ("done", _) => frame.value(value),
            ("done_reason", _) => {
                self.choices[place].finish = value.as_str().map(Cow::into_owned);
                frame.value(value);
            }
            ("created_at", _) => {
                self.head.set(name, value);
                frame.raw(value);
            }
            ("logprobs" | "tool_calls", _) => {
                let choice = &mut self.choices[place];
                let fields = if name == "logprobs" { &mut choice.extra } else { &mut choice.message };
                fields.append(name, value);
                frame.raw(value);
            }
            _ => {
                self.head.set(name, value);
                frame.unknown(value);
            }
        }
    }

    fn ollama_message(&mut self, place: usize, message: Value<'_>, frame: &mut Frame) {
        frame.literal("{");
        for (name, value) in message.members() {
            frame.key(&name);
            match (&*name, value.as_str()) {
                ("role", Some(role)) => {
                    self.choices[place].role = Some(role.into_owned());
                    frame.value(value);
                }
                (_, Some(_)) => self.text(place, &name, value, frame),
                // Tool calls come whole, several lines may bring some.
                _ => {
                    self.choices[place].message.append(&name, value);
                    frame.unknown(value);
                }
            }
        }
        frame.literal("}");
    }
}
