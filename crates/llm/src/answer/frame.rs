//! Recording: a chunk is walked once, its texts go to the choices and the rest becomes a skeleton.

use std::collections::HashMap;

use super::Form;
use super::record::{Choice, Original, PartKind, Skeleton, Slot, Step};
use crate::json::{self, Kind, Value};

/// A chunk's first literal is seldom longer, and mostly the longest.
const LITERAL_BYTES_GUESS: usize = 256;

/// A chunk that is being walked.
#[derive(Debug)]
pub(super) struct Frame {
    skeleton: Skeleton,
    lengths: Vec<usize>,
    raw: String,
    has_text: bool,
}

impl Frame {
    pub(super) fn new(event: String) -> Self {
        let literals = vec![String::with_capacity(LITERAL_BYTES_GUESS)];
        let skeleton = Skeleton { event, reports_usage: false, literals, slots: Vec::new() };
        Self { skeleton, lengths: Vec::new(), raw: String::new(), has_text: false }
    }

    /// Marks OpenAI's chunk that only reports usage.
    pub(super) fn mark_usage(&mut self) {
        self.skeleton.reports_usage = true;
    }

    /// Whether it brings a piece of a part's text.
    pub(super) fn has_text(&self) -> bool {
        self.has_text
    }

    pub(super) fn literal(&mut self, text: &str) {
        self.last().push_str(text);
    }

    /// A member's name, with a comma if it isn't the object's first.
    pub(super) fn key(&mut self, name: &str) {
        let literal = self.last();
        if !literal.ends_with('{') {
            literal.push(',');
        }
        json::string(name, literal);
        literal.push(':');
    }

    /// A value that is the same in all chunks of this shape.
    pub(super) fn value(&mut self, value: Value<'_>) {
        json::canonical(value, self.last());
    }

    /// A value that changes from chunk to chunk.
    pub(super) fn raw(&mut self, value: Value<'_>) {
        let before = self.raw.len();
        json::canonical(value, &mut self.raw);
        self.slot(Slot::Raw, self.raw.len() - before);
    }

    /// A value of an unknown field: simple ones tend to stay the same.
    pub(super) fn unknown(&mut self, value: Value<'_>) {
        if matches!(value.kind(), Kind::Array | Kind::Object) { self.raw(value) } else { self.value(value) }
    }

    /// The next piece of a part's text.
    pub(super) fn piece(
        &mut self,
        choices: &mut [Choice],
        choice: usize,
        (kind, name, index): (PartKind, &str, u64),
        text: &str,
    ) {
        let part = choices[choice].part(kind, name, index);
        choices[choice].parts[part].text.push_str(text);
        self.has_text |= !text.is_empty();
        self.slot(Slot::Piece { choice, part }, text.len());
    }

    fn last(&mut self) -> &mut String {
        if self.skeleton.literals.is_empty() {
            self.skeleton.literals.push(String::new());
        }
        let last = self.skeleton.literals.len() - 1;
        &mut self.skeleton.literals[last]
    }

    fn slot(&mut self, slot: Slot, length: usize) {
        self.skeleton.slots.push(slot);
        self.skeleton.literals.push(String::new());
        self.lengths.push(length);
    }
}

/// All chunks so far; equal skeletons are kept once.
#[derive(Debug, Default)]
pub(super) struct Recording {
    skeletons: Vec<Skeleton>,
    /// Places of the skeletons; the newest are entered when a chunk comes that is unlike the one before.
    places: HashMap<Skeleton, usize>,
    steps: Vec<Step>,
    raw: String,
}

impl Recording {
    pub(super) fn push(&mut self, frame: Frame) {
        let skeleton = self.place(frame.skeleton);
        self.steps.push(Step { skeleton, lengths: frame.lengths });
        self.raw.push_str(&frame.raw);
    }

    /// Most chunks are like the one before: that is looked at first, without hashing.
    fn place(&mut self, skeleton: Skeleton) -> usize {
        let last = self.steps.last().map(|step| step.skeleton);
        if let Some(last) = last.filter(|last| self.skeletons[*last] == skeleton) {
            return last;
        }
        for place in self.places.len()..self.skeletons.len() {
            self.places.insert(self.skeletons[place].clone(), place);
        }
        if let Some(place) = self.places.get(&skeleton) {
            return *place;
        }
        self.skeletons.push(skeleton);
        self.skeletons.len() - 1
    }

    pub(super) fn into_original(self, form: Form) -> Original {
        Original { form, skeletons: self.skeletons, steps: self.steps, raw: self.raw }
    }
}
