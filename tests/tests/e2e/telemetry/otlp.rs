//! Traces and metrics as a collector gets them.

use std::collections::BTreeMap;

use refrain_tests::fake::{Answer, FakeUpstream, Gate, openai};
use refrain_tests::otlp::{Collector, Data, Span, attributes, texts};
use refrain_tests::{Ask, Config, Refrain};
use serde_json::json;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const OUTCOME: &str = "refrain.cache.outcome";

async fn start(lines: &str, change: impl FnOnce(Config) -> Config) -> (Collector, FakeUpstream, Refrain) {
    let (collector, fake) = (Collector::start().await, FakeUpstream::start().await);
    let table = format!("[otlp]\nurl = \"{}\"\nmetrics_interval = \"1s\"\n{lines}\n", collector.url());
    let refrain = Refrain::start(&change(Config::new(&fake.url()).tables(&table))).await;
    (collector, fake, refrain)
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_miss_and_its_hit_are_spans_with_the_conventions_names() {
    let (collector, _fake, refrain) = start("sample = 1.0", |config| config).await;
    let ask = Ask::chat("trace me");
    refrain.send(&ask).await;
    refrain.send(&ask).await;
    let miss = collector.request_with(OUTCOME, "miss").await;
    let model = ask.body();
    let model: serde_json::Value = serde_json::from_slice(&model).unwrap();
    let name = format!("chat {}", model["model"].as_str().unwrap());
    assert_eq!(names(&miss), [&*name, "policy", "cache lookup", &name]);
    let own = attributes(&miss[0]);
    let expected = [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", model["model"].as_str().unwrap()),
        ("http.response.status_code", "200"),
        ("refrain.route", "all"),
        ("refrain.origin", "upstream"),
        ("refrain.ended", "complete"),
    ];
    for (key, value) in expected {
        assert_eq!(own.get(key).map(String::as_str), Some(value), "{key} in {own:?}");
    }
    assert!(own.contains_key("gen_ai.usage.output_tokens"), "{own:?}");
    let dispatch = attributes(&miss[3]);
    assert!(dispatch.contains_key("server.address") && dispatch["refrain.pool"] == "llm", "{dispatch:?}");
    for child in &miss[1..] {
        assert_eq!((&child.trace_id, child.kind == 2), (&miss[0].trace_id, false));
        assert!(child.start_time_unix_nano >= miss[0].start_time_unix_nano);
        assert!(child.end_time_unix_nano >= child.start_time_unix_nano);
    }
    let hit = collector.request_with(OUTCOME, "hit_exact").await;
    assert_eq!(names(&hit), [&*name, "policy", "cache lookup"]);
    assert_eq!(attributes(&hit[2])["refrain.cache.hit"], "true");
    assert_eq!(attributes(&hit[0])["refrain.origin"], "cache");
}

#[tokio::test]
async fn a_semantic_hit_tells_how_near_it_was() {
    let change = |config: Config| config.semantic("threshold = 0.8");
    let (collector, _fake, refrain) = start("sample = 1.0", change).await;
    refrain.send(&Ask::chat("How do I reset my password?")).await;
    refrain.send(&Ask::chat("How can I reset my password?")).await;
    let hit = collector.request_with(OUTCOME, "hit_semantic").await;
    let similarity: f64 = attributes(&hit[2])["refrain.cache.similarity"].parse().unwrap();
    assert!((0.8..1.0).contains(&similarity), "{similarity}");
}

#[tokio::test]
async fn who_joins_a_generation_waits_for_another_request() {
    let (collector, fake, refrain) = start("sample = 1.0", |config| config).await;
    let gate = Gate::default();
    fake.next(openai::chat_stream(&["one ", "two"], "stop").gate(1, &gate));
    let ask = Ask::chat("together").streamed();
    let (first, second) = (refrain.open(&ask).await, refrain.open(&ask).await);
    gate.open();
    let _ = (first.rest().await, second.rest().await);
    let joined = collector.request_with(OUTCOME, "collapsed").await;
    assert!(names(&joined).contains(&"wait for another request"), "{:?}", names(&joined));
}

#[tokio::test]
async fn errors_are_traced_though_they_are_not_sampled() {
    let (collector, fake, refrain) = start("sample = 0.0", |config| config).await;
    refrain.send(&Ask::chat("quiet")).await;
    fake.next(Answer::json(500, &json!({"error": {"message": "zebra"}})));
    refrain.send(&Ask::chat("an upstream's error")).await;
    refrain.send(&Ask::post_bytes("/v1/chat/completions", "{")).await;
    let own = attributes(&collector.request_with("error.type", "invalid_json").await[0]);
    assert_eq!(own["http.response.status_code"], "400");
    let upstreams = collector.request_with("error.type", "500").await;
    assert_eq!(upstreams[0].status.as_ref().map(|status| status.code), Some(2));
    let outcomes: Vec<_> = collector.spans().iter().map(attributes).collect();
    assert!(
        !outcomes
            .iter()
            .any(|span: &BTreeMap<_, _>| span.get("http.response.status_code").is_some_and(|s| s == "200"))
    );
}

#[tokio::test]
async fn a_trace_comes_in_and_goes_on_to_the_upstream() {
    let (collector, fake, refrain) = start("sample = 0.0", |config| config).await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let ask = Ask::chat("go on").header("traceparent", &parent).header("tracestate", "vendor=1");
    refrain.send(&ask).await;
    let spans = collector.request_with(OUTCOME, "miss").await;
    assert_eq!(
        (hex(&spans[0].trace_id), hex(&spans[0].parent_span_id)),
        (TRACE.into(), "00f067aa0ba902b7".into())
    );
    let dispatch = spans.iter().find(|span| span.kind == 3).unwrap();
    let sent = fake.last_post();
    assert_eq!(sent.header("traceparent"), [format!("00-{TRACE}-{}-01", hex(&dispatch.span_id))]);
    assert_eq!(sent.header("tracestate"), ["vendor=1"]);
    refrain
        .send(&Ask::chat("broken").header("traceparent", "00-x-y-01").header("tracestate", "vendor=1"))
        .await;
    let sent = fake.last_post();
    assert!(sent.header("traceparent")[0].ends_with("-00") && sent.header("tracestate").is_empty());
}

#[tokio::test]
async fn without_a_collector_a_clients_context_passes_as_it_is() {
    let (fake, refrain) = crate::start().await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    refrain.send(&Ask::chat("pass").header("traceparent", &parent)).await;
    assert_eq!(fake.last_post().header("traceparent"), [parent]);
}

#[tokio::test]
async fn metrics_are_pushed_under_their_own_names_and_the_conventions() {
    let (collector, _fake, refrain) = start("traces = false", |config| config).await;
    refrain.send(&Ask::chat("count me").streamed()).await;
    refrain.counted("refrain_response_seconds_count", &[], 1.0).await;
    let metrics = collector.metrics_with("gen_ai.server.request.duration").await;
    let data = |name: &str| {
        metrics.iter().find(|metric| metric.name == name).and_then(|metric| metric.data.as_ref())
    };
    let Some(Data::Histogram(durations)) = data("gen_ai.server.request.duration") else {
        panic!("{metrics:?}")
    };
    let point = &durations.data_points[0];
    assert_eq!((point.count, point.bucket_counts.iter().sum::<u64>()), (1, 1));
    assert_eq!(texts(&point.attributes)["gen_ai.operation.name"], "chat");
    assert!(matches!(data("refrain_requests_total"), Some(Data::Sum(sum)) if sum.is_monotonic));
    assert!(matches!(data("refrain_process_ready"), Some(Data::Gauge(_))));
    assert_eq!(collector.spans().len(), 0);
}

#[tokio::test]
async fn a_collector_that_is_away_costs_no_request() {
    let table = "[otlp]\nurl = \"http://127.0.0.1:9\"\nsample = 1.0\nmetrics_interval = \"1s\"\n";
    let fake = FakeUpstream::start().await;
    let refrain = Refrain::start(&Config::new(&fake.url()).tables(table)).await;
    for nth in 0..20 {
        assert_eq!(refrain.send(&Ask::chat(&format!("away {nth}"))).await.status, 200);
    }
    refrain.logged(0, "the collector takes nothing").await;
    refrain.counted("refrain_otlp_exports_total", &[("result", "away")], 1.0).await;
}
