//! Edits of a body that policies ask for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "shared parts of tests fail by panicking")]

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use refrain_core::{Api, Edit, EditOp};
use refrain_llm::json;
use refrain_llm::request::{ParseLimits, ParsedRequest, parse};

const LIMITS: json::Limits = json::Limits { depth_max: 32, nodes_max: 10_000 };

fn parsed(body: &str) -> ParsedRequest {
    parse(Api::Embeddings, &Bytes::copy_from_slice(body.as_bytes()), &ParseLimits::default())
        .unwrap_or_else(|error| panic!("{body}: {error}"))
}

fn edit(pointer: &str, op: EditOp) -> Edit {
    Edit { pointer: pointer.to_owned(), op, send_upstream: false }
}

fn edited(body: &str, edits: &[Edit]) -> Option<String> {
    parsed(body).edited(edits).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

/// One edit; `expected` is none if nothing changes.
fn check(body: &str, pointer: &str, op: EditOp, expected: Option<&str>) {
    assert_eq!(edited(body, &[edit(pointer, op)]).as_deref(), expected, "{body} {pointer}");
}

#[test]
fn removals_take_their_name_and_one_comma() {
    let body = r#"{ "model" : "m" , "a" : [ 1 , 2 , 3 ] , "b" : {"c":1,"d":2} }"#;
    let remove = |pointer: &str, expected: &str| check(body, pointer, EditOp::Remove, Some(expected));
    remove("/a", r#"{ "model" : "m" , "b" : {"c":1,"d":2} }"#);
    remove("/b", r#"{ "model" : "m" , "a" : [ 1 , 2 , 3 ] }"#);
    remove("/model", r#"{ "a" : [ 1 , 2 , 3 ] , "b" : {"c":1,"d":2} }"#);
    remove("/a/0", r#"{ "model" : "m" , "a" : [ 2 , 3 ] , "b" : {"c":1,"d":2} }"#);
    remove("/a/1", r#"{ "model" : "m" , "a" : [ 1 , 3 ] , "b" : {"c":1,"d":2} }"#);
    remove("/a/2", r#"{ "model" : "m" , "a" : [ 1 , 2 ] , "b" : {"c":1,"d":2} }"#);
    remove("/a/*", r#"{ "model" : "m" , "a" : [  ] , "b" : {"c":1,"d":2} }"#);
    remove("/b/c", r#"{ "model" : "m" , "a" : [ 1 , 2 , 3 ] , "b" : {"d":2} }"#);
}

#[test]
fn pointers_mean_the_body_as_it_came() {
    let body = r#"{"model":"m","a":[1,2,3,4]}"#;
    let edits = ["/a/0", "/a/1", "/a/3", "/a/4"].map(|pointer| edit(pointer, EditOp::Remove));
    assert_eq!(edited(body, &edits).as_deref(), Some(r#"{"model":"m","a":[3]}"#));
}

#[test]
fn what_leads_nowhere_or_fits_no_value_changes_nothing() {
    let body = r#"{"model":"m","a":["x\n#y",null,{"n":"5"}],"s":"no such line","t":1.5,"e":""}"#;
    for (pointer, op) in [
        ("", EditOp::Remove),
        ("/b", EditOp::Remove),
        ("a", EditOp::Remove),
        ("/a/7", EditOp::Remove),
        ("/a/*/z", EditOp::Remove),
        ("/s", EditOp::DropLinesStarting("line".into())),
        ("/a", EditOp::DropLinesStarting("x".into())),
        ("/e", EditOp::DropLinesStarting(String::new())),
        ("/t", EditOp::DropLinesStarting("1".into())),
        ("/a/2/n", EditOp::RoundUp(vec![10])),
        ("/t", EditOp::RoundUp(vec![1])),
        ("/t", EditOp::RoundUp(vec![])),
    ] {
        check(body, pointer, op, None);
    }
    assert_eq!(edited(body, &[]), None);
}

#[test]
fn lines_are_dropped_by_how_they_start_and_the_rest_is_escaped_anew() {
    let body = r##"{"model":"m","s":"# at 12:00\nsay \"hi\"\n#end\n"}"##;
    let drop = |start: &str| EditOp::DropLinesStarting(start.to_owned());
    check(body, "/s", drop("#"), Some(r#"{"model":"m","s":"say \"hi\"\n"}"#));
    check(body, "/s", drop("# at"), Some(r##"{"model":"m","s":"say \"hi\"\n#end\n"}"##));
    check(r#"{"model":"m","s":"\u0023 x"}"#, "/s", drop("#"), Some(r#"{"model":"m","s":""}"#));
    let both = [edit("/s", drop("# at")), edit("/s", drop("#e")), edit("/s", drop("say"))];
    assert_eq!(edited(body, &both).as_deref(), Some(r#"{"model":"m","s":""}"#));
}

#[test]
fn numbers_are_rounded_up_to_the_next_step() {
    let rounded = |number: &str, expected: Option<&str>| {
        let body = |number: &str| format!(r#"{{"model":"m","max_tokens":{number}}}"#);
        let op = EditOp::RoundUp(vec![64, 256, 1024]);
        check(&body(number), "/max_tokens", op, expected.map(body).as_deref());
    };
    rounded("1", Some("64"));
    rounded("-3", Some("64"));
    rounded("64", None);
    rounded("64.0", Some("64"));
    rounded("6.5e1", Some("256"));
    rounded("1024.5", None);
    rounded("1e999", None);
}

#[test]
fn edits_of_what_is_removed_are_ignored_in_either_order() {
    let body = r##"{"model":"m","a":[{"n":1},{"n":2,"s":"#x"}]}"##;
    let mut edits = vec![
        edit("/a/1/n", EditOp::RoundUp(vec![10])),
        edit("/a/1/s", EditOp::DropLinesStarting("#".into())),
        edit("/a/1/s", EditOp::Remove),
        edit("/a/1", EditOp::Remove),
        edit("/a/0/n", EditOp::RoundUp(vec![10])),
    ];
    let expected = r#"{"model":"m","a":[{"n":10}]}"#;
    assert_eq!(edited(body, &edits).as_deref(), Some(expected));
    edits.reverse();
    assert_eq!(edited(body, &edits).as_deref(), Some(expected));
    let same = [edit("/a/*/n", EditOp::RoundUp(vec![10])), edit("/a/*/n", EditOp::Remove)];
    assert_eq!(edited(body, &same).as_deref(), Some(r##"{"model":"m","a":[{},{"s":"#x"}]}"##));
}

/// A document as it is written.
#[derive(Clone, Debug, PartialEq)]
enum Tree {
    Lexeme(&'static str),
    Text(String),
    Array(Vec<Tree>),
    Object(BTreeMap<&'static str, Tree>),
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        prop::sample::select(vec!["null", "true", "0", "7", "7.0", "-1e2", "0.10", "99999999999999999999"])
            .prop_map(Tree::Lexeme),
        "[a#\n\"\\\\é]{0,6}".prop_map(Tree::Text),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Tree::Array),
            prop::collection::btree_map(prop::sample::select(vec!["a", "b", "*", "0", "é~/"]), inner, 0..5)
                .prop_map(Tree::Object),
        ]
    })
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let pointer = prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "0", "1", "é~0~1"]), 0..4)
        .prop_map(|segments| segments.iter().fold("/x".to_owned(), |path, segment| path + "/" + segment));
    let op = prop_oneof![
        Just(EditOp::Remove),
        prop::sample::select(vec!["#", "a", ""]).prop_map(|start| EditOp::DropLinesStarting(start.into())),
        prop::collection::vec(0u32..20, 0..3).prop_map(EditOp::RoundUp),
    ];
    prop::collection::vec((pointer, op).prop_map(|(pointer, op)| edit(&pointer, op)), 0..5)
}

/// Writes a document with white space that depends on `seed`.
fn write(tree: &Tree, seed: &mut u32, out: &mut String) {
    let mut space = |out: &mut String| {
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        out.push_str([" ", "", "", "\n\t"][(*seed >> 30) as usize]);
    };
    space(out);
    match tree {
        Tree::Lexeme(lexeme) => out.push_str(lexeme),
        Tree::Text(text) => out.push_str(&serde_json::to_string(text).unwrap()),
        Tree::Array(elements) => {
            out.push('[');
            space(out);
            for (at, element) in elements.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                write(element, seed, out);
            }
            out.push(']');
        }
        Tree::Object(members) => {
            out.push('{');
            space(out);
            for (at, (name, value)) in members.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                out.push_str(&format!("{} :", serde_json::to_string(name).unwrap()));
                write(value, seed, out);
            }
            out.push('}');
        }
    }
    *seed = seed.wrapping_mul(1_664_525).wrapping_add(1);
    out.push_str(["", " "][(*seed >> 31) as usize]);
}

fn body(x: &Tree, mut seed: u32) -> String {
    let mut out = r#"{"model":"m","input":"i","x":"#.to_owned();
    write(x, &mut seed, &mut out);
    out + "}"
}

fn canonical(body: &[u8]) -> String {
    let document = json::read(body, LIMITS).unwrap_or_else(|error| panic!("{error}: {body:?}"));
    let mut out = String::new();
    json::canonical(document.root(), &mut out);
    out
}

/// What edits mean, said in another way: a walk over the tree that asks of each place which edits are for it.
fn expected(tree: &Tree, path: &mut Vec<(String, bool)>, edits: &[Edit]) -> Option<Tree> {
    let ops: Vec<_> =
        edits.iter().filter(|edit| leads_to(&edit.pointer, path)).map(|edit| &edit.op).collect();
    if ops.iter().any(|op| **op == EditOp::Remove) {
        return None;
    }
    let mut child = |name: String, in_array: bool, tree: &Tree| {
        path.push((name, in_array));
        let kept = expected(tree, path, edits);
        path.pop();
        kept
    };
    Some(match tree {
        Tree::Array(elements) => Tree::Array(
            elements.iter().enumerate().filter_map(|(at, tree)| child(at.to_string(), true, tree)).collect(),
        ),
        Tree::Object(members) => Tree::Object(
            members
                .iter()
                .filter_map(|(name, tree)| Some((*name, child((*name).to_owned(), false, tree)?)))
                .collect(),
        ),
        Tree::Text(text) => Tree::Text(ops.iter().fold(text.clone(), |text, op| match op {
            EditOp::DropLinesStarting(start) => {
                let kept: Vec<_> = text.split('\n').filter(|line| !line.starts_with(start)).collect();
                kept.join("\n")
            }
            _ => text,
        })),
        Tree::Lexeme(lexeme) => Tree::Lexeme(ops.iter().fold(lexeme, |lexeme, op| match op {
            EditOp::RoundUp(steps) => lexeme.parse::<f64>().map_or(lexeme, |number| {
                let next = steps.iter().filter(|step| f64::from(**step) >= number).min();
                next.map_or(lexeme, |step| step.to_string().leak())
            }),
            _ => lexeme,
        })),
    })
}

fn leads_to(pointer: &str, path: &[(String, bool)]) -> bool {
    let segments: Vec<_> =
        pointer.split('/').skip(2).map(|s| s.replace("~1", "/").replace("~0", "~")).collect();
    let fits = |(segment, (name, in_array)): (&String, &(String, bool))| {
        segment == name || segment == "*" && *in_array
    };
    segments.len() == path.len() && segments.iter().zip(path).all(fits)
}

proptest! {
    #[test]
    fn an_edited_body_is_json_and_says_what_the_edits_mean(x in trees(), edits in edits(), seed: u32) {
        let body = body(&x, seed);
        let result = edited(&body, &edits);
        let wanted = match expected(&x, &mut Vec::new(), &edits) {
            Some(x) => self::body(&x, 0),
            None => r#"{"model":"m","input":"i"}"#.to_owned(),
        };
        // Canonical texts keep lexemes: what was not edited must be written as it was.
        let found = canonical(result.as_deref().unwrap_or(&body).as_bytes());
        prop_assert_eq!(&found, &canonical(wanted.as_bytes()));
        prop_assert_eq!(result.is_some(), found != canonical(body.as_bytes()));
    }

    #[test]
    fn editing_twice_is_editing_once(x in trees(), edits in edits(), seed: u32) {
        // After a removal by index, the index is another element's; and steps of two edits lead to each other's.
        let by_index = |edit: &Edit| edit.op == EditOp::Remove && edit.pointer.contains(['0', '1']);
        let mut rounds = 0;
        let edits: Vec<_> = edits
            .into_iter()
            .filter(|edit| !by_index(edit))
            .filter(|edit| {
                rounds += usize::from(matches!(edit.op, EditOp::RoundUp(_)));
                rounds <= 1 || !matches!(edit.op, EditOp::RoundUp(_))
            })
            .collect();
        if let Some(once) = edited(&body(&x, seed), &edits) {
            prop_assert_eq!(edited(&once, &edits), None);
        }
    }
}
