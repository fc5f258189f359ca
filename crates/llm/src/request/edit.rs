//! Changes of a body that policies ask for: spans are replaced or left out, everything else keeps its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use refrain_core::{Edit, EditOp};

use super::ParsedRequest;
use super::rewrite::splice;
use crate::json::{self, Kind, Value};

impl ParsedRequest {
    /// The body with edits applied; none if they change nothing. Pointers are of the body as it came, whatever edits
    /// stand before them. One that leads nowhere, or to a value of another kind than the edit is for, changes nothing; nor does
    /// an edit of what another one removes. The body as a whole can't be removed.
    ///
    /// The result is JSON, but perhaps no request any more: parse it anew.
    pub fn edited<'e>(&self, edits: impl IntoIterator<Item = &'e Edit>) -> Option<Bytes> {
        let mut changes = Changes::default();
        for edit in edits {
            changes.apply(self.root(), edit);
        }
        let splices = changes.splices(self.root());
        (!splices.is_empty()).then(|| splice(self.body(), &splices))
    }
}

/// What becomes of values, by their place.
#[derive(Debug, Default)]
struct Changes {
    removed: BTreeSet<u32>,
    replaced: BTreeMap<u32, Replacement>,
}

#[derive(Debug)]
enum Replacement {
    /// Decoded.
    Text(String),
    Number(u32),
}

impl Changes {
    fn apply(&mut self, root: Value<'_>, edit: &Edit) {
        for value in json::pointer::find_all(root, &edit.pointer) {
            match &edit.op {
                EditOp::Remove if value == root => {}
                EditOp::Remove => _ = self.removed.insert(value.place()),
                EditOp::DropLinesStarting(start) => self.drop_lines(value, start),
                EditOp::RoundUp(steps) => self.round_up(value, steps),
            }
        }
    }

    fn drop_lines(&mut self, value: Value<'_>, start: &str) {
        let before = match self.replaced.get(&value.place()) {
            Some(Replacement::Text(text)) => text.clone(),
            _ => match value.as_str() {
                Some(text) => text.into_owned(),
                None => return,
            },
        };
        let lines = before.split('\n').filter(|line| !line.starts_with(start));
        let after = lines.collect::<Vec<_>>().join("\n");
        if after != before {
            self.replaced.insert(value.place(), Replacement::Text(after));
        }
    }

    fn round_up(&mut self, value: Value<'_>, steps: &[u32]) {
        let before: f64 = match (self.replaced.get(&value.place()), value.as_number()) {
            (Some(Replacement::Number(number)), _) => f64::from(*number),
            (_, Some(lexeme)) => match lexeme.parse() {
                Ok(number) => number,
                Err(_) => return,
            },
            (_, None) => return,
        };
        let next = steps.iter().copied().filter(|step| f64::from(*step) >= before).min();
        if let Some(step) = next.filter(|step| value.raw() != step.to_string()) {
            self.replaced.insert(value.place(), Replacement::Number(step));
        }
    }

    /// The edits of the text, in its order, none within another.
    fn splices(&self, root: Value<'_>) -> Vec<(Range<usize>, String)> {
        let replaced = self.replaced.iter().filter(|(place, _)| !self.removed.contains(place));
        let replaced = replaced.map(|(place, new)| (root.at(*place).span(), new.to_json()));
        let removed = removals(root, &self.removed).into_iter().map(|span| (span, String::new()));
        let mut all: Vec<_> = replaced.chain(removed).collect();
        all.sort_by_key(|(span, _)| (span.start, std::cmp::Reverse(span.end)));
        let mut end = 0;
        all.retain(|(span, _)| {
            let stands = span.start >= end;
            end = end.max(span.end);
            stands
        });
        all
    }
}

impl Replacement {
    fn to_json(&self) -> String {
        match self {
            Self::Text(text) => {
                let mut out = String::with_capacity(text.len() + 2);
                json::string(text, &mut out);
                out
            }
            Self::Number(number) => number.to_string(),
        }
    }
}

/// The spans to leave out so that those values, their names and their commas are gone.
fn removals(root: Value<'_>, removed: &BTreeSet<u32>) -> Vec<Range<usize>> {
    let (mut spans, mut containers) = (Vec::new(), vec![root]);
    while let Some(container) = containers.pop() {
        // A container that is removed itself, or holds nothing to remove, needs no look.
        if removed.range(container.inside_places()).next().is_none() {
            continue;
        }
        let items = items(container);
        spans_of(&items, removed, &mut spans);
        containers.extend(
            items.into_iter().map(|item| item.value).filter(|value| !removed.contains(&value.place())),
        );
    }
    spans
}

/// An element, or a member with its name.
struct Item<'d> {
    span: Range<usize>,
    value: Value<'d>,
}

fn items(container: Value<'_>) -> Vec<Item<'_>> {
    if container.kind() == Kind::Array {
        return container.elements().map(|value| Item { span: value.span(), value }).collect();
    }
    let members = container.raw_members();
    members.map(|(name, value)| Item { span: name.span().start..value.span().end, value }).collect()
}

/// Each run of removed items goes with the comma before it; a run at the front, with the comma after it.
fn spans_of(items: &[Item<'_>], removed: &BTreeSet<u32>, spans: &mut Vec<Range<usize>>) {
    let mut at = 0;
    while at < items.len() {
        let is_removed = |item: &Item<'_>| removed.contains(&item.value.place());
        let run = items[at..].iter().take_while(|item| is_removed(item)).count();
        if run == 0 {
            at += 1;
            continue;
        }
        let (first, last, next) = (&items[at].span, &items[at + run - 1].span, items.get(at + run));
        spans.push(match (at.checked_sub(1).map(|before| &items[before].span), next) {
            (Some(before), _) => before.end..last.end,
            (None, Some(next)) => first.start..next.span.start,
            (None, None) => first.start..last.end,
        });
        at += run;
    }
}
