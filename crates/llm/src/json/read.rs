//! The reader: one pass over the text, recursion bounded by the depth limit.

use std::ops::Range;

use super::document::{Document, Kind, Node, Outline};
use super::escape::{decode_string, unit};
use super::scan::plain_run;
use super::tag::Tag;

/// Recursion never goes deeper than this, whatever the caller's limit: it must fit a thread's stack.
const DEPTH_CEILING: usize = 512;
/// Objects up to this size compare names pairwise; larger ones sort them.
const PAIRWISE_MEMBERS_MAX: usize = 12;

/// Bounds of one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Deepest nesting of arrays and objects; at most 512 counts.
    pub depth_max: usize,
    /// Most values and names.
    pub nodes_max: usize,
}

/// Room that most texts need no more of: for the values of a short one, and how many bytes a value has in a long one.
const NODES_EXPECTED: usize = 16;
const NODE_BYTES_EXPECTED: usize = 32;

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ErrorKind {
    /// The text ends within a value.
    #[error("unexpected end")]
    UnexpectedEnd,
    /// A byte that can't stand here.
    #[error("unexpected character")]
    UnexpectedByte,
    /// Something follows the value.
    #[error("trailing data")]
    TrailingData,
    /// A number that JSON doesn't allow (`01`, `1.`, `+1`, ...).
    #[error("malformed number")]
    Number,
    /// A raw control character in a string.
    #[error("control character in a string")]
    ControlCharacter,
    /// An unknown or cut escape.
    #[error("malformed escape")]
    Escape,
    /// Half of a surrogate pair.
    #[error("lone surrogate")]
    LoneSurrogate,
    /// Not UTF-8.
    #[error("invalid utf-8")]
    Utf8,
    /// Nested deeper than the limit.
    #[error("nested too deep")]
    TooDeep,
    /// More values than the limit, or 4 GiB of text.
    #[error("too many values")]
    TooLarge,
    /// A name occurs twice in one object.
    #[error("duplicate field")]
    Duplicate,
}

/// Where and why reading failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct Error {
    /// What is wrong.
    pub kind: ErrorKind,
    /// Byte offset into the text. For a duplicate: where a second name starts.
    pub offset: usize,
}

impl Error {
    /// Of bytes that aren't text.
    pub fn of_utf8(error: std::str::Utf8Error) -> Self {
        Self { kind: ErrorKind::Utf8, offset: error.valid_up_to() }
    }
}

/// Reads one JSON text.
///
/// # Errors
/// Anything that RFC 8259 doesn't allow, a duplicate name, a lone surrogate, or a limit that is passed.
pub fn read<'a>(bytes: &'a [u8], limits: Limits) -> Result<Document<'a>, Error> {
    read_text(std::str::from_utf8(bytes).map_err(Error::of_utf8)?, limits)
}

