//! Traces and metrics as a collector gets them.

use std::collections::BTreeMap;

use refrain_tests::fake::{Answer, FakeUpstream, Gate, openai};
use refrain_tests::otlp::{Collector, Data, NumberValue, Span, attributes, texts};
use refrain_tests::{Ask, Authority, Config, Refrain, TlsFront, eventually};
use serde_json::json;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const OUTCOME: &str = "refrain.cache.outcome";
/// The kind of a span of asking a server.
const CLIENT: i32 = 3;

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
    assert_eq!(
        (dispatch["server.address"].as_str(), dispatch["refrain.pool"].as_str()),
        ("127.0.0.1", "llm")
    );
    assert!(dispatch["refrain.endpoint"].ends_with(&dispatch["server.port"]), "{dispatch:?}");
    assert_eq!(
        (&dispatch["gen_ai.operation.name"], &dispatch["gen_ai.provider.name"]),
        (&"chat".into(), &"openai".into())
    );
    // Sampled, and known to have no parent elsewhere.
    assert!(miss.iter().all(|span| span.flags == 0x101), "{miss:?}");
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
    let status = |span: &Span| span.status.as_ref().map(|status| status.code);
    let clients = collector.request_with("error.type", "invalid_json").await;
    assert_eq!(attributes(&clients[0])["http.response.status_code"], "400");
    assert_eq!(status(&clients[0]), Some(0), "a client's mistake is no error of this span");
    let upstreams = collector.request_with("error.type", "500").await;
    let dispatch = upstreams.iter().find(|span| span.kind == CLIENT).unwrap();
    assert_eq!((status(&upstreams[0]), status(dispatch)), (Some(2), Some(2)));
    assert_eq!(attributes(dispatch)["error.type"], "500");
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
    let dispatch = spans.iter().find(|span| span.kind == CLIENT).unwrap();
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
async fn errors_are_no_calls_of_a_model_in_the_conventions_metrics() {
    let (collector, _fake, refrain) = start("traces = false", |config| config).await;
    refrain.send(&Ask::chat("whole")).await;
    refrain.open(&Ask::chat("a stream").streamed()).await.rest().await.1.unwrap();
    refrain.send(&Ask::post_bytes("/v1/chat/completions", "{")).await;
    refrain.counted("refrain_response_seconds_count", &[], 3.0).await;
    let counts = eventually("three answers", async || {
        let metrics = collector.metrics_with("gen_ai.server.time_to_first_token").await;
        let count = |name: &str| -> u64 {
            let data =
                metrics.iter().find(|metric| metric.name == name).and_then(|metric| metric.data.as_ref());
            let Some(Data::Histogram(histogram)) = data else { return 0 };
            histogram.data_points.iter().map(|point| point.count).sum()
        };
        let own = count("refrain_response_seconds");
        (own == 3)
            .then(|| (count("gen_ai.server.request.duration"), count("gen_ai.server.time_to_first_token")))
    });
    // What comes whole has no first token that could be seen.
    assert_eq!(counts.await, (2, 1));
}

#[tokio::test]
async fn each_process_is_an_instance_of_its_own() {
    let (collector, fake, refrain) = start("traces = false", |config| config).await;
    let other = format!("[otlp]\nurl = \"{}\"\nmetrics_interval = \"1s\"\n", collector.url());
    let other = Refrain::start(&Config::new(&fake.url()).tables(&other)).await;
    let of_two = eventually("two instances", async || {
        let instances = collector.instances();
        (instances.len() == 2).then_some(instances)
    });
    assert!(of_two.await.iter().all(|instance| instance.len() == 32));
    drop((refrain, other));
}

#[tokio::test]
async fn a_collector_behind_tls_is_trusted_by_its_own_authority_alone() {
    let (collector, fake, dir) =
        (Collector::start().await, FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let (authority, stranger) = (Authority::new(), Authority::new());
    let front = TlsFront::start(collector.address(), authority.server(&["otel.test"])).await;
    let file = dir.path().join("ca.pem");
    stranger.write_root(&file);
    let table = format!(
        "[otlp]\nurl = \"{}\"\nsample = 1.0\nmetrics = false\nauthorization = {{ env = \"OTLP_TOKEN\" }}\n\
         tls = {{ ca_file = {file:?}, server_name = \"otel.test\" }}\n",
        front.url()
    );
    let config = Config::new(&fake.url()).env("OTLP_TOKEN", "Bearer token-of-the-collector").tables(&table);
    let refrain = Refrain::start(&config).await;
    refrain.send(&Ask::chat("to nobody that is known")).await;
    refrain.counted("refrain_otlp_exports_total", &[("signal", "traces"), ("result", "away")], 1.0).await;
    assert_eq!(collector.spans().len(), 0);
    // The file is renewed, and read anew without a reload.
    authority.write_root(&file);
    refrain.send(&Ask::chat("trust it now")).await;
    collector.request_with(OUTCOME, "miss").await;
    let sent = collector.requests("/v1/traces");
    assert_eq!(sent[0].header("authorization"), ["Bearer token-of-the-collector"]);
    assert_eq!(front.greetings()[0].server_name.as_deref(), Some("otel.test"));
    assert!(!refrain.logs().contains("token-of-the-collector"));
}

#[tokio::test]
async fn what_is_under_way_when_the_process_stops_is_still_sent() {
    let (collector, _fake, mut refrain) = start("sample = 1.0", |config| config).await;
    refrain.send(&Ask::chat("the last one")).await;
    refrain.sigterm();
    refrain.ended().await;
    collector.request_with(OUTCOME, "miss").await;
    let metrics = collector.metrics_with("refrain_requests_total").await;
    let data = metrics.iter().find(|metric| metric.name == "refrain_requests_total").unwrap().data.as_ref();
    let Some(Data::Sum(sum)) = data else { panic!("{data:?}") };
    let misses = sum.data_points.iter().find(|point| texts(&point.attributes)["outcome"] == "miss").unwrap();
    assert_eq!(misses.value, Some(NumberValue::AsDouble(1.0)));
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
