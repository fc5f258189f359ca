//! What a keyed body is made of, piece by piece: so that it can be told in which of them two requests differ.
//!
//! Invariant: two bodies of one API have the same pieces if, and only if, they have the same keyed body. Not for keys
//! themselves, which are made of the body whole.

use std::fmt;

use super::{ParsedRequest, is_keyed, view};
use crate::json::{self, Cut, Kind, Value};

/// Pieces of a kind that have a name of their own; what is beyond has one together.
pub const PIECES_MAX: usize = 64;
/// Longest name of a parameter that has a piece of its own: names come from clients, and are remembered.
const NAME_BYTES_MAX: usize = 64;
/// Where messages and prompts stand.
const SAID: [&str; 3] = ["messages", "prompt", "input"];
/// Where system prompts stand beside the messages.
const SYSTEM: [&str; 2] = ["instructions", "system"];
/// Objects whose members are pieces of their own: Ollama's parameters.
const OPENED: &str = "options";

/// Where a piece stands in the body. Numbers begin at 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PieceName {
    /// A line of the system prompts, counted through all of them.
    SystemLine(u32),
    /// What of system prompts is no line of text: where they stand, their roles and other fields, lines beyond the bound.
    SystemRest,
    /// The definition of a tool; beyond the bound: of all that follow.
    Tool(u32),
    /// A message before the last; of a long conversation, the first of its name stands for all before it as well.
    Turn(u32),
    /// The text of the last message, or of the prompt.
    Question,
    /// What of the last message is no plain text.
    QuestionRest,
    /// A parameter: a top-level field, or `options.NAME`.
    Field(String),
    /// Parameters beyond the bound, and those with very long names.
    OtherFields,
}

impl fmt::Display for PieceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SystemLine(line) => write!(f, "system prompt line {line}"),
            Self::SystemRest => f.write_str("system prompt beside its lines"),
            Self::Tool(nth) => write!(f, "tool {nth}"),
            Self::Turn(nth) => write!(f, "message {nth}"),
            Self::Question => f.write_str("last message"),
            Self::QuestionRest => f.write_str("last message beside its text"),
            // As a client wrote it: it may hold anything, terminals' commands too.
            Self::Field(name) => name.escape_debug().fmt(f),
            Self::OtherFields => f.write_str("further fields"),
        }
    }
}

/// Takes each piece with its canonical text.
type Take<'t> = &'t mut dyn FnMut(PieceName, &str);

impl ParsedRequest {
    /// Gives each piece of the keyed body to `take`, each name once. Costs about as much as parsing.
    pub fn pieces(&self, take: &mut dyn FnMut(PieceName, &str)) {
        let root = self.root();
        let messages: Vec<Value<'_>> = self.said().all().collect();
        self.fields(&messages, take);
        let tools = root.member("tools").filter(|tools| tools.kind() == Kind::Array);
        joined(tools.into_iter().flat_map(Value::elements), PieceName::Tool, take);
        let (system, turns): (Vec<_>, Vec<_>) =
            messages.iter().copied().enumerate().partition(|(_, message)| is_system(*message));
        let beside = SYSTEM.into_iter().filter_map(|name| Some((name.to_owned(), root.member(name)?)));
        let within = system.into_iter().map(|(at, message)| (at.to_string(), message));
        System::default().read(beside.chain(within), take);
        if let Some(((_, last), earlier)) = turns.split_last() {
            self::earlier(earlier, take);
            question(*last, take);
        }
    }

    /// The parameters: all that is neither said, nor system prompt, nor tool.
    fn fields(&self, messages: &[Value<'_>], take: Take<'_>) {
        let root = self.root();
        let is_told = |name: &str, value: Value<'_>| {
            SYSTEM.contains(&name)
                || (name == "tools" && value.kind() == Kind::Array)
                || (SAID.contains(&name) && holds(value, messages))
        };
        let mut fields: Vec<(String, String)> = Vec::new();
        for (name, value) in root.members().filter(|(name, value)| is_keyed(name, *value)) {
            if is_told(&name, value) {
                continue;
            }
            if name == OPENED && value.kind() == Kind::Object {
                let inner =
                    value.members().map(|(inner, value)| (format!("{OPENED}.{inner}"), canonical(value)));
                fields.extend(inner);
                fields.push((name.into_owned(), "{}".to_owned()));
            } else {
                fields.push((name.into_owned(), canonical(value)));
            }
        }
        fields.sort_unstable();
        let (mut fields, mut others): (Vec<_>, Vec<_>) =
            fields.into_iter().partition(|(name, _)| name.len() <= NAME_BYTES_MAX);
        others.extend(fields.split_off(fields.len().min(PIECES_MAX)));
        fields.into_iter().for_each(|(name, text)| take(PieceName::Field(name), &text));
        if !others.is_empty() {
            let framed = others.iter().map(|(name, text)| format!("{}:{name}={text};", name.len()));
            take(PieceName::OtherFields, &framed.collect::<String>());
        }
    }
}

