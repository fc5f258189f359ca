//! Walks the document along the JSON schema and finds every unknown key, wrong type and wrong value.
//!
//! What is wrong is reported and left out of the result, so that the rest can still be looked at.

use crate::error::{Problems, Suggestion};
use crate::schema::{Schema, Shape};
use crate::text::check_format;
use crate::tree::{Entry, Node, Table, Value, join, join_index};

/// The document without what is wrong in it.
pub(crate) fn check(schema: &Schema, tree: &Node, problems: &mut Problems<'_>) -> toml::Value {
    let checked = Check { problems }.node(&schema.shapes(), tree, "");
    checked.unwrap_or_else(|| toml::Value::Table(toml::Table::new()))
}

/// Whether one of the shapes takes values of this type.
pub(crate) fn takes(shapes: &[Shape<'_>], value: &Value) -> bool {
    shapes.iter().any(|shape| takes_kind(shape.kind(), value))
}

fn takes_kind(kind: &str, value: &Value) -> bool {
    match value {
        Value::String(_) => kind == "string",
        Value::Integer(_) => matches!(kind, "integer" | "number"),
        Value::Float(_) => kind == "number",
        Value::Boolean(_) => kind == "boolean",
        Value::Datetime(_) => false,
        Value::Array(_) => kind == "array",
        Value::Table(_) => kind == "object",
    }
}

struct Check<'p, 's> {
    problems: &'p mut Problems<'s>,
}

impl Check<'_, '_> {
    fn node(&mut self, shapes: &[Shape<'_>], node: &Node, path: &str) -> Option<toml::Value> {
        let fitting: Vec<Shape<'_>> =
            shapes.iter().copied().filter(|shape| takes_kind(shape.kind(), &node.value)).collect();
        if fitting.is_empty() {
            let message = format!("expected {}, found {}", expected(shapes), node.value.kind());
            self.problems.at(&node.origin, path, message, None);
            return None;
        }
        match &node.value {
            Value::String(text) => self.string(shapes, node, text, path),
            Value::Integer(number) => {
                self.number(&fitting, node, *number as f64, path).then_some(toml::Value::Integer(*number))
            }
            Value::Float(number) => {
                self.number(&fitting, node, *number, path).then_some(toml::Value::Float(*number))
            }
            Value::Boolean(value) => Some(toml::Value::Boolean(*value)),
            Value::Datetime(value) => Some(toml::Value::Datetime(*value)),
            Value::Array(items) => self.array(&fitting, items, path),
            Value::Table(_) if fitting.iter().any(|shape| shape.is_free()) => self.free(node, path),
            Value::Table(table) => self.table(&fitting, node, table, path),
        }
    }

    fn string(&mut self, shapes: &[Shape<'_>], node: &Node, text: &str, path: &str) -> Option<toml::Value> {
        let mut words = Vec::new();
        for shape in shapes.iter().filter(|shape| shape.kind() == "string") {
            match shape.words() {
                Some(choices) => words.extend(choices),
                None => return self.form(*shape, node, text, path),
            }
        }
        if words.contains(&text) {
            return Some(toml::Value::String(text.to_owned()));
        }
        let suggestion = match Suggestion::among(text, words) {
            Suggestion::Known(mut known) => {
                let tables = shapes.iter().filter(|shape| shape.is_tagged());
                known.extend(
                    tables.flat_map(|shape| shape.property_names()).map(|key| format!("{{ {key} = .. }}")),
                );
                Suggestion::Known(known)
            }
            closest => closest,
        };
        // What isn't even a word may be a URL with a password.
        let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let message = if is_word { format!("unknown value {text:?}") } else { "unknown value".to_owned() };
        self.problems.at(&node.origin, path, message, Some(suggestion));
        None
    }

    fn form(&mut self, shape: Shape<'_>, node: &Node, text: &str, path: &str) -> Option<toml::Value> {
        match check_format(shape.format().unwrap_or_default(), text) {
            Ok(()) => Some(toml::Value::String(text.to_owned())),
            Err(message) => {
                self.problems.at(&node.origin, path, message, None);
                None
            }
        }
    }

    fn number(&mut self, shapes: &[Shape<'_>], node: &Node, number: f64, path: &str) -> bool {
        let (min, max) = shapes.first().map_or((None, None), |shape| shape.range());
        // Written so that NaN is out of every range.
        let fits = min.is_none_or(|min| number >= min) && max.is_none_or(|max| number <= max);
        if !fits {
            let message = match (min, max) {
                (Some(min), Some(max)) => format!("must be from {min} to {max}"),
                (Some(min), None) => format!("must be at least {min}"),
                (_, max) => format!("must be at most {}", max.unwrap_or_default()),
            };
            self.problems.at(&node.origin, path, message, None);
        }
        fits
    }

    /// None if an item is wrong: indices must stay what they are in the file.
    fn array(&mut self, shapes: &[Shape<'_>], items: &[Node], path: &str) -> Option<toml::Value> {
        let shapes: Vec<Shape<'_>> = shapes.iter().flat_map(|shape| shape.items()).collect();
        let checked: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(index, item)| self.node(&shapes, item, &join_index(path, index)))
            .collect();
        checked.into_iter().collect::<Option<Vec<_>>>().map(toml::Value::Array)
    }

    fn table(&mut self, shapes: &[Shape<'_>], node: &Node, table: &Table, path: &str) -> Option<toml::Value> {
        let mut checked = toml::Table::new();
        for (key, entry) in table {
            let below: Vec<Shape<'_>> = shapes.iter().flat_map(|shape| shape.property(key)).collect();
            let path = join(path, key);
            if below.is_empty() {
                let known = shapes.iter().flat_map(|shape| shape.property_names());
                self.problems.at(&entry.key, &path, "unknown key", Some(Suggestion::among(key, known)));
            } else if let Some(value) = self.node(&below, &entry.node, &path) {
                checked.insert(key.clone(), value);
            }
        }
        self.is_complete(shapes, node, table, &checked, path).then_some(toml::Value::Table(checked))
    }

    /// A value whose form is none of ours, as JSON can hold it: dates as text, numbers finite.
    fn free(&mut self, node: &Node, path: &str) -> Option<toml::Value> {
        match &node.value {
            Value::Float(number) if !number.is_finite() => {
                self.problems.at(&node.origin, path, "must be a finite number", None);
                None
            }
            Value::Float(number) => Some(toml::Value::Float(*number)),
            Value::String(text) => Some(toml::Value::String(text.clone())),
            Value::Integer(number) => Some(toml::Value::Integer(*number)),
            Value::Boolean(value) => Some(toml::Value::Boolean(*value)),
            Value::Datetime(date) => Some(toml::Value::String(date.to_string())),
            Value::Array(items) => {
                let at = |index| join_index(path, index);
                let checked: Vec<_> =
                    items.iter().enumerate().map(|(index, item)| self.free(item, &at(index))).collect();
                checked.into_iter().collect::<Option<Vec<_>>>().map(toml::Value::Array)
            }
            Value::Table(table) => {
                let entry = |(key, entry): (&String, &Entry)| {
                    Some((key.clone(), self.free(&entry.node, &join(path, key))?))
                };
                Some(toml::Value::Table(table.iter().filter_map(entry).collect()))
            }
        }
    }

    /// Reports missing keys. False only for a choice of one key that isn't made: nothing can be done with it.
    fn is_complete(
        &mut self,
        shapes: &[Shape<'_>],
        node: &Node,
        table: &Table,
        checked: &toml::Table,
        path: &str,
    ) -> bool {
        let is_choice = shapes.len() > 1 && shapes.iter().all(|shape| shape.is_tagged());
        if !is_choice {
            let required = shapes.iter().flat_map(|shape| shape.required());
            for key in required.filter(|key| !table.contains_key(*key)) {
                self.problems.at(&node.origin, &join(path, key), "missing, and has no default", None);
            }
            return true;
        }
        if table.len() != 1 {
            let keys: Vec<&str> = shapes.iter().flat_map(|shape| shape.property_names()).collect();
            let message = format!("expected one of the keys {}", keys.join(", "));
            self.problems.at(&node.origin, path, message, None);
        }
        table.len() == 1 && checked.len() == 1
    }
}

/// What the shapes take, in words.
fn expected(shapes: &[Shape<'_>]) -> String {
    let mut words: Vec<String> = Vec::new();
    for shape in shapes {
        let word = match (shape.kind(), shape.words(), shape.example()) {
            ("string", Some(choices), _) => {
                choices.iter().map(|choice| format!("{choice:?}")).collect::<Vec<_>>().join(", ")
            }
            ("string", None, Some(example)) => format!("a string like {example:?}"),
            ("string", None, None) => "a string".to_owned(),
            ("integer", ..) => "an integer".to_owned(),
            ("number", ..) => "a number".to_owned(),
            ("boolean", ..) => "true or false".to_owned(),
            ("array", ..) => "an array".to_owned(),
            _ if shape.is_tagged() => {
                format!("{{ {} = .. }}", shape.property_names().next().unwrap_or_default())
            }
            _ => "a table".to_owned(),
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(" or ")
}
