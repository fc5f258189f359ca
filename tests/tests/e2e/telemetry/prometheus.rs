//! The dashboard and the rules in `config/`, run by a real Prometheus against a real scrape.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use refrain_tests::fake::FakeUpstream;
use refrain_tests::otlp::Collector;
use refrain_tests::redis::{Flavour, RedisServer};
use refrain_tests::{Ask, Config, Policy, Prometheus, Refrain, eventually};
use serde_json::Value;

use super::gpu;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap()
}

/// Queries of the dashboard, its variables filled in as for "All".
fn of_dashboard() -> Vec<String> {
    fn gather(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("expr").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| gather(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| gather(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    gather(&serde_json::from_str(&text("config/grafana/refrain.json")).unwrap(), &mut found);
    found.into_iter().map(|query| query.replace("$job", ".*").replace("$route", ".*")).collect()
}

/// Queries of a file of rules, which folds long ones.
fn of_rules(path: &str) -> Vec<String> {
    let text = text(path);
    let mut found = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(expression) = line.trim().strip_prefix("expr: ") else { continue };
        if expression != ">" {
            found.push(expression.to_owned());
            continue;
        }
        let depth = |line: &str| line.len() - line.trim_start().len();
        let indent = lines.peek().map_or(0, |line| depth(line));
        let mut folded = String::new();
        while let Some(line) = lines.next_if(|line| depth(line) >= indent) {
            folded += &format!(" {}", line.trim());
        }
        found.push(folded);
    }
    found
}

/// Names of metrics in a query, as far as ours go.
fn names(query: &str) -> BTreeSet<String> {
    let words =
        query.split(|character: char| !(character.is_ascii_alphanumeric() || "_:".contains(character)));
    words
        .filter(|word| word.starts_with("refrain_") || word.starts_with("refrain:"))
        .map(str::to_owned)
        .collect()
}

/// A Refrain with everything that has numbers, and a little of each kind of request.
async fn busy() -> ([FakeUpstream; 2], RedisServer, Collector, tempfile::TempDir, Refrain) {
    let (fake, exporter, redis, collector) = (
        FakeUpstream::start().await,
        gpu::exporter().await,
        RedisServer::start(Flavour::VectorSets).await,
        Collector::start().await,
    );
    let dir = tempfile::tempdir().unwrap();
    let tables = format!(
        "[otlp]\nurl = \"{}\"\nmetrics_interval = \"1s\"\nsample = 1.0\n\n\
         [cost]\nbudget_per_day = 9.0\n\n\
         [limit.all]\nby = [\"route\"]\nrequests_per_minute = 100000\n\n{}",
        collector.url(),
        gpu::table(&exporter)
    );
    let redis_lines = format!("url = \"{}\"\ntimeout = \"2s\"\nconnect_timeout = \"5s\"", redis.url());
    let config = Config::new(&fake.url())
        .route("limits = [\"all\"]")
        .pool("price_per_hour = 2.0")
        .semantic("threshold = 0.8")
        .policy("test", &Policy::new(), "")
        .redis(&dir.path().join("secret"), &redis_lines)
        .tables(&tables);
    let refrain = Refrain::start(&config).await;
    for ask in [Ask::chat("How do I reset my password?"), Ask::chat("How can I reset my password?")] {
        refrain.send(&ask).await;
        refrain.open(&ask.streamed()).await.rest().await.1.unwrap();
    }
    let several = Ask::chat("another one, in pieces").streamed().cache_control("no-store");
    refrain.open(&several).await.rest().await.1.unwrap();
    refrain.send(&Ask::post_bytes("/v1/chat/completions", "{")).await;
    ([fake, exporter], redis, collector, dir, refrain)
}

#[tokio::test]
async fn every_query_of_dashboard_and_rules_runs_and_names_what_is_there() {
    let (_fakes, _redis, _collector, dir, refrain) = busy().await;
    let files = ["config/prometheus/recording.yml", "config/prometheus/alerts.yml"];
    // As they are but for their pace.
    let hurried = files.map(|file| {
        let path = dir.path().join(Path::new(file).file_name().unwrap());
        std::fs::write(&path, text(file).replace("interval: 30s", "interval: 1s")).unwrap();
        path
    });
    let prometheus = Prometheus::start(&refrain, &hurried).await;
    eventually("what rules record", async || {
        prometheus.names().await.contains("refrain:pool_servers:in_service").then_some(())
    })
    .await;
    refrain.counted("refrain_otlp_exports_total", &[("signal", "metrics")], 1.0).await;
    let queries: Vec<String> =
        of_dashboard().into_iter().chain(files.into_iter().flat_map(of_rules)).collect();
    assert!(queries.len() > 70, "{}", queries.len());
    for query in &queries {
        prometheus.query(query).await.unwrap_or_else(|error| panic!("{query}: {error}"));
    }
    // Rates need several scrapes, so recorded ones come late: their rules are there, and what they are made of is.
    let recorded: BTreeSet<String> = text(files[0])
        .lines()
        .filter_map(|line| Some(line.trim().strip_prefix("- record: ")?.to_owned()))
        .collect();
    let wanted: BTreeSet<String> = queries.iter().flat_map(|query| names(query)).collect();
    let missing = eventually("all series", async || {
        let known = prometheus.names().await;
        let missing: Vec<_> =
            wanted.iter().filter(|name| !known.contains(*name) && !recorded.contains(*name)).collect();
        missing.is_empty().then(Vec::<String>::new)
    });
    assert_eq!(missing.await, [""; 0]);
    let down = prometheus.query("up{job=\"refrain\"} == 1").await.unwrap();
    assert_eq!(down.len(), 1);
}

#[tokio::test]
async fn alerts_fire_when_they_should_and_stay_silent_otherwise() {
    let dir = repository("config/prometheus");
    Prometheus::tool(&dir, &["check", "rules", "alerts.yml", "recording.yml"]).await.unwrap();
    Prometheus::tool(&dir, &["test", "rules", "alerts_test.yml"]).await.unwrap();
}

#[test]
fn every_alert_is_provoked_by_a_test() {
    let tests = text("config/prometheus/alerts_test.yml");
    let alerts = text("config/prometheus/alerts.yml");
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "alerts_test.yml does not provoke {name}");
    }
}

#[tokio::test]
async fn a_scrape_is_what_promtool_takes_for_one() {
    let (_fakes, _redis, _collector, dir, refrain) = busy().await;
    refrain.counted("refrain_otlp_exports_total", &[("signal", "metrics")], 1.0).await;
    let file = dir.path().join("scrape.txt");
    std::fs::write(&file, refrain.metrics().await.text()).unwrap();
    Prometheus::lint(&file).await.unwrap();
}

#[test]
fn every_alert_has_a_paragraph_that_says_what_to_do() {
    let operations = text("docs/operations.md");
    let headings: BTreeSet<String> = operations
        .lines()
        .filter_map(|line| Some(line.strip_prefix("#")?.trim_start_matches('#').trim().to_lowercase()))
        .map(|heading| {
            let kept =
                heading.chars().filter(|character| character.is_alphanumeric() || " -_".contains(*character));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect();
    let alerts = text("config/prometheus/alerts.yml");
    let count = |needle: &str| alerts.matches(needle).count();
    assert!(count("- alert:") > 15 && count("- alert:") == count("runbook_url:"));
    for line in alerts.lines().filter(|line| line.contains("runbook_url:")) {
        let (_, anchor) = line.split_once('#').unwrap();
        assert!(headings.contains(anchor), "docs/operations.md has no heading for #{anchor}");
    }
}
