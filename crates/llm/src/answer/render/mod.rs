//! Rendering: the original form is replayed chunk by chunk, the other one is written from what the answer says.

mod anthropic;
mod ollama;
mod openai;

use bytes::Bytes;
use refrain_core::{Api, Dialect};

use super::record::{Answer, Choice, Fields, Slot, Step};
use super::{Form, Rendering};
use crate::json;

impl Answer {
    /// The body for a client.
    pub fn render(&self, rendering: Rendering) -> Bytes {
        let embeds = matches!(self.api, Api::Embeddings | Api::OllamaEmbed);
        let text = match (rendering, self.original.form, self.api.dialect()) {
            (Rendering::Whole, Form::Whole, _) => self.replay(true),
            (Rendering::Stream { .. }, Form::Whole, _) if embeds => self.replay(true),
            (Rendering::Stream { include_usage }, Form::Stream, _) => self.replay(include_usage),
            (Rendering::Whole, Form::Stream, Dialect::OpenAi) => openai::whole(self),
            (Rendering::Whole, Form::Stream, Dialect::Ollama) => ollama::whole(self),
            (Rendering::Whole, Form::Stream, Dialect::Anthropic) => anthropic::whole(self),
            (Rendering::Stream { include_usage }, Form::Whole, Dialect::OpenAi) => {
                openai::stream(self, include_usage)
            }
            (Rendering::Stream { .. }, Form::Whole, Dialect::Ollama) => ollama::stream(self),
            (Rendering::Stream { .. }, Form::Whole, Dialect::Anthropic) => anthropic::stream(self),
        };
        text.into()
    }

    /// Writes the original's chunks again, each with its own pieces.
    fn replay(&self, include_usage: bool) -> String {
        let mut replay = Replay {
            answer: self,
            at: self.choices.iter().map(|choice| vec![0; choice.parts.len()]).collect(),
            raw_at: 0,
            out: String::with_capacity(self.original.raw.len() + self.text_bytes() + 128),
        };
        for step in &self.original.steps {
            replay.step(step, include_usage);
        }
        if self.original.form == Form::Stream && self.api.dialect() == Dialect::OpenAi {
            replay.out.push_str("data: [DONE]\n\n");
        }
        replay.out
    }

    fn text_bytes(&self) -> usize {
        self.choices.iter().flat_map(|choice| &choice.parts).map(|part| part.text.len()).sum()
    }

    /// The choices in the order of their numbers.
    fn sorted_choices(&self) -> Vec<&Choice> {
        let mut choices: Vec<&Choice> = self.choices.iter().collect();
        choices.sort_by_key(|choice| choice.index);
        choices
    }
}

struct Replay<'a> {
    answer: &'a Answer,
    /// Bytes already written of each choice's parts.
    at: Vec<Vec<usize>>,
    raw_at: usize,
    out: String,
}

impl Replay<'_> {
    fn step(&mut self, step: &Step, include_usage: bool) {
        let Some(skeleton) = self.answer.original.skeletons.get(step.skeleton) else { return };
        let before = self.out.len();
        let streamed = self.answer.original.form == Form::Stream;
        let events = streamed && self.answer.api.dialect() != Dialect::Ollama;
        if !skeleton.event.is_empty() {
            self.out.extend(["event: ", &skeleton.event, "\n"]);
        }
        self.out.push_str(if events { "data: " } else { "" });
        let mut slots = skeleton.slots.iter().zip(&step.lengths);
        for literal in &skeleton.literals {
            self.out.push_str(literal);
            if let Some((slot, length)) = slots.next() {
                self.slot(*slot, *length);
            }
        }
        self.out.push_str(if events { "\n\n" } else { "" });
        self.out.push_str(if streamed && !events { "\n" } else { "" });
        if skeleton.reports_usage && !include_usage {
            self.out.truncate(before);
        }
    }

    fn slot(&mut self, slot: Slot, length: usize) {
        match slot {
            Slot::Raw => {
                let end = self.raw_at.saturating_add(length);
                self.out.push_str(self.answer.original.raw.get(self.raw_at..end).unwrap_or("null"));
                self.raw_at = end;
            }
            Slot::Piece { choice, part } => {
                let text = self.answer.choices.get(choice).and_then(|choice| choice.parts.get(part));
                let at = self.at.get_mut(choice).and_then(|parts| parts.get_mut(part));
                let (Some(part), Some(at)) = (text, at) else { return };
                let end = at.saturating_add(length);
                json::string(part.text.get(*at..end).unwrap_or_default(), &mut self.out);
                *at = end;
            }
        }
    }
}

/// Appends a member's name, with a comma if it isn't the object's first.
fn key(out: &mut String, name: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    json::string(name, out);
    out.push(':');
}

/// Appends a member whose value is JSON already.
fn member(out: &mut String, name: &str, value: &str) {
    key(out, name);
    out.push_str(value);
}

/// Appends a member with a string.
fn text_member(out: &mut String, name: &str, text: &str) {
    key(out, name);
    json::string(text, out);
}

/// Appends a member with a string, or null.
fn optional_member(out: &mut String, name: &str, text: Option<&str>) {
    match text {
        Some(text) => text_member(out, name, text),
        None => member(out, name, "null"),
    }
}

/// Appends all members.
fn members(out: &mut String, fields: &Fields) {
    fields.0.iter().for_each(|(name, value)| member(out, name, value));
}

/// Appends an object.
fn object(out: &mut String, fields: &Fields) {
    out.push('{');
    members(out, fields);
    out.push('}');
}

/// Appends `[a,b,...]`.
fn array<T>(out: &mut String, items: impl IntoIterator<Item = T>, mut item: impl FnMut(&mut String, T)) {
    out.push('[');
    for (at, next) in items.into_iter().enumerate() {
        out.push_str(if at > 0 { "," } else { "" });
        item(out, next);
    }
    out.push(']');
}
