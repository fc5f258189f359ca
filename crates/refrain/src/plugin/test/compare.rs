//! What was expected against what a policy said.

use serde_json::{Map, Value};

/// Numbers cross the interface as 32 bits.
const NUMBER_TOLERANCE: f64 = 1e-6;

/// Lists whose order means nothing.
const SETS: [&str; 2] = ["vetoes", "tags"];

/// Texts that are durations.
const SPANS: [&str; 4] = ["ttl", "stale_while_revalidate", "stale_if_error", "retry_after"];

/// A line for each key that is not as expected. Keys that aren't written are not compared.
pub(super) fn differences(expected: &toml::Table, found: &Map<String, Value>) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, expected) in expected {
        let expected = json(expected);
        match found.get(key) {
            Some(found) if is_same(key, &expected, found) => {}
            Some(found) => lines.push(format!("{key}: expected {expected}, found {found}")),
            None => lines.push(format!("{key}: expected {expected}, found none in {}", whole(found))),
        }
    }
    lines
}

fn whole(found: &Map<String, Value>) -> String {
    Value::Object(found.clone()).to_string()
}

fn json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::from(text.as_str()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => Value::from(*number),
        toml::Value::Boolean(value) => Value::from(*value),
        toml::Value::Datetime(date) => Value::from(date.to_string()),
        toml::Value::Array(items) => items.iter().map(json).collect(),
        toml::Value::Table(table) => table.iter().map(|(key, value)| (key.clone(), json(value))).collect(),
    }
}

fn is_same(key: &str, expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Number(expected), Value::Number(found)) => {
            let (expected, found) = (expected.as_f64(), found.as_f64());
            expected.zip(found).is_some_and(|(a, b)| (a - b).abs() <= NUMBER_TOLERANCE)
        }
        // Errors hold details that are not the test's business.
        (Value::String(expected), Value::String(found)) if key == "error" => {
            found.contains(expected.as_str())
        }
        (Value::String(expected), Value::String(found)) if SPANS.contains(&key) => {
            let span = |text: &str| humantime::parse_duration(text).ok();
            span(expected).is_some() && span(expected) == span(found)
        }
        (Value::Array(expected), Value::Array(found)) if SETS.contains(&key) => {
            expected.len() == found.len() && expected.iter().all(|item| found.contains(item))
        }
        (Value::Object(expected), Value::Object(found)) => expected
            .iter()
            .all(|(name, expected)| found.get(name).is_some_and(|found| is_same(name, expected, found))),
        (expected, found) => expected == found,
    }
}

#[cfg(test)]
mod tests {
    use refrain_plugin::verdict::Decision;

    use super::*;
    use crate::plugin::decision;

    fn check(expected: &str, lines: &[&str]) {
        let planned = decision::tests::planned();
        let found = decision::of(&Ok(Decision::Cache(Box::new(planned))));
        assert_eq!(differences(&toml::from_str(expected).unwrap(), &found), lines, "{expected}");
    }

    #[test]
    fn what_is_written_in_another_form_is_the_same() {
        check("ttl = \"60m\"", &[]);
        check("ttl = \"3600s\"", &[]);
        check("threshold = 0.93", &[]);
        check("vetoes = [\"date\", \"number\"]", &[]);
        check("labels = {}", &[]);
        check("labels = { variant = \"a\" }", &[]);
        check("scope = { within-user = \"project-1\" }", &[]);
    }

    #[test]
    fn what_differs_is_told_with_both_values() {
        check("ttl = \"61m\"", &["ttl: expected \"61m\", found \"1h\""]);
        check("ttl = \"soon\"", &["ttl: expected \"soon\", found \"1h\""]);
        check("threshold = 0.92", &["threshold: expected 0.92, found 0.93"]);
        check("vetoes = [\"date\"]", &["vetoes: expected [\"date\"], found [\"number\",\"date\"]"]);
        check(
            "key = [\"history\", \"header:x-project\"]",
            &["key: expected [\"history\",\"header:x-project\"], found [\"header:x-project\",\"history\"]"],
        );
        check(
            "labels = { variant = \"b\" }",
            &["labels: expected {\"variant\":\"b\"}, found {\"variant\":\"a\"}"],
        );
        check("semantic = false", &["semantic: expected false, found true"]);
    }

    #[test]
    fn what_is_missing_is_told_with_what_is_there() {
        let found = Map::from_iter([("miss".to_owned(), Value::from("number_differs"))]);
        let lines = differences(&toml::from_str("accept = 0").unwrap(), &found);
        assert_eq!(lines, ["accept: expected 0, found none in {\"miss\":\"number_differs\"}"]);
    }
}
