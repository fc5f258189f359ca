//! The writer: one canonical text for every way of writing the same document.

use std::borrow::Cow;

use super::document::{Kind, Value};

/// Appends `value` in canonical form: no white space, object names sorted by their decoded bytes, every string escaped
/// minimally in one way, numbers exactly as they were written.
pub fn canonical(value: Value<'_>, out: &mut String) {
    canonical_less(value, Cut::default(), out);
}

/// The same less what is cut.
pub fn canonical_less<'d>(value: Value<'d>, cut: Cut<'_, 'd>, out: &mut String) {
    Canonical { document: value, cut, members: Vec::new(), out }.value(value);
}

/// Values that are left out of a canonical text, wherever they lie.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cut<'c, 'd> {
    /// Which, in the order of the text.
    pub values: &'c [Value<'d>],
    /// What is written in the place of each. Begins with `@`, as no canonical value does.
    pub mark: &'c str,
}

/// Appends the canonical form of those members of an object that `keep` names, less what is cut.
pub fn canonical_members<'d>(
    object: Value<'d>,
    keep: impl Fn(&str, Value<'d>) -> bool,
    cut: Cut<'_, 'd>,
    out: &mut String,
) {
    let mut writer = Canonical { document: object, cut, members: Vec::new(), out };
    for (name, value) in object.raw_members() {
        if keep(&text(name), value) {
            writer.members.push((name.place(), value.place()));
        }
    }
    writer.sorted_object(0);
}

/// Appends `text` as a JSON string. Only what must be escaped is, with a short escape where JSON has one.
pub fn string(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = first_escape(rest.as_bytes()) {
        out.push_str(&rest[..at]);
        escape(rest.as_bytes()[at], out);
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

/// Where the first byte stands that must be escaped. Whole chunks are looked at first: that is vector code.
fn first_escape(bytes: &[u8]) -> Option<usize> {
    const CHUNK: usize = 32;
    let (chunks, _) = bytes.as_chunks::<CHUNK>();
    let is_plain = |chunk: &&[u8; CHUNK]| !chunk.iter().fold(false, |found, byte| found | must_escape(*byte));
    let plain = CHUNK * chunks.iter().take_while(is_plain).count();
    bytes[plain..].iter().position(|byte| must_escape(*byte)).map(|at| plain + at)
}

fn must_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn escape(byte: u8, out: &mut String) {
    let short = match byte {
        b'"' => "\\\"",
        b'\\' => "\\\\",
        b'\n' => "\\n",
        b'\r' => "\\r",
        b'\t' => "\\t",
        0x08 => "\\b",
        0x0C => "\\f",
        _ => {
            const HEX: [char; 16] =
                ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
            out.push_str("\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 0xF)]);
            return;
        }
    };
    out.push_str(short);
}

struct Canonical<'c, 'd, 'o> {
    /// Any value of the document.
    document: Value<'d>,
    cut: Cut<'c, 'd>,
    /// Places of the members of the objects that are being written, innermost last: one allocation for a whole document.
    members: Vec<(u32, u32)>,
    out: &'o mut String,
}

impl<'d> Canonical<'_, 'd, '_> {
    fn value(&mut self, value: Value<'d>) {
        if self.cut.values.binary_search_by_key(&value.place(), |cut| cut.place()).is_ok() {
            self.out.push_str(self.cut.mark);
            return;
        }
        match value.kind() {
            Kind::Object => self.object(value),
            Kind::Array => self.array(value),
            Kind::EscapedString => string(&text(value), self.out),
            Kind::Null | Kind::Bool | Kind::Number | Kind::PlainString => self.out.push_str(value.raw()),
        }
    }

    fn array(&mut self, array: Value<'d>) {
        self.out.push('[');
        for (at, element) in array.elements().enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            self.value(element);
        }
        self.out.push(']');
    }

    fn object(&mut self, object: Value<'d>) {
        let outer = self.members.len();
        self.members.extend(object.raw_members().map(|(name, value)| (name.place(), value.place())));
        self.sorted_object(outer);
    }

    /// Writes the members from `outer` on, and forgets them.
    fn sorted_object(&mut self, outer: usize) {
        let document = self.document;
        self.members[outer..].sort_by(|(a, _), (b, _)| text(document.at(*a)).cmp(&text(document.at(*b))));
        self.out.push('{');
        for at in outer..self.members.len() {
            let (name, value) = self.members[at];
            if at > outer {
                self.out.push(',');
            }
            self.value(document.at(name));
            self.out.push(':');
            self.value(document.at(value));
        }
        self.out.push('}');
        self.members.truncate(outer);
    }
}

fn text(name: Value<'_>) -> Cow<'_, str> {
    name.as_str().unwrap_or_default()
}
