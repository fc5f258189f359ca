//! The access line.

use refrain_tests::{Ask, Person, Refrain};
use serde_json::Value;

use crate::start_with;

/// The access lines so far.
fn lines(refrain: &Refrain) -> Vec<Value> {
    let logs = refrain.logs();
    let lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "refrain::access").collect()
}

#[tokio::test]
async fn a_line_tells_who_what_and_how_long_but_not_what_was_asked() {
    let ann = Person::new("ann", "acme");
    let (_fake, refrain) =
        start_with(|config| config.env("REFRAIN_LOG__FORMAT", "json").people(&[&ann])).await;
    let ask = Ask::chat("the zebra sleeps").by(&ann);
    refrain.open(&ask.clone().streamed()).await.rest().await.1.unwrap();
    refrain.send(&ask).await;
    refrain.logged(0, "hit_exact").await;
    let lines = lines(&refrain);
    let [miss, hit] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(
        (&miss["outcome"], &miss["ended"], &miss["tenant"]),
        (&"miss".into(), &"complete".into(), &"acme".into())
    );
    assert!(miss["endpoint"].is_string() && miss["output_tokens"].as_u64().unwrap() > 0, "{miss}");
    assert!(miss["first_byte_ms"].as_f64().unwrap() <= miss["ms"].as_f64().unwrap());
    assert!(hit["endpoint"].is_null() && miss["user"] == hit["user"] && miss["user"] != "ann", "{hit}");
    assert!(!refrain.logs().contains("zebra"));
}

#[tokio::test]
async fn prompts_are_logged_where_a_route_says_so_and_redacted() {
    let table = "[route.all.log]\nprompts = true\nredact = [\"(?i)zebra\"]\n";
    let (_fake, refrain) = start_with(|config| config.tables(table)).await;
    refrain.send(&Ask::chat("Does the Zebra of ann@example.com sleep?")).await;
    refrain.logged(0, "Does the [redacted] of [redacted] sleep?").await;
    let logs = refrain.logs();
    assert!(!logs.contains("Zebra of") && !logs.contains("ann@example.com"));
    assert!(logs.contains("redaction is a sieve, not a wall"), "no warning:\n{logs}");
}