/// Reads one JSON text that is known to be UTF-8.
///
/// # Errors
/// As [`read`].
pub fn read_text<'a>(text: &'a str, limits: Limits) -> Result<Document<'a>, Error> {
    let bytes = text.as_bytes();
    if u32::try_from(bytes.len()).is_err() {
        return Err(Error { kind: ErrorKind::TooLarge, offset: 0 });
    }
    let nodes_expected = bytes.len() / NODE_BYTES_EXPECTED + NODES_EXPECTED;
    let nodes = Vec::with_capacity(nodes_expected.min(limits.nodes_max));
    let depth_left = limits.depth_max.min(DEPTH_CEILING);
    let mut reader = Reader { text, bytes, at: 0, depth_left, nodes_max: limits.nodes_max, nodes };
    match reader.document() {
        Ok(()) => Ok(Document { text, outline: Outline { nodes: reader.nodes } }),
        Err(kind) => Err(Error { kind, offset: reader.at }),
    }
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    /// The next byte; after an error, where it is.
    at: usize,
    depth_left: usize,
    nodes_max: usize,
    nodes: Vec<Node>,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<(), ErrorKind> {
        self.value()?;
        if self.token().is_some() { Err(ErrorKind::TrailingData) } else { Ok(()) }
    }

    fn unexpected(&self) -> ErrorKind {
        if self.at < self.bytes.len() { ErrorKind::UnexpectedByte } else { ErrorKind::UnexpectedEnd }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Goes to the next byte that isn't white space, and looks at it.
    fn token(&mut self) -> Option<u8> {
        loop {
            match self.peek() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other,
            }
        }
    }

    fn value(&mut self) -> Result<(), ErrorKind> {
        match self.token() {
            Some(b'"') => self.string(),
            Some(b'{') => self.container(Kind::Object),
            Some(b'[') => self.container(Kind::Array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", Kind::Bool),
            Some(b'f') => self.word(b"false", Kind::Bool),
            Some(b'n') => self.word(b"null", Kind::Null),
            _ => Err(self.unexpected()),
        }
    }

    fn refuse_too_many(&self) -> Result<(), ErrorKind> {
        if self.nodes.len() < self.nodes_max { Ok(()) } else { Err(ErrorKind::TooLarge) }
    }

    /// Notes what ends here and has nothing within it.
    #[inline]
    fn leaf(&mut self, node: Node) {
        let (end, next) = (self.at as u32, self.nodes.len() as u32 + 1);
        self.nodes.push(Node { end, next, ..node });
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Result<(), ErrorKind> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(ErrorKind::UnexpectedByte);
        }
        self.refuse_too_many()?;
        let node = Node::starting(kind, self.at);
        self.at += word.len();
        self.leaf(node);
        Ok(())
    }

    fn digits(&mut self) -> bool {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at > start
    }

    fn number(&mut self) -> Result<(), ErrorKind> {
        self.refuse_too_many()?;
        let node = Node::starting(Kind::Number, self.at);
        self.number_lexeme().ok_or(ErrorKind::Number)?;
        self.leaf(node);
        Ok(())
    }

    fn number_lexeme(&mut self) -> Option<()> {
        self.at += usize::from(self.peek() == Some(b'-'));
        let leading_zero = self.peek() == Some(b'0');
        let integer = self.at;
        if !self.digits() || (leading_zero && self.at > integer + 1) {
            return None;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits().then_some(())?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits().then_some(())?;
        }
        Some(())
    }

    fn string(&mut self) -> Result<(), ErrorKind> {
        self.refuse_too_many()?;
        let start = self.at;
        let (kind, is_canonical) = self.string_lexeme()?;
        self.leaf(Node { is_canonical, ..Node::starting(kind, start) });
        Ok(())
    }

    /// Its kind, and whether it is written as the canonical form has it; false if that takes a closer look.
    #[inline]
    fn string_lexeme(&mut self) -> Result<(Kind, bool), ErrorKind> {
        self.at += 1;
        self.plain_run();
        let form = match self.peek() {
            Some(b'"') => (Kind::PlainString, true),
            _ => (Kind::EscapedString, self.escaped()?),
        };
        self.at += 1;
        Ok(form)
    }

    /// Goes to the next byte that doesn't stand for itself, or to the end.
    #[inline]
    fn plain_run(&mut self) {
        self.at += plain_run(&self.bytes[self.at..]);
    }

    /// Goes from a string's first escape to its end. As in [`Reader::string_lexeme`]: whether all are written canonically.
    #[inline(never)]
    fn escaped(&mut self) -> Result<bool, ErrorKind> {
        let mut is_canonical = true;
        loop {
            match self.peek() {
                Some(b'"') => return Ok(is_canonical),
                Some(b'\\') => is_canonical &= self.escape()?,
                Some(_) => return Err(ErrorKind::ControlCharacter),
                None => return Err(ErrorKind::UnexpectedEnd),
            }
            self.plain_run();
        }
    }

    fn escape(&mut self) -> Result<bool, ErrorKind> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                return Ok(true);
            }
            Some(b'/') => self.at += 2,
            Some(b'u') => self.unicode_escape()?,
            _ => return Err(ErrorKind::Escape),
        }
        Ok(false)
    }

    fn unicode_escape(&mut self) -> Result<(), ErrorKind> {
        let first = unit(self.bytes, self.at).ok_or(ErrorKind::Escape)?;
        let units = match first {
            0xD800..0xDC00 if matches!(unit(self.bytes, self.at + 6), Some(0xDC00..0xE000)) => 2,
            0xD800..0xE000 => return Err(ErrorKind::LoneSurrogate),
            _ => 1,
        };
        self.at += 6 * units;
        Ok(())
    }

    fn container(&mut self, kind: Kind) -> Result<(), ErrorKind> {
        if self.depth_left == 0 {
            return Err(ErrorKind::TooDeep);
        }
        self.refuse_too_many()?;
        let index = self.nodes.len();
        self.nodes.push(Node::starting(kind, self.at));
        self.depth_left -= 1;
        self.at += 1;
        if kind == Kind::Object {
            self.object_inside()?
        } else {
            self.array_inside()?
        }
        self.depth_left += 1;
        let next = self.nodes.len() as u32;
        let node = &mut self.nodes[index];
        (node.end, node.next) = (self.at as u32, next);
        Ok(())
    }

    fn array_inside(&mut self) -> Result<(), ErrorKind> {
        if self.token() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value()?;
            if self.ends(b']')? {
                return Ok(());
            }
        }
    }

    fn object_inside(&mut self) -> Result<(), ErrorKind> {
        if self.token() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let first_name = self.nodes.len();
        let (mut seen, mut may_repeat) = (0, false);
        loop {
            let bit = self.name()?.bit();
            may_repeat |= seen & bit != 0;
            seen |= bit;
            self.value()?;
            if self.ends(b'}')? {
                break;
            }
        }
        // Names are different where their bits are.
        if may_repeat { self.refuse_duplicates(first_name) } else { Ok(()) }
    }

    fn name(&mut self) -> Result<Tag, ErrorKind> {
        if self.token() != Some(b'"') {
            return Err(self.unexpected());
        }
        self.refuse_too_many()?;
        let start = self.at;
        let (kind, is_canonical) = self.string_lexeme()?;
        let tag = self.tag(kind, start + 1..self.at - 1);
        self.leaf(Node { is_canonical, tag, ..Node::starting(kind, start) });
        if self.token() != Some(b':') {
            return Err(self.unexpected());
        }
        self.at += 1;
        Ok(tag)
    }

    /// Of a name with this between its quotes.
    #[inline]
    fn tag(&self, kind: Kind, inside: Range<usize>) -> Tag {
        match kind {
            Kind::EscapedString => Tag::of(decode_string(&self.text[inside], usize::MAX).as_bytes()),
            _ => Tag::of(&self.bytes[inside]),
        }
    }

    /// After an element: true at the closing bracket, false after a comma.
    fn ends(&mut self, close: u8) -> Result<bool, ErrorKind> {
        let token = self.token();
        if token != Some(close) && token != Some(b',') {
            return Err(self.unexpected());
        }
        self.at += 1;
        Ok(token == Some(close))
    }

    fn refuse_duplicates(&mut self, first_name: usize) -> Result<(), ErrorKind> {
        let count = self.names(first_name).count();
        let twin = if count <= PAIRWISE_MEMBERS_MAX {
            self.twin_pairwise(first_name)
        } else {
            self.twin_sorted(first_name, count)
        };
        let Some(start) = twin else { return Ok(()) };
        self.at = start as usize;
        Err(ErrorKind::Duplicate)
    }

    /// The names of the object that was read last.
    fn names(&self, first: usize) -> impl Iterator<Item = &Node> {
        let mut at = first;
        std::iter::from_fn(move || {
            let [name, value, ..] = self.nodes.get(at..)? else { return None };
            at = value.next as usize;
            Some(name)
        })
    }

    fn twin_pairwise(&self, first: usize) -> Option<u32> {
        let decoded = |name: &Node| name.decoded(self.text);
        let same = |a: &Node, b: &Node| a.tag == b.tag && decoded(a) == decoded(b);
        let has_twin = |at: usize, name: &Node| self.names(first).take(at).any(|earlier| same(earlier, name));
        let mut names = self.names(first).enumerate();
        names.find(|(at, name)| has_twin(*at, name)).map(|(_, name)| name.start)
    }

    fn twin_sorted(&self, first: usize, count: usize) -> Option<u32> {
        let mut sorted = Vec::with_capacity(count);
        sorted.extend(self.names(first).map(|name| (name.decoded(self.text), name.start)));
        sorted.sort_unstable();
        sorted.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| pair[1].1)
    }
}
