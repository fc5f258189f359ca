//! The record of one answer: what it says, and how it was cut when it was streamed.

use refrain_core::Api;

use super::Form;
use crate::json::{self, Kind, Value};

/// Most parts of a choice, and most members of a [`Fields`]: looked through one by one, so they must stay few. An answer
/// that reaches it is refused.
pub(super) const PARTS_MAX: usize = 1024;
pub(super) const FIELDS_MAX: usize = 512;

/// One complete answer. Renders whole or streamed, in the API that it came by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub(super) api: Api,
    /// Top-level fields but choices and usage: id, model, created, fingerprint, timings, durations, ...
    pub(super) head: Fields,
    pub(super) choices: Vec<Choice>,
    pub(super) usage: Option<Fields>,
    pub(super) original: Original,
}

/// One alternative of an answer. Ollama and Anthropic answers have exactly one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The number that the upstream gave it.
    pub index: u64,
    /// The message's role.
    pub role: Option<String>,
    /// What is said, in the order in which it began.
    pub parts: Vec<Part>,
    /// Further fields of the message.
    pub message: Fields,
    /// Why it ended, in the dialect's word.
    pub finish: Option<String>,
    /// OpenAI's log probabilities by list (`content`, `refusal`, ...).
    pub logprobs: Option<Fields>,
    /// Further fields of the choice.
    pub extra: Fields,
}

/// What a part of a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PartKind {
    /// The visible answer.
    Text,
    /// Thinking.
    Reasoning,
    /// A refusal.
    Refusal,
    /// A tool call; its text is the arguments' JSON.
    ToolCall,
    /// Anything else.
    Other,
}

/// A text that grows piece by piece, with what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub kind: PartKind,
    /// The message's field, or Anthropic's block type.
    pub name: String,
    /// Which of several with the same name.
    pub index: u64,
    /// All pieces joined.
    pub text: String,
    /// Its further fields: a tool call's id and type, a block's signature.
    pub fields: Fields,
    /// Fields of a tool call's `function`, its name among them.
    pub function: Fields,
}

/// JSON members by name, each value as compact JSON text, so that nothing is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

/// How the upstream wrote the answer: its chunks with the parts' texts cut out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Original {
    pub(super) form: Form,
    pub(super) skeletons: Vec<Skeleton>,
    /// One for each chunk.
    pub(super) steps: Vec<Step>,
    /// Bytes of the raw slots in their order.
    pub(super) raw: String,
}

/// One chunk: its skeleton, and how many bytes fill each of its slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) skeleton: usize,
    pub(super) lengths: Vec<usize>,
}

/// The JSON of chunks that differ only in their slots. There is one literal more than slots.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Skeleton {
    /// The event's name; empty for none.
    pub(super) event: String,
    /// OpenAI's chunk that only reports usage.
    pub(super) reports_usage: bool,
    pub(super) literals: Vec<String>,
    pub(super) slots: Vec<Slot>,
}

/// A hole in a skeleton.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    /// The next piece of a part's text, as a JSON string.
    Piece { choice: usize, part: usize },
    /// The next raw bytes.
    Raw,
}

impl Choice {
    /// Whether the choice calls a tool, whole or in part.
    pub fn calls_tools(&self) -> bool {
        let is_filled = |raw: &str| raw.starts_with('[') && raw != "[]";
        self.parts.iter().any(|part| part.kind == PartKind::ToolCall)
            || self.message.get("tool_calls").is_some_and(is_filled)
    }

    /// Whether something of it may have been dropped for a limit.
    pub(super) fn is_full(&self) -> bool {
        let part_is_full = |part: &Part| part.fields.is_full() || part.function.is_full();
        self.parts.len() >= PARTS_MAX
            || self.message.is_full()
            || self.extra.is_full()
            || self.logprobs.as_ref().is_some_and(Fields::is_full)
            || self.parts.iter().any(part_is_full)
    }

    /// The part with this name and number, made if it isn't there; its place.
    pub(super) fn part(&mut self, kind: PartKind, name: &str, index: u64) -> usize {
        let found = self.parts.iter().position(|part| part.index == index && part.name == name);
        found.unwrap_or_else(|| {
            if self.parts.len() == PARTS_MAX {
                return PARTS_MAX - 1;
            }
            self.parts.push(Part {
                kind,
                name: name.to_owned(),
                index,
                text: String::new(),
                fields: Fields::default(),
                function: Fields::default(),
            });
            self.parts.len() - 1
        })
    }
}

impl Fields {
    /// The members of an object.
    pub(super) fn of(object: Value<'_>) -> Self {
        let mut fields = Self::default();
        for (name, value) in object.members() {
            fields.0.push((name.into_owned(), compact(value)));
        }
        fields
    }

    /// Whether no further member is taken.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= FIELDS_MAX
    }

    /// A member's JSON.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A member that is written as a plain non-negative integer.
    pub(super) fn integer(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// Sets a member; null never replaces a value.
    pub(super) fn set(&mut self, name: &str, value: Value<'_>) {
        let is_full = self.is_full();
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some(_) if value.is_null() => {}
            Some((_, known)) => *known = compact(value),
            None if is_full => {}
            None => self.0.push((name.to_owned(), compact(value))),
        }
    }

    /// Like [`Fields::set`], but an array continues the array that is there.
    pub(super) fn append(&mut self, name: &str, value: Value<'_>) {
        let known = self.0.iter_mut().find(|(known, _)| known == name).map(|(_, known)| known);
        match known.filter(|known| known.starts_with('[') && value.kind() == Kind::Array) {
            Some(array) => extend_array(array, value),
            None => self.set(name, value),
        }
    }

    /// Adds an element to the array of that name.
    pub(super) fn push_element(&mut self, name: &str, element: Value<'_>) {
        let found = self.0.iter().position(|(known, _)| known == name);
        let at = found.unwrap_or_else(|| {
            self.0.push((name.to_owned(), "[]".to_owned()));
            self.0.len() - 1
        });
        let array = &mut self.0[at].1;
        if !array.starts_with('[') {
            "[]".clone_into(array);
        }
        push_element(array, element);
    }
}

fn extend_array(array: &mut String, more: Value<'_>) {
    more.elements().for_each(|element| push_element(array, element));
}

fn push_element(array: &mut String, element: Value<'_>) {
    array.pop();
    if array.len() > 1 {
        array.push(',');
    }
    json::canonical(element, array);
    array.push(']');
}

/// A value as compact JSON.
pub(super) fn compact(value: Value<'_>) -> String {
    let mut out = String::with_capacity(value.span().len());
    json::canonical(value, &mut out);
    out
}
