//! One measurement: its counts add up, its times are those of the server, its hits are those of the cache.

use std::time::Duration;

use refrain_tests::fake::{Answer, FakeUpstream, openai};
use refrain_tests::{Authority, Config, Person, Refrain, TlsFront, within};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Bench, count, told};
use crate::{start, start_with};

/// Every field and its type: what programs may rely on.
const FIELDS: &str = include_str!("fields.txt");

const SERVED: [&str; 8] = ["exact", "semantic", "stale", "collapsed", "miss", "request", "bypass", "unknown"];

fn served(report: &Value) -> [u64; 8] {
    SERVED.map(|kind| count(report, &format!("/cache/served/{kind}")))
}

#[tokio::test]
async fn bench_counts_add_up_and_hits_are_told_apart() {
    let (fake, refrain) = start().await;
    let bench = Bench::new();
    let line = "--model m --repeat 0.6 --turns 2 --requests 80 --concurrency 4 --csv r.csv --log r.jsonl";
    let report = bench.measure(&format!("--url {} {line}", refrain.url())).await;
    assert_eq!((count(&report, "/requests/due"), count(&report, "/requests/answered")), (80, 80));
    let [exact, semantic, stale, collapsed, miss, ..] = served(&report);
    assert_eq!(served(&report).iter().sum::<u64>(), 80);
    assert_eq!((semantic, stale), (0, 0));
    assert_eq!(exact + collapsed + miss, 80);
    assert!(exact > 10, "{report:#}");
    assert_eq!(usize::try_from(miss).unwrap(), fake.posts(), "what was no hit was generated");
    assert_eq!(count(&report, "/cached/e2e_ms/count"), exact);
    assert_eq!(count(&report, "/joined/e2e_ms/count"), collapsed);
    assert_eq!(count(&report, "/generated/e2e_ms/count"), miss);
    assert_eq!(count(&report, "/ttft_ms/count"), 80);
    assert!(count(&report, "/tokens/output") > count(&report, "/tokens/output_generated"));
    assert_eq!(bench.read("r.jsonl").lines().count(), 80);
    let csv = bench.read("r.csv");
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    let answered = lines[0].iter().position(|name| *name == "answered").unwrap();
    assert_eq!(lines.len(), 2);
    assert!(csv.contains("closed loop") && lines[0].len() > answered, "{csv}");
}

#[tokio::test]
async fn bench_json_has_the_fields_that_programs_rely_on() {
    let (_fake, refrain) = start().await;
    let line = "--model m --requests 4 --objective ttft=10s,e2e=1m,gap=10s";
    let report = Bench::new().measure(&format!("--url {} {line}", refrain.url())).await;
    let mut fields = String::new();
    list(&report, "", &mut fields);
    assert_eq!(fields, FIELDS, "a field that was there stays, with its type; add new ones to fields.txt");
}

fn list(value: &Value, place: &str, fields: &mut String) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| list(value, &format!("{place}/{name}"), fields));
        }
        Value::Null => fields.push_str(&format!("{place} null\n")),
        Value::Bool(_) => fields.push_str(&format!("{place} bool\n")),
        Value::Number(_) => fields.push_str(&format!("{place} number\n")),
        Value::String(_) => fields.push_str(&format!("{place} string\n")),
        Value::Array(_) => fields.push_str(&format!("{place} array\n")),
    }
}

#[tokio::test]
async fn bench_reads_every_api_streamed_and_whole() {
    let fake = FakeUpstream::start().await;
    for api in ["chat", "messages", "ollama"] {
        for (form, streams) in [("", true), ("--whole", false)] {
            let line = format!("--url {} --model m --api {api} --requests 3 {form}", fake.url());
            let report = Bench::new().measure(&line).await;
            assert_eq!(count(&report, "/requests/answered"), 3, "{line}: {report:#}");
            assert_eq!(count(&report, "/cache/served/unknown"), 3, "{line}: no cache in between");
            assert_eq!(count(&report, "/ttft_ms/count"), if streams { 3 } else { 0 }, "{line}");
            assert!(count(&report, "/tokens/output") > 3 * 60, "{line}: {report:#}");
            assert_eq!(count(&report, "/tokens/answers_counted_by_chunks"), 0, "{line}");
            assert_eq!(count(&report, "/finish/stop"), 3, "{line}");
        }
    }
}

