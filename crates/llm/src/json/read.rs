//! The reader: one pass over the text, recursion bounded by the depth limit.

use std::borrow::Cow;

use super::document::{Document, Kind, Node, Outline};

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

/// Room for the names of nested objects, and for the values of a short text, so that most need no more.
const NAMES_EXPECTED: usize = 16;
const NODES_EXPECTED: usize = 16;

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
    let nodes = Vec::with_capacity(bytes.len() / 16 + NODES_EXPECTED);
    let depth_left = limits.depth_max.min(DEPTH_CEILING);
    let names = Vec::with_capacity(NAMES_EXPECTED);
    let mut reader = Reader { text, bytes, at: 0, depth_left, nodes_max: limits.nodes_max, nodes, names };
    reader.value()?;
    reader.skip_space();
    if reader.at < bytes.len() {
        return Err(reader.error(ErrorKind::TrailingData));
    }
    Ok(Document { text, outline: Outline { nodes: reader.nodes } })
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth_left: usize,
    nodes_max: usize,
    nodes: Vec<Node>,
    /// Name nodes of the objects that are open, innermost last.
    names: Vec<u32>,
}

impl Reader<'_> {
    fn error(&self, kind: ErrorKind) -> Error {
        Error { kind, offset: self.at }
    }

    fn unexpected(&self) -> Error {
        let kind =
            if self.at < self.bytes.len() { ErrorKind::UnexpectedByte } else { ErrorKind::UnexpectedEnd };
        self.error(kind)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Result<(), Error> {
        self.skip_space();
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{') => self.container(Kind::Object),
            Some(b'[') => self.container(Kind::Array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Kind::Bool),
            Some(b'f') => self.word("false", Kind::Bool),
            Some(b'n') => self.word("null", Kind::Null),
            _ => Err(self.unexpected()),
        }
    }

    fn open(&mut self, kind: Kind) -> Result<usize, Error> {
        let index = self.nodes.len();
        if index >= self.nodes_max {
            return Err(self.error(ErrorKind::TooLarge));
        }
        self.nodes.push(Node { kind, start: self.at as u32, end: 0, next: 0 });
        Ok(index)
    }

    fn close(&mut self, index: usize) {
        let next = self.nodes.len() as u32;
        let node = &mut self.nodes[index];
        node.end = self.at as u32;
        node.next = next;
    }

    fn word(&mut self, word: &str, kind: Kind) -> Result<(), Error> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.error(ErrorKind::UnexpectedByte));
        }
        let index = self.open(kind)?;
        self.at += word.len();
        self.close(index);
        Ok(())
    }

    fn digits(&mut self) -> bool {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at > start
    }

    fn number(&mut self) -> Result<(), Error> {
        let index = self.open(Kind::Number)?;
        self.number_lexeme().ok_or_else(|| self.error(ErrorKind::Number))?;
        self.close(index);
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

    fn string(&mut self) -> Result<(), Error> {
        let index = self.open(Kind::PlainString)?;
        self.at += 1;
        loop {
            self.plain_run()?;
            match self.peek() {
                Some(b'"') => break,
                Some(_) => self.escape()?,
                None => return Err(self.unexpected()),
            }
            self.nodes[index].kind = Kind::EscapedString;
        }
        self.at += 1;
        self.close(index);
        Ok(())
    }

    /// Goes to the next quote or backslash, or to the end.
    fn plain_run(&mut self) -> Result<(), Error> {
        let rest = &self.bytes[self.at..];
        let (run, ends) = short_plain_run(rest);
        self.at += run;
        if ends && rest[run] >= b' ' {
            return Ok(());
        }
        let rest = &rest[run..];
        let run = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        self.refuse_controls(run)?;
        self.at += run;
        Ok(())
    }

    fn refuse_controls(&self, run: usize) -> Result<(), Error> {
        let run = &self.bytes[self.at..self.at + run];
        // No early exit: the compiler turns this into vector code.
        if !run.iter().fold(false, |found, byte| found | (*byte < 0x20)) {
            return Ok(());
        }
        let offset = run.iter().position(|byte| *byte < 0x20).unwrap_or_default();
        Err(Error { kind: ErrorKind::ControlCharacter, offset: self.at + offset })
    }

    fn escape(&mut self) -> Result<(), Error> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => self.unicode_escape()?,
            _ => return Err(self.error(ErrorKind::Escape)),
        }
        Ok(())
    }

    fn unicode_escape(&mut self) -> Result<(), Error> {
        let first = hex4(self.bytes, self.at).ok_or_else(|| self.error(ErrorKind::Escape))?;
        let units = match first {
            0xD800..0xDC00 if matches!(hex4(self.bytes, self.at + 6), Some(0xDC00..0xE000)) => 2,
            0xD800..0xE000 => return Err(self.error(ErrorKind::LoneSurrogate)),
            _ => 1,
        };
        self.at += 6 * units;
        Ok(())
    }

    fn container(&mut self, kind: Kind) -> Result<(), Error> {
        if self.depth_left == 0 {
            return Err(self.error(ErrorKind::TooDeep));
        }
        let index = self.open(kind)?;
        self.depth_left -= 1;
        self.at += 1;
        if kind == Kind::Object {
            self.object_inside()?
        } else {
            self.array_inside()?
        }
        self.depth_left += 1;
        self.close(index);
        Ok(())
    }

    fn array_inside(&mut self) -> Result<(), Error> {
        self.skip_space();
        if self.closes(b']') {
            return Ok(());
        }
        loop {
            self.value()?;
            if self.ends(b']')? {
                return Ok(());
            }
        }
    }

    fn object_inside(&mut self) -> Result<(), Error> {
        let outer_names = self.names.len();
        self.skip_space();
        if self.closes(b'}') {
            return Ok(());
        }
        loop {
            self.name()?;
            self.value()?;
            if self.ends(b'}')? {
                break;
            }
        }
        self.refuse_duplicates(outer_names)?;
        self.names.truncate(outer_names);
        Ok(())
    }

    fn name(&mut self) -> Result<(), Error> {
        self.skip_space();
        if self.peek() != Some(b'"') {
            return Err(self.unexpected());
        }
        self.names.push(self.nodes.len() as u32);
        self.string()?;
        self.skip_space();
        if self.closes(b':') { Ok(()) } else { Err(self.unexpected()) }
    }

    fn closes(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// After an element: true at the closing bracket, false after a comma.
    fn ends(&mut self, close: u8) -> Result<bool, Error> {
        self.skip_space();
        if self.closes(close) {
            return Ok(true);
        }
        if self.closes(b',') { Ok(false) } else { Err(self.unexpected()) }
    }

    fn refuse_duplicates(&self, outer_names: usize) -> Result<(), Error> {
        let names = &self.names[outer_names..];
        let twin = if names.len() <= PAIRWISE_MEMBERS_MAX {
            self.twin_pairwise(names)
        } else {
            self.twin_sorted(names)
        };
        match twin {
            Some(node) => {
                let offset = self.nodes[node as usize].start as usize;
                Err(Error { kind: ErrorKind::Duplicate, offset })
            }
            None => Ok(()),
        }
    }

    fn twin_pairwise(&self, names: &[u32]) -> Option<u32> {
        let same = |a: u32, b: u32| {
            let (left, right) = (&self.nodes[a as usize], &self.nodes[b as usize]);
            if left.kind == Kind::PlainString && right.kind == Kind::PlainString {
                return self.bytes[left.start as usize..left.end as usize]
                    == self.bytes[right.start as usize..right.end as usize];
            }
            self.decoded(a) == self.decoded(b)
        };
        let pairs = names.iter().enumerate();
        pairs
            .filter(|(at, name)| names[..*at].iter().any(|earlier| same(*earlier, **name)))
            .map(|(_, n)| *n)
            .next()
    }

    fn twin_sorted(&self, names: &[u32]) -> Option<u32> {
        let mut sorted: Vec<(Cow<'_, str>, u32)> =
            names.iter().map(|name| (self.decoded(*name), *name)).collect();
        sorted.sort_unstable();
        sorted.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| pair[1].1)
    }

    fn decoded(&self, name: u32) -> Cow<'_, str> {
        let node = &self.nodes[name as usize];
        let inside = &self.text[node.start as usize + 1..node.end as usize - 1];
        if node.kind == Kind::PlainString {
            Cow::Borrowed(inside)
        } else {
            Cow::Owned(decode_string(inside, usize::MAX))
        }
    }
}

