//! The writer: one canonical text for every way of writing the same document.

use std::cmp::Ordering;

use super::document::{Kind, Value};
use super::escape::pieces;
use super::scan::{is_special, plain_run};

/// Room that most requests need no more of, for the members of an object and of those within it.
const MEMBERS_EXPECTED: usize = 16;

/// Appends `value` in canonical form: no white space, object names sorted by their decoded bytes, every string escaped
/// minimally in one way, numbers exactly as they were written.
pub fn canonical(value: Value<'_>, out: &mut String) {
    canonical_less(value, Cut::default(), out);
}

/// The same less what is cut.
pub fn canonical_less<'d>(value: Value<'d>, cut: Cut<'_, 'd>, out: &mut String) {
    Canonical { document: value, cut, members: Vec::new(), out }.value(value.place());
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
    let mut members = Vec::with_capacity(MEMBERS_EXPECTED);
    for (name, value) in object.raw_members() {
        if keep(&name.as_str().unwrap_or_default(), value) {
            members.push(Member::of((name.place(), name.beginning())));
        }
    }
    Canonical { document: object, cut, members, out }.sorted_object(0);
}

/// Appends `text` as a JSON string. Only what must be escaped is, with a short escape where JSON has one.
pub fn string(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    loop {
        let (plain, special) = rest.split_at(plain_run(rest.as_bytes()));
        out.push_str(plain);
        let Some(byte) = special.as_bytes().first() else { break };
        escape(*byte, out);
        rest = &special[1..];
    }
    out.push('"');
}

/// Appends the canonical form of a string with this between its quotes, whose escapes were checked.
fn rewritten_string(inside: &str, out: &mut String) {
    out.push('"');
    for (plain, character) in pieces(inside) {
        out.push_str(plain);
        match character {
            Some(special) if special.is_ascii() && is_special(special as u8) => escape(special as u8, out),
            Some(character) => out.push(character),
            None => {}
        }
    }
    out.push('"');
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
    /// The members of the objects that are being written, innermost last: one allocation for a whole document.
    members: Vec<Member>,
    out: &'o mut String,
}

/// One member of an object, by places.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// The name's beginning, which orders most.
    beginning: u64,
    name: u32,
    value: u32,
}

impl Member {
    fn of((name, beginning): (u32, u64)) -> Self {
        Self { beginning, name, value: name + 1 }
    }

    fn compare(&self, other: &Self, document: Value<'_>) -> Ordering {
        let name = |member: &Self| document.at(member.name).as_str();
        self.beginning.cmp(&other.beginning).then_with(|| name(self).cmp(&name(other)))
    }
}

impl Canonical<'_, '_, '_> {
    fn value(&mut self, place: u32) {
        if self.is_cut(place) {
            return self.out.push_str(self.cut.mark);
        }
        let value = self.document.at(place);
        match value.kind() {
            Kind::Object => self.object(value),
            Kind::Array => self.array(value),
            _ => self.leaf(value),
        }
    }

    fn is_cut(&self, place: u32) -> bool {
        self.cut.values.binary_search_by_key(&place, |cut| cut.place()).is_ok()
    }

    fn member(&mut self, name: u32, value: u32) {
        // Most bodies have no white space: then a short value is written with its name.
        if let Some(written) = self.document.canonical_member(name)
            && !self.is_cut(value)
        {
            return self.out.push_str(written);
        }
        self.leaf(self.document.at(name));
        self.out.push(':');
        self.value(value);
    }

    fn leaf(&mut self, leaf: Value<'_>) {
        if leaf.is_canonical() {
            self.out.push_str(leaf.raw());
        } else {
            rewritten_string(leaf.inside_string().unwrap_or_default(), self.out);
        }
    }

    fn array(&mut self, array: Value<'_>) {
        self.out.push('[');
        for (at, element) in array.elements().enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            self.value(element.place());
        }
        self.out.push(']');
    }

    fn object(&mut self, object: Value<'_>) {
        let outer = self.members.len();
        self.members.extend(object.name_beginnings().map(Member::of));
        self.sorted_object(outer);
    }

    /// Writes the members from `outer` on, and forgets them.
    fn sorted_object(&mut self, outer: usize) {
        let document = self.document;
        self.members[outer..].sort_by(|a, b| a.compare(b, document));
        self.out.push('{');
        for at in outer..self.members.len() {
            let Member { name, value, .. } = self.members[at];
            if at > outer {
                self.out.push(',');
            }
            self.member(name, value);
        }
        self.out.push('}');
        self.members.truncate(outer);
    }
}
