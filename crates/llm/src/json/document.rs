//! A document that was read: the text, a table of nodes, and cheap handles into both.

use std::borrow::Cow;
use std::ops::Range;

use super::read::decode_string;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number, kept as written.
    Number,
    /// A string without escapes: its text is what stands between the quotes.
    PlainString,
    /// A string with at least one escape.
    EscapedString,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// One value or object name: its bytes are `start..end`, and the nodes below it end before `next`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) next: u32,
}

/// Unused room of an outline that is worth giving back, in nodes.
const SPARE_NODES_MAX: usize = 4096;

/// A JSON text that was read.
#[derive(Debug)]
pub struct Document<'a> {
    pub(super) text: &'a str,
    pub(super) outline: Outline,
}

impl<'a> Document<'a> {
    /// The outermost value.
    pub fn root(&self) -> Value<'_> {
        self.outline.root(self.text)
    }

    /// The nodes alone, for whoever keeps the text.
    pub(crate) fn into_outline(self) -> Outline {
        let mut outline = self.outline;
        if outline.nodes.capacity() - outline.nodes.len() > SPARE_NODES_MAX {
            outline.nodes.shrink_to_fit();
        }
        outline
    }
}

/// The nodes of a text that is kept elsewhere: in document order; an object's children alternate name and value.
#[derive(Clone, Debug)]
pub struct Outline {
    pub(super) nodes: Vec<Node>,
}

impl Outline {
    /// The outermost value. `text` must be the very text that was read: of another, values would be nonsense.
    pub(crate) fn root<'d>(&'d self, text: &'d str) -> Value<'d> {
        Value { text, nodes: &self.nodes, node: 0 }
    }
}

/// One value of a document.
#[derive(Clone, Copy)]
pub struct Value<'d> {
    text: &'d str,
    nodes: &'d [Node],
    node: u32,
}

impl std::fmt::Debug for Value<'_> {
    /// Its place only: what it says may be long, or private.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} at {:?}", self.kind(), self.span())
    }
}

impl PartialEq for Value<'_> {
    /// Whether both are the same place of the same document.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.nodes, other.nodes) && self.node == other.node
    }
}

impl<'d> Value<'d> {
    fn entry(self) -> Node {
        self.nodes[self.node as usize]
    }

    /// The number of its place within its document: ascends in the order of the text.
    pub fn place(self) -> u32 {
        self.node
    }

    /// The value of the same document at a place that [`Value::place`] gave.
    pub(crate) fn at(self, place: u32) -> Self {
        Self { node: place, ..self }
    }

    /// What it is.
    pub fn kind(self) -> Kind {
        self.entry().kind
    }

    /// Where it stands in the text, quotes and brackets included.
    pub fn span(self) -> Range<usize> {
        let node = self.entry();
        node.start as usize..node.end as usize
    }

    /// The text as written.
    pub fn raw(self) -> &'d str {
        &self.text[self.span()]
    }

    /// Whether it is `null`.
    pub fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// The decoded text of a string up to a character boundary at most `bytes_max` in.
    pub fn as_str_up_to(self, bytes_max: usize) -> Option<Cow<'d, str>> {
        let raw = self.raw();
        match self.kind() {
            Kind::PlainString => {
                let inside = &raw[1..raw.len() - 1];
                Some(Cow::Borrowed(&inside[..inside.floor_char_boundary(bytes_max)]))
            }
            Kind::EscapedString => Some(Cow::Owned(decode_string(&raw[1..raw.len() - 1], bytes_max))),
            _ => None,
        }
    }

    /// The decoded text of a string.
    pub fn as_str(self) -> Option<Cow<'d, str>> {
        let raw = self.raw();
        match self.kind() {
            Kind::PlainString => Some(Cow::Borrowed(&raw[1..raw.len() - 1])),
            Kind::EscapedString => Some(Cow::Owned(decode_string(&raw[1..raw.len() - 1], usize::MAX))),
            _ => None,
        }
    }

    /// A boolean's value.
    pub fn as_bool(self) -> Option<bool> {
        (self.kind() == Kind::Bool).then(|| self.raw() == "true")
    }

    /// A number's lexeme.
    pub fn as_number(self) -> Option<&'d str> {
        (self.kind() == Kind::Number).then(|| self.raw())
    }

    /// A number that is written as a plain non-negative integer and fits.
    pub fn as_u64(self) -> Option<u64> {
        self.as_number()?.parse().ok()
    }

    /// The members of an object in their order; nothing for other kinds.
    pub fn members(self) -> Members<'d> {
        Members { inside: self.inside(Kind::Object) }
    }

    /// As [`Value::members`], the names as values.
    pub(crate) fn raw_members(self) -> impl Iterator<Item = (Value<'d>, Value<'d>)> + use<'d> {
        let mut members = self.members();
        std::iter::from_fn(move || members.next_raw())
    }

    /// The places of everything within it.
    pub(crate) fn inside_places(self) -> Range<u32> {
        self.node + 1..self.entry().next
    }

    /// The elements of an array in their order; nothing for other kinds.
    pub fn elements(self) -> impl Iterator<Item = Value<'d>> + use<'d> {
        self.inside(Kind::Array)
    }

    /// The value of an object's member.
    pub fn member(self, name: &str) -> Option<Value<'d>> {
        let object = self.entry();
        if object.kind != Kind::Object {
            return None;
        }
        // Over the nodes themselves: requests are asked for dozens of members that they don't have.
        let nodes = &self.nodes[..object.next as usize];
        let mut at = self.node as usize + 1;
        while let Some([key, value, ..]) = nodes.get(at..) {
            if self.says(key, name) {
                return Some(self.at(at as u32 + 1));
            }
            at = value.next as usize;
        }
        None
    }

    /// Whether an object's name is this text.
    fn says(self, name: &Node, text: &str) -> bool {
        let inside = || &self.text[name.start as usize + 1..name.end as usize - 1];
        if name.kind == Kind::EscapedString {
            return decode_string(inside(), usize::MAX) == text;
        }
        // The lengths decide most comparisons without touching the text.
        (name.end - name.start) as usize == text.len() + 2 && inside() == text
    }

    fn inside(self, kind: Kind) -> Siblings<'d> {
        let node = self.entry();
        let first = self.node + 1;
        let end = if node.kind == kind { node.next } else { first };
        Siblings { parent: self, at: first, end }
    }
}

/// The members of an object: decoded name and value.
#[derive(Clone, Debug)]
pub struct Members<'d> {
    inside: Siblings<'d>,
}

impl<'d> Members<'d> {
    /// The next member, its name as a value.
    pub(super) fn next_raw(&mut self) -> Option<(Value<'d>, Value<'d>)> {
        Some((self.inside.next()?, self.inside.next()?))
    }
}

impl<'d> Iterator for Members<'d> {
    type Item = (Cow<'d, str>, Value<'d>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.next_raw()?;
        Some((name.as_str()?, value))
    }
}

#[derive(Clone, Debug)]
struct Siblings<'d> {
    parent: Value<'d>,
    at: u32,
    end: u32,
}

impl<'d> Iterator for Siblings<'d> {
    type Item = Value<'d>;

    fn next(&mut self) -> Option<Value<'d>> {
        if self.at >= self.end {
            return None;
        }
        let value = self.parent.at(self.at);
        self.at = value.entry().next;
        Some(value)
    }
}
