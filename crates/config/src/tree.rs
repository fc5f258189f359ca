//! A TOML document with the origin of every key and value, so that whatever is found wrong later has its line.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml::value::Datetime;

use crate::error::Problems;
use crate::source::Source;

/// Where a key or value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Bytes of the file.
    Span(Range<usize>),
    /// An environment variable.
    Variable(String),
}

/// A value and its origin.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) origin: Origin,
    pub(crate) value: Value,
}

/// A TOML value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(Datetime),
    Array(Vec<Node>),
    Table(Table),
}

/// Keys and values of a table.
pub(crate) type Table = BTreeMap<String, Entry>;

/// A value with the origin of its key.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Origin,
    pub(crate) node: Node,
}

/// Parses a document; none if its syntax is wrong, which is then in `problems`.
pub(crate) fn parse(source: &Source, problems: &mut Problems<'_>) -> Option<Node> {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    for error in &errors {
        let span = error.span().unwrap_or_default();
        problems.at(&Origin::Span(span), "", error.message().trim_end(), None);
    }
    if !errors.is_empty() {
        return None;
    }
    let mut out_of_range = Vec::new();
    let value = Value::Table(table_of(table.into_inner(), &Origin::Span, &mut out_of_range));
    for origin in &out_of_range {
        problems.at(origin, "", "number out of range", None);
    }
    out_of_range.is_empty().then_some(Node { origin: Origin::Span(0..0), value })
}

/// Parses the value of a variable; none if it isn't a TOML value.
pub(crate) fn parse_variable(name: &str, text: &str) -> Option<Node> {
    let origin = |_| Origin::Variable(name.to_owned());
    let mut out_of_range = Vec::new();
    let node = node_of(DeValue::parse(text).ok()?, &origin, &mut out_of_range);
    out_of_range.is_empty().then_some(node)
}

fn node_of(
    value: Spanned<DeValue<'_>>,
    origin: &dyn Fn(Range<usize>) -> Origin,
    out_of_range: &mut Vec<Origin>,
) -> Node {
    let here = origin(value.span());
    let value = match value.into_inner() {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => {
                out_of_range.push(here.clone());
                Value::Integer(0)
            }
        },
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(value) => Value::Datetime(value),
        DeValue::Array(items) => {
            Value::Array(items.into_iter().map(|item| node_of(item, origin, out_of_range)).collect())
        }
        DeValue::Table(table) => Value::Table(table_of(table, origin, out_of_range)),
    };
    Node { origin: here, value }
}

fn table_of(
    table: DeTable<'_>,
    origin: &dyn Fn(Range<usize>) -> Origin,
    out_of_range: &mut Vec<Origin>,
) -> Table {
    table
        .into_iter()
        .map(|(key, value)| {
            let entry = Entry { key: origin(key.span()), node: node_of(value, origin, out_of_range) };
            (key.into_inner().into_owned(), entry)
        })
        .collect()
}

impl Node {
    /// Names of the entries of a table at the top level.
    pub(crate) fn names(&self, table: &str) -> Vec<&str> {
        self.table()
            .and_then(|top| top.get(table))
            .and_then(|entry| entry.node.table())
            .map(|table| table.keys().map(String::as_str).collect())
            .unwrap_or_default()
    }

    /// Its entries, if it is a table.
    pub(crate) fn table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Where a path is written, or the innermost thing around it that is; and the path in dotted form.
    pub(crate) fn locate(&self, path: &[&str]) -> (&Origin, String) {
        let (mut origin, mut dotted) = (&self.origin, String::new());
        let mut node = Some(self);
        for key in path {
            (dotted, node) = match node.map(|node| &node.value) {
                Some(Value::Table(table)) => match table.get(*key) {
                    Some(entry) => {
                        origin = if entry.node.table().is_some() { &entry.key } else { &entry.node.origin };
                        (join(&dotted, key), Some(&entry.node))
                    }
                    None => (join(&dotted, key), None),
                },
                Some(Value::Array(items)) => match key.parse::<usize>() {
                    Ok(index) => {
                        (join_index(&dotted, index), items.get(index).inspect(|item| origin = &item.origin))
                    }
                    Err(_) => (join(&dotted, key), None),
                },
                _ => (join(&dotted, key), None),
            };
        }
        (origin, dotted)
    }
}

impl Value {
    /// What it is, with an article, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime(_) => "a date",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

/// A path and a key below it, quoted if TOML wants it so.
pub(crate) fn join(path: &str, key: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let key = if !key.is_empty() && key.bytes().all(is_bare) { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// A path and an item of the array that it names.
pub(crate) fn join_index(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}