/// Whether these are the messages that a field holds, or it is the prompt itself.
fn holds(value: Value<'_>, messages: &[Value<'_>]) -> bool {
    messages.first().is_some_and(|first| *first == value || value.elements().next() == Some(*first))
}

fn is_system(message: Value<'_>) -> bool {
    matches!(&*view::role(message), "system" | "developer")
}

/// Pieces by number; those beyond the bound have the number of the first of them.
fn joined<'d>(values: impl Iterator<Item = Value<'d>>, name: fn(u32) -> PieceName, take: Take<'_>) {
    let mut rest = String::new();
    for (at, value) in values.enumerate() {
        if at + 1 < PIECES_MAX {
            take(name(number(at)), &canonical(value));
        } else {
            rest.push_str(&canonical(value));
        }
    }
    if !rest.is_empty() {
        take(name(number(PIECES_MAX - 1)), &rest);
    }
}

/// Messages before the last: the latest ones each, those before them together.
fn earlier(turns: &[(usize, Value<'_>)], take: Take<'_>) {
    let (before, each) = turns.split_at(turns.len().saturating_sub(PIECES_MAX - 1));
    if let Some((last, _)) = before.last() {
        let text = before.iter().map(|(at, message)| format!("{at}:{}", canonical(*message)));
        take(PieceName::Turn(number(*last)), &text.collect::<String>());
    }
    each.iter().for_each(|(at, message)| take(PieceName::Turn(number(*at)), &canonical(*message)));
}

fn question(last: Value<'_>, take: Take<'_>) {
    let Some(text) = view::plain(last) else { return take(PieceName::QuestionRest, &canonical(last)) };
    take(PieceName::Question, &text.as_str().unwrap_or_default());
    let rest = less(last, &[text]);
    // Nearly all: nobody needs to be told of it.
    if rest != r#"{"content":@,"role":"user"}"# {
        take(PieceName::QuestionRest, &rest);
    }
}

/// The system prompts on their way to lines.
#[derive(Default)]
struct System {
    lines: u32,
    rest: String,
}

impl System {
    fn read<'d>(mut self, prompts: impl Iterator<Item = (String, Value<'d>)>, take: Take<'_>) {
        for (place, prompt) in prompts {
            let texts = texts(prompt);
            // Where lines end and prompts begin: lines alone don't say.
            let first = self.lines;
            for text in &texts {
                text.as_str().unwrap_or_default().split('\n').for_each(|line| self.line(line, take));
                self.rest.push_str(&format!("{},", self.lines - first));
            }
            self.rest.push_str(&format!("{place}={};", less(prompt, &texts)));
        }
        if !self.rest.is_empty() {
            take(PieceName::SystemRest, &self.rest);
        }
    }

    fn line(&mut self, line: &str, take: Take<'_>) {
        if (self.lines as usize) < PIECES_MAX {
            take(PieceName::SystemLine(self.lines + 1), line);
        } else {
            json::string(line, &mut self.rest);
        }
        self.lines = self.lines.saturating_add(1);
    }
}

/// The texts of a system prompt, as string values in their order.
fn texts(prompt: Value<'_>) -> Vec<Value<'_>> {
    let content = if prompt.kind() == Kind::Object { prompt.member("content") } else { Some(prompt) };
    match content {
        Some(content) if content.kind() == Kind::Array => {
            content.elements().filter_map(view::part_text).collect()
        }
        Some(content) if content.as_str_up_to(0).is_some() => vec![content],
        _ => Vec::new(),
    }
}

fn canonical(value: Value<'_>) -> String {
    less(value, &[])
}

fn less<'d>(value: Value<'d>, cut: &[Value<'d>]) -> String {
    let mut out = String::with_capacity(value.span().len());
    json::canonical_less(value, Cut { values: cut, mark: "@" }, &mut out);
    out
}

fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(test)]
#[path = "pieces_tests.rs"]
mod tests;
