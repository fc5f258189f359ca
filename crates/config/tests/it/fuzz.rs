//! Whatever stands in the file or the environment: an answer, and never a panic.

use proptest::prelude::*;
use refrain_config::{Errors, Source, load};

const WHOLE: &str = include_str!("../../../../config/refrain.toml");
const TENANTS: &str = include_str!("../../../../config/examples/multi-tenant.toml");
const REDIS: &str = include_str!("../../../../config/examples/redis.toml");

fn load_text(text: &str) -> Result<(), Errors> {
    load(&Source::from_text("fuzz.toml", text, [])).map(drop)
}

/// Problems print, each has a line of its own, and none is the typed layer's: the walk must have found it.
fn check(result: Result<(), Errors>) {
    let Err(errors) = result else { return };
    assert!(!errors.problems().is_empty());
    for problem in errors.problems() {
        assert!(!problem.to_string().is_empty());
        let untold = ["invalid type", "unknown field", "missing field", "unknown variant", "invalid value"];
        assert!(untold.iter().all(|text| !problem.message.starts_with(text)), "{problem}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_text_never_panics(text in any::<String>()) {
        check(load_text(&text));
    }

    #[test]
    fn random_ascii_never_panics(text in "[\\[\\]{}=\"'.,#a-z0-9 \n-]{0,200}") {
        check(load_text(&text));
    }

    #[test]
    fn a_mutated_file_never_panics(
        file in prop::sample::select(vec![WHOLE, TENANTS, REDIS]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), "\\PC{0,6}"), 1..4),
    ) {
        let mut text: Vec<char> = file.chars().collect();
        for (from, length, new) in edits {
            let from = from.index(text.len());
            let to = (from + length.index(12)).min(text.len());
            text.splice(from..to, new.chars());
        }
        check(load_text(&text.into_iter().collect::<String>()));
    }

    #[test]
    fn a_value_swapped_for_another_never_panics(
        line in any::<prop::sample::Index>(),
        value in prop::sample::select(vec![
            "1", "-1", "9223372036854775807", "1.5", "nan", "inf", "true", "\"\"", "\"1h\"", "\"user\"", "[]", "[1]",
            "[[]]", "{}", "{ a = 1 }", "2026-01-01", "\"18446744073709551615s 1000ms\"", "\"9999999 TiB\"",
        ]),
    ) {
        for text in [WHOLE, TENANTS, REDIS] {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let keyed: Vec<usize> = (0..lines.len())
                .filter(|index| lines[*index].contains(" = ") && !lines[*index].starts_with('#'))
                .collect();
            let index = keyed[line.index(keyed.len())];
            let key = lines[index].split(" = ").next().unwrap_or_default().to_owned();
            lines[index] = format!("{key} = {value}");
            check(load_text(&lines.join("\n")));
        }
    }

    #[test]
    fn random_variables_never_panic(name in "[A-Za-z_0-9-]{0,24}", path in prop::sample::select(vec![
        "", "ROUTE__CHAT__CACHE__", "POOL__OLLAMA__ENDPOINTS__", "POOL__", "LIMITS__", "ROUTE__CHAT__CACHE__SCOPE__",
    ]), value in "\\PC{0,12}") {
        let environment = [(format!("REFRAIN_{path}{name}"), value)];
        check(load(&Source::from_text("fuzz.toml", WHOLE, environment)).map(drop));
    }
}

#[test]
fn deep_nesting_is_refused() {
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a{} = 1", ".a".repeat(100_000)),
        "[a".repeat(10_000),
    ] {
        assert!(load_text(&text).is_err());
    }
}
