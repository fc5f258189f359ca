//! A document that was read: the text, a table of nodes, and cheap handles into both.

use std::borrow::Cow;
use std::ops::Range;

use super::escape::decode_string;
use super::tag::Tag;

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
    /// Whether the canonical form has it as it is written here; false of what takes a closer look, and of containers.
    pub(super) is_canonical: bool,
    /// Of a name.
    pub(super) tag: Tag,
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) next: u32,
}

impl Node {
    /// One whose end isn't known yet. Numbers and words are canonical as they are written.
    pub(super) fn starting(kind: Kind, start: usize) -> Self {
        let is_canonical = matches!(kind, Kind::Null | Kind::Bool | Kind::Number);
        Self { kind, is_canonical, tag: Tag::default(), start: start as u32, end: 0, next: 0 }
    }

    /// The bytes of a string of this text, decoded.
    pub(super) fn decoded<'d>(&self, text: &'d str) -> Cow<'d, [u8]> {
        let inside = self.start as usize + 1..self.end as usize - 1;
        match self.kind {
            Kind::EscapedString => Cow::Owned(decode_string(&text[inside], usize::MAX).into_bytes()),
            _ => Cow::Borrowed(&text.as_bytes()[inside]),
        }
    }

    /// The first eight decoded bytes of a string as a number that orders as they do; zeros stand for what a shorter one lacks.
    #[inline]
    fn beginning(&self, text: &str) -> u64 {
        let written = text.as_bytes().get(self.start as usize + 1..).and_then(<[u8]>::first_chunk);
        match written {
            Some(eight) if self.kind == Kind::PlainString => {
                let length = (self.end - self.start - 2).min(8);
                let beyond = u64::MAX.checked_shr(8 * length).unwrap_or(0);
                u64::from_be_bytes(*eight) & !beyond
            }
            _ => beginning(&self.decoded(text)),
        }
    }

    /// Whether a string of this text says this. Apart, since it's seldom asked: tags tell most names apart.
    #[inline(never)]
    fn says(&self, text: &str, name: &[u8]) -> bool {
        *self.decoded(text) == *name
    }
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
        let inside = self.inside_string()?;
        Some(match self.kind() {
            Kind::EscapedString => Cow::Owned(decode_string(inside, bytes_max)),
            _ => Cow::Borrowed(&inside[..inside.floor_char_boundary(bytes_max)]),
        })
    }

    /// The decoded text of a string.
    pub fn as_str(self) -> Option<Cow<'d, str>> {
        let inside = self.inside_string()?;
        Some(match self.kind() {
            Kind::EscapedString => Cow::Owned(decode_string(inside, usize::MAX)),
            _ => Cow::Borrowed(inside),
        })
    }

    /// What is written between a string's quotes.
    pub(super) fn inside_string(self) -> Option<&'d str> {
        let node = self.entry();
        let is_string = matches!(node.kind, Kind::PlainString | Kind::EscapedString);
        is_string.then(|| &self.text[node.start as usize + 1..node.end as usize - 1])
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

    /// Whether the canonical form has it as it is written; false if that takes a closer look.
    pub(super) fn is_canonical(self) -> bool {
        self.entry().is_canonical
    }

    /// The text of the member whose name has this place in the document, if its canonical form is that: nothing but a colon
    /// lies between name and value.
    #[inline]
    pub(super) fn canonical_member(&self, name: u32) -> Option<&'d str> {
        let [name, value, ..] = self.nodes.get(name as usize..)? else { return None };
        let is_canonical = name.end + 1 == value.start && name.is_canonical && value.is_canonical;
        is_canonical.then(|| &self.text[name.start as usize..value.end as usize])
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

    /// See [`Node::beginning`].
    pub(super) fn beginning(self) -> u64 {
        self.entry().beginning(self.text)
    }

    /// The places of an object's names, in the order of the text, with their beginnings.
    pub(super) fn name_beginnings(self) -> impl Iterator<Item = (u32, u64)> {
        self.names().map(move |(at, name)| (at as u32, name.beginning(self.text)))
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
    #[inline]
    pub fn member(self, name: &str) -> Option<Value<'d>> {
        // The tag here, so that nothing is left to do of it where the name is a constant.
        self.tagged_member(Tag::of(name.as_bytes()), name.as_bytes())
    }

    fn tagged_member(self, tag: Tag, name: &[u8]) -> Option<Value<'d>> {
        let (at, _) = self.names().find(|(_, node)| node.tag == tag && node.says(self.text, name))?;
        Some(self.at(at as u32 + 1))
    }

    /// The [`Tag::bit`]s of an object's names.
    pub(crate) fn name_bits(self) -> u64 {
        self.names().fold(0, |bits, (_, name)| bits | name.tag.bit())
    }

    /// The places and nodes of an object's names; nothing for other kinds. Over the nodes themselves: requests are asked
    /// for dozens of members that they don't have.
    fn names(self) -> impl Iterator<Item = (usize, &'d Node)> + use<'d> {
        let object = self.entry();
        let end = if object.kind == Kind::Object { object.next as usize } else { 0 };
        let nodes = &self.nodes[..end];
        let mut at = self.node as usize + 1;
        std::iter::from_fn(move || {
            let [name, value, ..] = nodes.get(at..)? else { return None };
            Some((std::mem::replace(&mut at, value.next as usize), name))
        })
    }

    fn inside(self, kind: Kind) -> Siblings<'d> {
        let node = self.entry();
        let first = self.node + 1;
        let end = if node.kind == kind { node.next } else { first };
        Siblings { parent: self, at: first, end }
    }
}

#[inline(never)]
fn beginning(decoded: &[u8]) -> u64 {
    let mut eight = [0; 8];
    eight.iter_mut().zip(decoded).for_each(|(to, from)| *to = *from);
    u64::from_be_bytes(eight)
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
