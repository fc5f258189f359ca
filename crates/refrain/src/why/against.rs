//! In which parts of their keys two requests differ.

use serde::Serialize;

use super::explained::{ExplainAnswer, ToldPart};
use crate::columns::columns;

/// What tells two requests apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Differences {
    /// Whether both have a key: what bypasses the cache has none.
    comparable: bool,
    /// Whether they are the same to the cache.
    same: bool,
    parts: Vec<Difference>,
}

/// A part that they don't share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Difference {
    name: String,
    first: Option<Side>,
    second: Option<Side>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Side {
    hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Compares the keys of two requests.
pub(super) fn differences(first: &ExplainAnswer, second: &ExplainAnswer) -> Differences {
    let (Some(a), Some(b)) = (&first.key, &second.key) else {
        return Differences { comparable: false, same: false, parts: Vec::new() };
    };
    Differences { comparable: true, same: a.key == b.key, parts: of_parts(&a.parts, &b.parts) }
}

fn of_parts(a: &[ToldPart], b: &[ToldPart]) -> Vec<Difference> {
    let side = |parts: &[ToldPart], name: &str| {
        let part = parts.iter().find(|part| part.name == name)?;
        Some(Side { hash: part.hash.clone(), text: part.text.clone() })
    };
    let only_in_b = b.iter().filter(|part| a.iter().all(|other| other.name != part.name));
    let names = a.iter().chain(only_in_b).map(|part| &part.name);
    names
        .map(|name| Difference { name: name.clone(), first: side(a, name), second: side(b, name) })
        .filter(|one| one.first != one.second)
        .collect()
}

/// The same for people.
pub(super) fn page(differences: &Differences) -> String {
    let Differences { comparable, same, parts } = differences;
    if !comparable {
        return "They can't be compared: one of them has no key. Explain each alone to see why.\n".to_owned();
    }
    if *same {
        return "They are the same to the cache: whoever shares a scope gets one answer for both.\n"
            .to_owned();
    }
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    let show = |side: &Option<Side>| match side {
        None => "(not there)".to_owned(),
        Some(Side { text: Some(text), .. }) => format!("{text:?}"),
        Some(Side { hash, .. }) => hash.clone(),
    };
    let rows: Vec<Vec<String>> =
        parts.iter().map(|part| vec![part.name.clone(), show(&part.first), show(&part.second)]).collect();
    format!("They differ in: {}\n\n{}", names.join(", "), columns(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, hash: &str) -> ToldPart {
        ToldPart { name: name.to_owned(), hash: hash.to_owned(), text: None }
    }

    #[test]
    fn only_what_differs_is_told_absent_parts_too() {
        let a = [part("model", "1"), part("system prompt line 3", "2"), part("seed", "3")];
        let b = [part("model", "1"), part("system prompt line 3", "4"), part("top_p", "5")];
        let parts = of_parts(&a, &b);
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["system prompt line 3", "seed", "top_p"]);
        let page = page(&Differences { comparable: true, same: false, parts });
        assert!(page.starts_with("They differ in: system prompt line 3, seed, top_p\n"), "{page}");
        assert!(page.contains("seed                  3            (not there)"), "{page}");
    }
}
