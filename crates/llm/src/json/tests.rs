use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { depth_max: 16, nodes_max: 10_000 };

fn canonical_of(text: &str) -> Result<String, ErrorKind> {
    let document = read(text.as_bytes(), LIMITS).map_err(|error| error.kind)?;
    let mut out = String::new();
    canonical(document.root(), &mut out);
    Ok(out)
}

fn check(text: &str, expected: Result<&str, ErrorKind>) {
    assert_eq!(canonical_of(text), expected.map(str::to_owned), "{text}");
}

#[test]
fn the_canonical_form_has_sorted_names_and_one_escape_style() {
    check(r#" { "b" : [ 1 , true ] , "a" : null } "#, Ok(r#"{"a":null,"b":[1,true]}"#));
    check(r#""\u0041\/\u00e9\n\u000a\ud83d\ude00""#, Ok("\"A/é\\n\\n😀\""));
    check(r#"{"\u0062":1,"a":2}"#, Ok(r#"{"a":2,"b":1}"#));
    check(r#""\u0000\u001f\u007f""#, Ok("\"\\u0000\\u001f\u{7f}\""));
    check("[]", Ok("[]"));
    check("{ }", Ok("{}"));
}

#[test]
fn strings_end_wherever_their_quote_stands() {
    for plain in ["a", "\u{7f}", "é", "😀", " ", "!", "#", "[", "]"] {
        for length in 0..70 {
            let inside = plain.repeat(length);
            let read_inside =
                |end: &str| read(format!("[\"{inside}{end}\",1]").as_bytes(), LIMITS).map(|_| ());
            check(&format!("[\"{inside}\",1]"), Ok(&format!("[\"{inside}\",1]")));
            check(&format!("[\"{inside}\\u0041{inside}\",1]"), Ok(&format!("[\"{inside}A{inside}\",1]")));
            let offset = 2 + inside.len();
            for (end, kind) in [
                ("\u{1f}\\", ErrorKind::ControlCharacter),
                ("\0", ErrorKind::ControlCharacter),
                ("\\x", ErrorKind::Escape),
            ] {
                assert_eq!(read_inside(end), Err(Error { kind, offset }), "{inside}");
            }
        }
    }
}

#[test]
fn numbers_keep_their_lexemes() {
    for number in
        ["1", "1.0", "1e0", "-0", "1E+2", "9007199254740993", "0.10", "123456789012345678901234567890"]
    {
        check(number, Ok(number));
    }
}

#[test]
fn what_json_does_not_allow_is_refused() {
    use ErrorKind::*;
    for (text, kind) in [
        ("", UnexpectedEnd),
        ("01", Number),
        ("-", Number),
        ("1.", Number),
        ("1e", Number),
        (".5", UnexpectedByte),
        ("+1", UnexpectedByte),
        ("NaN", UnexpectedByte),
        ("nul", UnexpectedByte),
        ("[1,]", UnexpectedByte),
        ("{,}", UnexpectedByte),
        ("{\"a\":1,}", UnexpectedByte),
        ("{\"a\"}", UnexpectedByte),
        ("{a:1}", UnexpectedByte),
        ("[1", UnexpectedEnd),
        ("\"a", UnexpectedEnd),
        ("\"a\u{1}\"", ControlCharacter),
        ("\"\\x\"", Escape),
        ("\"\\u12\"", Escape),
        ("\"\\ud800\"", LoneSurrogate),
        ("\"\\udc00\"", LoneSurrogate),
        ("\"\\ud800\\u0041\"", LoneSurrogate),
        ("1 2", TrailingData),
        ("{} x", TrailingData),
        ("\u{feff}{}", UnexpectedByte),
    ] {
        check(text, Err(kind));
    }
    assert_eq!(read(b"\"\xff\"", LIMITS).unwrap_err(), Error { kind: Utf8, offset: 1 });
}

#[test]
fn duplicate_names_are_found_however_they_are_written() {
    check(r#"{"a":1,"a":1}"#, Err(ErrorKind::Duplicate));
    check(r#"{"a":1,"\u0061":1}"#, Err(ErrorKind::Duplicate));
    check(r#"[{"x":{"a":1,"b":2,"a":3}}]"#, Err(ErrorKind::Duplicate));
    check(r#"{"a":{"a":1},"b":{"a":1}}"#, Ok(r#"{"a":{"a":1},"b":{"a":1}}"#));
    let error = read(br#"{"a":1,"b":2,"a":3}"#, LIMITS).unwrap_err();
    assert_eq!(error.offset, 13);
}

#[test]
fn duplicates_in_a_large_object_are_found() {
    let members: Vec<String> = (0..4_000).map(|at| format!("\"k{at}\":0")).collect();
    let distinct = format!("{{{}}}", members.join(","));
    assert!(read(distinct.as_bytes(), LIMITS).is_ok());
    let twin = format!("{{{},\"\\u006b77\":1}}", members.join(","));
    assert_eq!(read(twin.as_bytes(), LIMITS).unwrap_err().kind, ErrorKind::Duplicate);
}

#[test]
fn depth_and_node_limits_hold() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(read(nested(16).as_bytes(), LIMITS).is_ok());
    assert_eq!(read(nested(17).as_bytes(), LIMITS).unwrap_err().kind, ErrorKind::TooDeep);
    let unlimited = Limits { depth_max: usize::MAX, nodes_max: usize::MAX };
    assert_eq!(read(nested(100_000).as_bytes(), unlimited).unwrap_err().kind, ErrorKind::TooDeep);
    let wide = format!("[{}0]", "0,".repeat(10_000));
    assert_eq!(read(wide.as_bytes(), LIMITS).unwrap_err().kind, ErrorKind::TooLarge);
}

#[test]
fn spans_point_into_the_original_text() {
    let text = br#" {"model" : "m\u0031" , "n":1.50}"#;
    let document = read(text, LIMITS).unwrap();
    let model = document.root().member("model").unwrap();
    assert_eq!(&text[model.span()], br#""m\u0031""#);
    assert_eq!(model.as_str().unwrap(), "m1");
    assert_eq!(document.root().member("n").unwrap().as_number(), Some("1.50"));
}

#[test]
fn a_byte_that_is_no_text_is_refused_wherever_it_stands() {
    let text = br#"{"a name":["some text that is long enough for every way of looking",1.5,null]}"#;
    for at in 0..text.len() {
        let mut bytes = text.to_vec();
        bytes[at] = 0xFF;
        assert_eq!(read(&bytes, LIMITS).unwrap_err(), Error { kind: ErrorKind::Utf8, offset: at });
    }
}

/// A string in one of the many ways to write it: a style for each character in turn.
fn written(text: &str, styles: &[u8]) -> String {
    let mut json = String::from("\"");
    for (character, style) in text.chars().zip(styles.iter().cycle()) {
        let mut units = [0; 2];
        match (character, style % 4) {
            (_, 0) => {
                character.encode_utf16(&mut units).iter().for_each(|unit| json += &format!("\\u{unit:04x}"));
            }
            (_, 1) => {
                character.encode_utf16(&mut units).iter().for_each(|unit| json += &format!("\\u{unit:04X}"));
            }
            ('/', 2) => json += "\\/",
            _ => {
                let mut plainest = String::new();
                string(character.encode_utf8(&mut [0; 4]), &mut plainest);
                json += &plainest[1..plainest.len() - 1];
            }
        }
    }
    json + "\""
}

fn object(names: &[String], styles: &[u8]) -> String {
    let members: Vec<String> = names.iter().map(|name| written(name, styles) + ":0").collect();
    format!("{{{}}}", members.join(","))
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..20)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn the_reader_agrees_with_serde_json(value in any_json()) {
        for text in [serde_json::to_string(&value)?, serde_json::to_string_pretty(&value)?] {
            let ours = canonical_of(&text).expect("valid");
            prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&ours)?, &serde_json::from_str::<serde_json::Value>(&text)?);
            prop_assert_eq!(canonical_of(&ours).expect("still valid"), ours);
        }
    }

    #[test]
    fn the_reader_agrees_with_serde_json_on_damaged_text(value in any_json(), at in any::<prop::sample::Index>(), byte in prop::sample::select(b"{}[]\",:\\u01eE+-. tfn/\x01\xff".to_vec())) {
        let mut text = serde_json::to_vec(&value)?;
        let at = at.index(text.len());
        text[at] = byte;
        let theirs = serde_json::from_slice::<serde_json::Value>(&text);
        // serde_json stops at numbers that f64 can't hold; we keep lexemes.
        prop_assume!(!theirs.as_ref().is_err_and(|error| error.to_string().starts_with("number out of range")));
        let theirs = theirs.is_ok();
        match read(&text, LIMITS) {
            Ok(_) => prop_assert!(theirs),
            Err(error) => prop_assert!(!theirs || error.kind == ErrorKind::Duplicate, "{error}"),
        }
    }

    #[test]
    fn any_string_survives_writing_and_reading(text in any::<String>()) {
        let mut json = String::new();
        string(&text, &mut json);
        let document = read(json.as_bytes(), LIMITS).expect("valid");
        prop_assert_eq!(document.root().as_str().expect("string"), text.as_str());
    }

    #[test]
    fn however_a_string_is_written_it_has_one_canonical_form(
        text in "([ -~]|[\\x00-\\x1f\"\\\\/]|\\PC){0,80}",
        styles in prop::collection::vec(any::<u8>(), 1..9),
        bytes_max in 0..100_usize,
    ) {
        let json = written(&text, &styles);
        let document = read(json.as_bytes(), LIMITS).expect("valid");
        let mut canonical = String::new();
        string(&text, &mut canonical);
        prop_assert_eq!(canonical_of(&json).expect("valid"), canonical);
        prop_assert_eq!(document.root().as_str().expect("string"), text.as_str());
        let up_to = &text[..text.floor_char_boundary(bytes_max)];
        prop_assert_eq!(document.root().as_str_up_to(bytes_max).expect("string"), up_to);
    }

    #[test]
    fn members_are_found_and_sorted_by_their_decoded_names(
        names in prop::collection::hash_set("[ab\\x00é😀\"]{0,10}", 0..24),
        other in "[ab\\x00é😀\"]{0,10}",
        styles in prop::collection::vec(any::<u8>(), 1..9),
    ) {
        let mut names: Vec<String> = names.into_iter().collect();
        let json = object(&names, &styles);
        let document = read(json.as_bytes(), LIMITS).expect("valid");
        for name in names.iter().chain([&other]) {
            let found = document.root().members().position(|(member, _)| member == *name);
            prop_assert_eq!(document.root().member(name).is_some(), names.contains(name));
            prop_assert_eq!(found.is_some(), names.contains(name));
        }
        names.sort_unstable();
        prop_assert_eq!(canonical_of(&json).expect("valid"), object(&names, &[3]));
    }

    #[test]
    fn an_object_is_refused_exactly_if_a_name_occurs_twice(
        names in prop::collection::vec("[a-c]{0,2}|[0-9]{2,3}", 0..30),
        styles in prop::collection::vec(any::<u8>(), 1..9),
    ) {
        let json = object(&names, &styles);
        let is_second = |at: usize| names[..at].contains(&names[at]);
        match read(json.as_bytes(), LIMITS) {
            Ok(_) => prop_assert!(!(0..names.len()).any(is_second)),
            Err(error) => {
                prop_assert_eq!(error.kind, ErrorKind::Duplicate);
                let at = json[..error.offset].matches(',').count();
                prop_assert!(is_second(at), "{} is no second name of {}", at, json);
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes, LIMITS);
    }
}
