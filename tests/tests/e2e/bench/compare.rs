//! `refrain bench compare`: every set-up is started, measured in turns and left behind clean.

use refrain_tests::fake::FakeUpstream;
use refrain_tests::redis::{Flavour, RedisServer, Value};

use super::{Bench, told};

const LINE: &str = "--model m --turns 2 --repeat 0.5 --requests 30 --concurrency 4 --rounds 2 --out out";

#[tokio::test]
async fn bench_compare_measures_every_set_up_and_leaves_nothing_behind() {
    let fakes = [FakeUpstream::start().await, FakeUpstream::start().await];
    let redis = RedisServer::start(Flavour::Plain).await;
    let bench = Bench::new();
    let [one, other] = fakes.each_ref().map(FakeUpstream::url);
    let output = bench
        .run(&format!("compare --upstream {one} --upstream {other} --redis {} {LINE}", redis.url()))
        .await;
    assert!(output.status.success(), "{}", told(&output));

    let names = "| | no cache | embedded | embedded + Redis | + prefix affinity |";
    let report = bench.read("out/report.md");
    assert!(report.contains(names) && told(&output).contains(names), "{report}");
    for needed in [
        "## Machine",
        "## Method",
        "seed 1, 30 requests a measurement",
        "load average",
        "REDIS_URL",
        "Redis: version 7.",
    ] {
        assert!(report.contains(needed), "{needed}: {report}");
    }
    assert!(!report.contains(&redis.url()), "a URL may hold a password");

    let rows = rows(&bench.read("out/results.csv"));
    let order: Vec<_> = rows.iter().map(|row| format!("{} {}", row["round"], row["setup"])).collect();
    let expected = [
        "1 no cache",
        "1 embedded",
        "1 embedded + Redis",
        "1 + prefix affinity",
        "2 embedded",
        "2 embedded + Redis",
        "2 + prefix affinity",
        "2 no cache",
    ];
    assert_eq!(order, expected, "the set-ups take turns");
    for row in &rows {
        assert_eq!(row["answered"], "30", "{row:?}");
        let has_hits = row["hit_share"] != "0";
        assert_eq!(has_hits, row["setup"] != "no cache", "{row:?}");
    }
    let chart = bench.read("out/ttft.svg");
    for text in ["no cache", "embedded + Redis", "milliseconds", "p50", "p95"] {
        assert!(chart.contains(text), "{text}");
    }
    assert!(bench.read("out/throughput.svg").contains("tokens / s"));
    assert_eq!(redis.command(&["DBSIZE"]).await, Value::Integer(0), "nothing stays in Redis");
}

#[tokio::test]
async fn bench_compare_says_what_is_left_out() {
    let fake = FakeUpstream::start().await;
    let bench = Bench::new();
    let line = format!("compare --upstream {} --proxies 1 --rounds 1 {LINE}", fake.url());
    let output = bench.run(&line.replace("--rounds 2 ", "")).await;
    assert!(output.status.success(), "{}", told(&output));
    let report = bench.read("out/report.md");
    assert!(report.contains("| | no cache | embedded |\n"), "{report}");
    assert!(report.contains("- embedded + Redis: no `--redis URL` was given"), "{report}");
    assert!(report.contains("- + prefix affinity: with one upstream"), "{report}");
}

#[tokio::test]
async fn bench_compare_of_whole_answers_draws_the_time_to_their_end() {
    let fake = FakeUpstream::start().await;
    let bench = Bench::new();
    let line = format!("compare --upstream {} --proxies 1 {LINE} --whole", fake.url());
    let output = bench.run(&line.replace("--rounds 2", "--rounds 1")).await;
    assert!(output.status.success(), "{}", told(&output));
    assert!(bench.read("out/report.md").contains("![end to end](e2e.svg)"));
    assert!(bench.read("out/e2e.svg").contains("End to end") && !bench.path("out/ttft.svg").exists());
    // 30 requests without a cache, less with one, and one before everything.
    assert!((32..=61).contains(&fake.posts()), "{}", fake.posts());
}

#[tokio::test]
async fn bench_compare_says_at_once_which_server_is_away() {
    let fake = FakeUpstream::start().await;
    let bench = Bench::new();
    let (code, error) = bench.refused(&format!("compare --upstream http://127.0.0.1:1 {LINE}")).await;
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("can't reach http://127.0.0.1:1/; is it running?"), "{error}");
    let line = format!("compare --upstream {} --redis redis://127.0.0.1:1 {LINE}", fake.url());
    let (code, error) = bench.refused(&line).await;
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("can't use Redis") && !error.contains("round 1"), "{error}");
}

/// Lines without quoted commas in the columns that are looked at.
fn rows(csv: &str) -> Vec<std::collections::HashMap<String, String>> {
    let mut lines = csv.lines().map(cells);
    let names = lines.next().unwrap();
    lines.map(|cells| names.iter().cloned().zip(cells).collect()).collect()
}

fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut is_quoted = false;
    for letter in line.chars() {
        match letter {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(String::new()),
            letter => cells.last_mut().unwrap().push(letter),
        }
    }
    cells
}