#[tokio::test]
async fn bench_times_are_those_of_the_server() {
    let fake = FakeUpstream::start().await;
    let pieces = ["a", "b", "c"];
    // The head, the role, then each piece 100 ms after the one before.
    fake.always(move |_| {
        let answer = openai::chat_stream(&pieces, "stop");
        let pause = Duration::from_millis(100);
        answer.pause(4, pause).pause(3, pause).pause(2, pause)
    });
    let line = format!("--url {} --model m --requests 5 --concurrency 1", fake.url());
    let report = Bench::new().measure(&line).await;
    let at = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).unwrap();
    assert_eq!(count(&report, "/gap_ms/count"), 10, "two between three pieces");
    assert!(
        at("/ttft_ms/p50") >= 100.0 && at("/gap_ms/p50") >= 90.0 && at("/e2e_ms/p50") >= 300.0,
        "{report:#}"
    );
    // No upper bound is safe on a busy machine, but the first text comes before the last.
    assert!(at("/ttft_ms/p50") + 150.0 < at("/e2e_ms/p50"), "{report:#}");
    assert!(at("/tokens/per_request_per_second/p50") <= 10.0, "3 tokens in 0.3 s: {report:#}");
}

#[tokio::test]
async fn bench_goodput_counts_every_request_that_was_due() {
    let (fake, refrain) = start().await;
    let url = refrain.url();
    let share = async |objective: &str| {
        fake.next(Answer::json(500, &serde_json::json!({"error": {"message": "out of memory"}})));
        let line = format!(
            "--url {url} --model m --rate 200 --arrivals constant --requests 20 --no-cache {objective}"
        );
        let report = Bench::new().measure(&line).await;
        assert_eq!(
            (count(&report, "/requests/due"), count(&report, "/requests/failed")),
            (20, 1),
            "{report:#}"
        );
        let failure = report["failures"]["status_500"].clone();
        assert!(
            failure["count"] == 1 && failure["first"].as_str().unwrap().contains("out of memory"),
            "{report:#}"
        );
        report["goodput"]["share"].as_f64().unwrap()
    };
    assert!((share("--objective e2e=1m").await - 0.95).abs() < 1e-9);
    assert!(share("--objective ttft=1us").await < 1e-9);
}

#[tokio::test]
async fn bench_without_cache_generates_everything() {
    let (fake, refrain) = start().await;
    let line = format!("--url {} --model m --repeat 1 --turns 1 --requests 10 --no-cache", refrain.url());
    let report = Bench::new().measure(&line).await;
    assert_eq!(served(&report)[..4], [0; 4]);
    assert_eq!(fake.posts(), 10);
}

#[tokio::test]
async fn bench_names_failures_by_kind_and_goes_on() {
    let fake = FakeUpstream::start().await;
    fake.next(openai::chat_stream(&["a", "b"], "stop").cut(3));
    fake.next(Answer::stream("text/event-stream", ["data: {\"error\":{\"message\":\"x\"}}\n\n".to_owned()]));
    fake.next(Answer::stream("text/event-stream", ["data: nonsense\n\n".to_owned()]));
    fake.next(Answer::close());
    let line = format!("--url {} --model m --requests 8 --concurrency 1 --turns 1", fake.url());
    let report = Bench::new().measure(&line).await;
    assert_eq!(
        (count(&report, "/requests/answered"), count(&report, "/requests/failed")),
        (4, 4),
        "{report:#}"
    );
    for (kind, times) in [("broken", 2), ("error_in_answer", 1), ("malformed", 1)] {
        assert_eq!(count(&report, &format!("/failures/{kind}/count")), times, "{report:#}");
    }
}

