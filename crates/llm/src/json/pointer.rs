//! Places within a document by JSON pointer (RFC 6901).

use std::borrow::Cow;

use super::document::{Kind, Value};

/// The value that a pointer leads to; `""` is the outermost one. None for what leads nowhere or is no pointer.
pub fn find<'d>(root: Value<'d>, pointer: &str) -> Option<Value<'d>> {
    segments(pointer)?.try_fold(root, |value, segment| child(value, &segment))
}

/// Every value that a pointer leads to, in the order of the text, where a segment `*` means every element of an array (of an
/// object it is a name as any other). Nothing for what leads nowhere or is no pointer.
pub fn find_all<'d>(root: Value<'d>, pointer: &str) -> Vec<Value<'d>> {
    let Some(segments) = segments(pointer) else { return Vec::new() };
    segments.fold(vec![root], |values, segment| {
        let mut below = Vec::new();
        for value in values {
            if segment == "*" && value.kind() == Kind::Array {
                below.extend(value.elements());
            } else {
                below.extend(child(value, &segment));
            }
        }
        below
    })
}

fn child<'d>(value: Value<'d>, segment: &str) -> Option<Value<'d>> {
    match value.kind() {
        Kind::Object => value.member(segment),
        Kind::Array => value.elements().nth(index(segment)?),
        _ => None,
    }
}

/// An array index: digits without a leading zero.
fn index(segment: &str) -> Option<usize> {
    let is_plain =
        segment.bytes().all(|byte| byte.is_ascii_digit()) && (segment == "0" || !segment.starts_with('0'));
    segment.parse().ok().filter(|_| is_plain)
}

fn segments(pointer: &str) -> Option<impl Iterator<Item = Cow<'_, str>>> {
    let rest = match pointer.strip_prefix('/') {
        Some(rest) => Some(rest),
        None if pointer.is_empty() => None,
        None => return None,
    };
    Some(rest.into_iter().flat_map(|rest| rest.split('/')).map(unescaped))
}

fn unescaped(segment: &str) -> Cow<'_, str> {
    if segment.contains('~') {
        Cow::Owned(segment.replace("~1", "/").replace("~0", "~"))
    } else {
        Cow::Borrowed(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Limits, read};

    const LIMITS: Limits = Limits { depth_max: 16, nodes_max: 1000 };

    fn check(text: &str, pointer: &str, expected: &[&str]) {
        let document = read(text.as_bytes(), LIMITS).unwrap();
        let found: Vec<_> = find_all(document.root(), pointer).into_iter().map(Value::raw).collect();
        assert_eq!(found, expected, "{pointer}");
        if !pointer.contains('*') {
            assert_eq!(
                find(document.root(), pointer).map(Value::raw),
                expected.first().copied(),
                "{pointer}"
            );
        }
    }

    #[test]
    fn the_examples_of_rfc_6901_lead_where_it_says() {
        let text =
            r#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}"#;
        check(text, "", &[text]);
        check(text, "/foo", &[r#"["bar","baz"]"#]);
        check(text, "/foo/0", &[r#""bar""#]);
        for (pointer, value) in [
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ] {
            check(text, pointer, &[value]);
        }
    }

    #[test]
    fn what_leads_nowhere_finds_nothing() {
        let text = r#"{"a":[1,{"b":2}],"~1":3}"#;
        for pointer in ["/x", "/a/2", "/a/-", "/a/01", "/a/+1", "/a/", "a", "/a/0/b", "/a/1/b/c", " /a"] {
            check(text, pointer, &[]);
        }
        check(text, "/~01", &["3"]);
    }

    #[test]
    fn a_star_means_every_element_of_an_array_and_a_name_elsewhere() {
        let text = r#"{"m":[{"c":1},{"d":2},{"c":[3,4]}],"*":{"*":5}}"#;
        check(text, "/m/*/c", &["1", "[3,4]"]);
        check(text, "/m/*/c/*", &["3", "4"]);
        check(text, "/*/*", &["5"]);
    }
}
