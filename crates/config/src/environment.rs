//! Environment variables that override the file: `REFRAIN_ROUTE__CHAT__CACHE__TTL=10m` is `route.chat.cache.ttl`.
//!
//! Two underscores separate keys. Keys match whatever their case, with `-` and `_` equal. A variable sets keys of
//! tables that the file names, or of unnamed tables; it can't name a new route, pool, listener or key.

use crate::check::takes;
use crate::error::{Place, Problem, Problems, Suggestion};
use crate::schema::{Schema, Shape};
use crate::source::Source;
use crate::tree::{Entry, Node, Origin, Table, Value, join, join_index, parse_variable};

/// What names of overriding variables begin with.
const PREFIX: &str = "REFRAIN_";

/// Between two keys in a variable's name.
const SEPARATOR: &str = "__";

/// Writes the variables' values into the tree. Those without two underscores are none of ours.
pub(crate) fn apply(source: &Source, schema: &Schema, tree: &mut Node, problems: &mut Problems<'_>) {
    for (name, value) in &source.environment {
        let Some(keys) = name.strip_prefix(PREFIX).filter(|keys| keys.contains(SEPARATOR)) else { continue };
        match resolve(schema, tree, keys) {
            Ok((path, shapes)) => set(tree, &path, name, node_of(name, value, &shapes)),
            Err(unresolved) => problems.push(Problem {
                suggestion: unresolved.suggestion,
                ..Problem::new(Place::Variable(name.clone()), unresolved.path, unresolved.message)
            }),
        }
    }
}

/// Why a variable's name leads nowhere.
struct Unresolved {
    path: String,
    message: String,
    suggestion: Option<Suggestion>,
}

/// The keys as the file or the schema spells them, and what may stand there.
fn resolve<'s>(
    schema: &'s Schema,
    tree: &Node,
    keys: &str,
) -> Result<(Vec<String>, Vec<Shape<'s>>), Unresolved> {
    let (mut shapes, mut node) = (schema.shapes(), Some(tree));
    let (mut path, mut dotted) = (Vec::new(), String::new());
    for key in keys.split(SEPARATOR) {
        let unresolved = |message: &str, suggestion| {
            Err(Unresolved { path: dotted.clone(), message: message.to_owned(), suggestion })
        };
        if let Some(Value::Array(items)) = node.map(|node| &node.value) {
            let Some(index) = key.parse::<usize>().ok().filter(|index| *index < items.len()) else {
                return unresolved(&format!("no item {key:?} in an array of {}", items.len()), None);
            };
            shapes = shapes.iter().flat_map(|shape| shape.items()).collect();
            node = items.get(index);
            dotted = join_index(&dotted, index);
            path.push(index.to_string());
            continue;
        }
        let table = match node.map(|node| &node.value) {
            Some(Value::Table(table)) => Some(table),
            Some(other) => return unresolved(&format!("is {}, not a table", other.kind()), None),
            None => None,
        };
        let known = known_keys(&shapes, table);
        match known.iter().filter(|known| normal(known) == normal(key)).collect::<Vec<_>>().as_slice() {
            [one] => {
                let one = (*one).to_string();
                shapes = shapes.iter().flat_map(|shape| shape.property(&one)).collect();
                node = table.and_then(|table| table.get(&one)).map(|entry| &entry.node);
                dotted = join(&dotted, &one);
                path.push(one);
            }
            [] => {
                let suggestion = Suggestion::among(&normal(key), known);
                return unresolved(&format!("unknown key {:?}", key.to_lowercase()), Some(suggestion));
            }
            _ => return unresolved(&format!("{key:?} names several keys"), None),
        }
    }
    Ok((path, shapes))
}

/// Keys of the schema and of the file, each once.
fn known_keys<'a>(shapes: &[Shape<'a>], table: Option<&'a Table>) -> Vec<&'a str> {
    let mut known: Vec<&str> = shapes.iter().flat_map(|shape| shape.property_names()).collect();
    known.extend(table.into_iter().flat_map(|table| table.keys().map(String::as_str)));
    known.sort_unstable();
    known.dedup();
    known
}

fn normal(key: &str) -> String {
    key.to_lowercase().replace('-', "_")
}

/// The value as TOML where that fits, else as the text that it is.
fn node_of(name: &str, text: &str, shapes: &[Shape<'_>]) -> Node {
    let string = Node { origin: Origin::Variable(name.to_owned()), value: Value::String(text.to_owned()) };
    match parse_variable(name, text) {
        Some(node) if takes(shapes, &node.value) || !takes(shapes, &string.value) => node,
        _ => string,
    }
}

fn set(node: &mut Node, path: &[String], variable: &str, value: Node) {
    let Some((key, rest)) = path.split_first() else {
        *node = value;
        return;
    };
    let origin = Origin::Variable(variable.to_owned());
    match &mut node.value {
        Value::Table(table) => {
            let entry = table.entry(key.clone()).or_insert_with(|| Entry {
                key: origin.clone(),
                node: Node { origin, value: Value::Table(Table::new()) },
            });
            set(&mut entry.node, rest, variable, value);
        }
        Value::Array(items) => {
            if let Some(item) = key.parse::<usize>().ok().and_then(|index| items.get_mut(index)) {
                set(item, rest, variable, value);
            }
        }
        _ => {}
    }
}