#[tokio::test]
async fn bench_that_is_interrupted_reports_what_there_is() {
    let fake = FakeUpstream::start().await;
    let bench = Bench::new();
    fake.next(openai::chat_stream(&["a"], "stop"));
    fake.next(Answer::never());
    let child =
        bench.spawn(&format!("--url {} --model m --concurrency 1 --turns 1 --json r.json", fake.url()));
    fake.posted(2).await;
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let output = within("its end", child.wait_with_output()).await.unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let report: Value = serde_json::from_str(&bench.read("r.json")).unwrap();
    assert_eq!((count(&report, "/requests/answered"), count(&report, "/requests/unfinished")), (1, 1));
}

#[tokio::test]
async fn bench_replays_traces() {
    let (fake, refrain) = start().await;
    let bench = Bench::new();
    let whole =
        zstd::decode_all(&include_bytes!("../../../data/mooncake_conversation.jsonl.zst")[..]).unwrap();
    let lines: Vec<&str> = std::str::from_utf8(&whole).unwrap().lines().take(12).collect();
    bench.write("mooncake.jsonl", &lines.join("\n"));
    bench.write("azure.csv", include_str!("../../../data/azure_conv_head.csv"));
    for (kind, trace, requests) in [("mooncake", "mooncake.jsonl", 12), ("azure", "azure.csv", 40)] {
        let line =
            format!("--url {} --model m --workload {kind} --trace {trace} --speed 1000", refrain.url());
        let before = fake.posts();
        let report = bench.measure(&line).await;
        assert_eq!(count(&report, "/requests/answered"), requests, "{report:#}");
        assert_eq!(fake.posts() - before, usize::try_from(requests).unwrap(), "no two are the same");
        assert!(report["setup"]["load"].as_str().unwrap().contains("as recorded"), "{report:#}");
    }
}

#[tokio::test]
async fn bench_sends_its_key() {
    let ann = Person::new("ann", "acme");
    let (_fake, refrain) = start_with(|config| config.people(&[&ann])).await;
    let bench = Bench::new();
    bench.write("key", &format!("{}\n", ann.token()));
    let line = format!("--url {} --model m --requests 2", refrain.url());
    let report = bench.measure(&format!("{line} --key-file key")).await;
    assert_eq!(count(&report, "/requests/answered"), 2);
    let (code, _) = bench.refused(&line).await;
    assert_eq!(code, Some(1), "nothing was answered");
}

#[tokio::test]
async fn bench_trusts_the_authority_that_it_is_given() {
    let fake = FakeUpstream::start().await;
    let authority = Authority::new();
    let front = TlsFront::start(fake.address(), authority.server(&["localhost", "127.0.0.1"])).await;
    let bench = Bench::new();
    authority.write_root(&bench.path("ca.pem"));
    let line = format!("--url {} --model m --requests 2", front.url());
    let report = bench.measure(&format!("{line} --ca ca.pem")).await;
    assert_eq!(count(&report, "/requests/answered"), 2);
    let (_, error) = bench.refused(&line).await;
    assert!(error.contains("can't reach") && error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn bench_alternates_between_several_servers() {
    let fakes = [FakeUpstream::start().await, FakeUpstream::start().await];
    let urls = fakes.each_ref().map(|fake| format!("--url {}", fake.url())).join(" ");
    Bench::new().measure(&format!("{urls} --model m --requests 10")).await;
    assert_eq!(fakes.each_ref().map(FakeUpstream::posts), [5, 5]);
}

#[tokio::test]
async fn bench_finds_paraphrases_in_the_semantic_tier() {
    let fake = FakeUpstream::start().await;
    let refrain = Refrain::start(&Config::new(&fake.url()).semantic("threshold = 0.85")).await;
    let bench = Bench::new();
    bench.write("p.tsv", "How do I reset my password?\tHow can I reset my password?\n");
    let line = "--model m --paraphrases p.tsv --paraphrase 1 --requests 12 --concurrency 1";
    let report = bench.measure(&format!("--url {} {line}", refrain.url())).await;
    let [exact, semantic, _, _, miss, ..] = served(&report);
    assert!(semantic >= 1 && miss == 1 && exact + semantic == 11, "{report:#}");
}
