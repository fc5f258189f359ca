//! A threshold is proposed from labels where they suffice, and none where they don't.

use std::path::{Path, PathBuf};

use refrain_tests::{Ask, Config};
use serde_json::Value;

use super::{PARAPHRASE, QUESTION, run};
use crate::start_with;

/// Pairs of questions with labels.
fn pairs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/cache/tests/data").join(name)
}

#[tokio::test]
async fn a_threshold_is_proposed_only_as_far_as_labels_show_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new("http://127.0.0.1:9").semantic("threshold = 0.95").write(dir.path());
    let (config, labels) = (config.to_str().unwrap(), pairs("pairs_fow.tsv"));
    let tune = async |more: &[&str]| {
        let fixed = ["tune", "--labels", labels.to_str().unwrap(), "--config", config];
        run(&[&fixed, more].concat()).await
    };
    let (is_proposed, page) = tune(&["--precision", "0.999"]).await;
    assert!(!is_proposed && page.contains("No threshold is proposed"), "{page}");
    let (is_proposed, json) = tune(&["--precision", "0.85", "--json"]).await;
    let tuned: Value = serde_json::from_str(&json).unwrap();
    assert!(is_proposed, "{tuned:#}");
    let proposed = tuned["proposed"].as_f64().unwrap();
    let rows = tuned["rows"].as_array().unwrap();
    let chosen = rows.iter().find(|row| row["threshold"] == tuned["proposed"]).unwrap();
    assert!(chosen["at_least"].as_f64().unwrap() >= 0.85, "{chosen}");
    let expected = &tuned["expected"];
    let precision = expected["row"]["precision"].as_f64().unwrap();
    let (low, high) = (expected["interval"][0].as_f64().unwrap(), expected["interval"][1].as_f64().unwrap());
    assert!((0.5..1.0).contains(&proposed) && low <= precision && precision <= high, "{tuned:#}");
    assert!(
        precision > 0.8,
        "what is expected of it is measured on labels that had no part in the choice: {expected}"
    );
}

#[tokio::test]
async fn what_shadow_mode_saw_can_be_tuned_by() {
    let (_fake, refrain) = start_with(|config| config.semantic("threshold = 0.85\nshadow = true")).await;
    refrain.send(&Ask::chat(QUESTION)).await;
    refrain.send(&Ask::chat(PARAPHRASE)).await;
    let seen = refrain.admin(&Ask::get("/shadow")).await.text();
    let line: Value = serde_json::from_str(seen.trim()).unwrap();
    assert_eq!((&line["would_serve"], &line["route"]), (&true.into(), &"all".into()), "{line}");
    assert!(line["similarity"].as_f64().unwrap() > 0.85 && !seen.contains("password"), "{seen}");
    let file = refrain.dir().join("shadow.jsonl");
    let label = |nth: usize| {
        format!("{{\"similarity\":0.9,\"same\":true,\"key\":\"k{nth}\",\"question\":\"{nth}\"}}\n")
    };
    std::fs::write(&file, (0..300).map(label).collect::<String>()).unwrap();
    let (is_proposed, page) = run(&["tune", "--log", file.to_str().unwrap(), "--route", "chat"]).await;
    assert!(is_proposed && page.contains("[route.chat.cache.semantic]\nthreshold = 0.90"), "{page}");
}