/// Bytes at the start that stand for themselves, of the first few words, and whether one that doesn't comes next. Eight at
/// a time: names and most values are too short for vector code to pay.
fn short_plain_run(bytes: &[u8]) -> (usize, bool) {
    const WORDS: usize = 4;
    let (words, _) = bytes.as_chunks::<8>();
    let mut run = 0;
    for word in words.iter().take(WORDS) {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return (run + special.trailing_zeros() as usize / 8, true);
        }
        run += 8;
    }
    (run, false)
}

/// The top bit of the first byte that is a quote, a backslash or a control character; higher ones may be wrong.
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (is(b'"') | is(b'\\') | below(word, 0x20)) & (ONES * 0x80)
}

/// The code unit of a `\uXXXX` that starts at `at`.
fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    let escape = bytes.get(at..at + 6)?;
    if !escape.starts_with(b"\\u") {
        return None;
    }
    escape[2..].iter().try_fold(0, |unit, digit| Some(unit * 16 + (*digit as char).to_digit(16)?))
}

/// Decodes the inside of a string whose escapes were checked by the reader, up to a character boundary at most
/// `bytes_max` in.
pub(super) fn decode_string(inside: &str, bytes_max: usize) -> String {
    let mut decoded = String::with_capacity(inside.len().min(bytes_max));
    let mut rest = inside;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()).filter(|_| decoded.len() < bytes_max) {
        decoded.push_str(&rest[..at]);
        let (character, length) = decode_escape(&rest.as_bytes()[at..]);
        decoded.push(character);
        rest = &rest[at + length..];
    }
    if decoded.len() < bytes_max {
        decoded.push_str(rest);
    }
    decoded.truncate(decoded.floor_char_boundary(bytes_max));
    decoded
}

/// The character of the escape at the start, and the escape's length.
fn decode_escape(escape: &[u8]) -> (char, usize) {
    let simple = match escape.get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return decode_unicode(escape),
        Some(other) => *other as char,
        None => char::REPLACEMENT_CHARACTER,
    };
    (simple, 2)
}

fn decode_unicode(escape: &[u8]) -> (char, usize) {
    let unit = hex4(escape, 0).unwrap_or(0xFFFD);
    match char::from_u32(unit) {
        Some(character) => (character, 6),
        None => {
            let low = hex4(escape, 6).unwrap_or(0xDC00);
            let scalar = 0x10000 + ((unit & 0x3FF) << 10) + (low & 0x3FF);
            (char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
        }
    }
}
