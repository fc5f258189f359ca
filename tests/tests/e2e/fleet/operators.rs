//! What operators see of a fleet and do about it: `refrain upstreams`, the admin listener, metrics and autoscalers.

use std::collections::BTreeSet;

use refrain_tests::fake::{FakeUpstream, Gate, openai};
use refrain_tests::{Ask, Client, Config, Refrain, eventually, refrain_binary, within};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const EXAMPLES: [&str; 2] = [
    include_str!("../../../../config/examples/scaling/keda-scaledobject.yaml"),
    include_str!("../../../../config/examples/scaling/hpa.yaml"),
];

/// Runs `refrain upstreams` with these words against a proxy; whether it succeeded, and what it said.
pub(crate) async fn upstreams(refrain: &Refrain, words: &[&str]) -> (bool, String) {
    let mut command = tokio::process::Command::new(refrain_binary());
    command.arg("upstreams").args(words).args(["--admin", &refrain.admin_address().to_string()]);
    let output = within("refrain upstreams", command.kill_on_drop(true).output()).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

async fn page(refrain: &Refrain, path: &str) -> Value {
    let reply = refrain.admin(&Ask::get(path)).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.json()
}

/// Every word that looks like a metric of ours.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("refrain_")).collect()
}

#[tokio::test]
async fn fleet_metrics_of_the_scaling_examples_exist() {
    let (_fake, refrain) = crate::start_with(|config| config.quiet()).await;
    let scraped = refrain.metrics().await;
    let there: BTreeSet<&str> =
        scraped.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for example in EXAMPLES {
        let named = metrics_in(example);
        assert!(!named.is_empty(), "{example}");
        for name in named {
            assert!(there.contains(name) && scraped.has(&format!("{name}{{pool=\"llm\"")), "{name}");
        }
    }
}

#[tokio::test]
async fn fleet_location_in_the_scaling_page_is_the_one_that_keda_is_told() {
    let location = EXAMPLES[0].lines().find_map(|line| line.split_once("valueLocation: ")).unwrap().1;
    let (_fake, refrain) = crate::start_with(|config| config.quiet()).await;
    let scaling = page(&refrain, "/scaling").await;
    let found = location.replace("gpu", "llm").split('.').fold(scaling.clone(), |at, name| at[name].clone());
    assert_eq!(found, 1, "{scaling}");
}

#[tokio::test]
async fn fleet_load_makes_more_replicas_wanted_at_once() {
    let fake = FakeUpstream::start().await;
    let gate = Gate::default();
    let held = gate.clone();
    fake.always(move |request| openai::chat(&request.json(), 1).gate(1, &held));
    let config = Config::new(&fake.url()).pool("limits = { concurrency = 2, queue = 16 }");
    let refrain = Refrain::start(&config).await;
    let client = Client::http(refrain.address());
    let mut asks = JoinSet::new();
    for nth in 0..6 {
        let client = client.clone();
        asks.spawn(async move { client.send(&Ask::chat(&format!("question {nth}"))).await.status });
    }
    let busy = eventually("two in flight and four that wait", async || {
        let pool = page(&refrain, "/scaling").await["pools"]["llm"].clone();
        (pool["in_flight"] == 2 && pool["queue_depth"] == 4).then_some(pool)
    })
    .await;
    assert_eq!(busy["desired_replicas"], 4, "6 requests at 1.8 a server: {busy}");
    // It is looked at every second.
    let uptime = async || refrain.metrics().await.sum("refrain_process_uptime_seconds", &[]);
    let begun = uptime().await;
    eventually("a look at the load", async || (uptime().await > begun + 1.5).then_some(())).await;
    gate.open();
    while let Some(status) = asks.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    let idle = page(&refrain, "/scaling").await["pools"]["llm"].clone();
    assert_eq!((&idle["queue_depth"], &idle["queue_waits"]), (&json!(0), &json!(4)), "{idle}");
    assert_eq!(idle["desired_replicas"], 4, "less is asked for only after a while: {idle}");
    assert!(idle["queue_wait_seconds"].as_f64().unwrap() > 0.0, "{idle}");
    let metrics = refrain.metrics().await;
    assert!(metrics.sum("refrain_pool_output_tokens_total", &[("pool", "llm")]) > 0.0, "{}", metrics.text());
}

#[tokio::test]
async fn fleet_table_shows_who_is_there_and_what_went_wrong() {
    let (_fake, refrain) = crate::start_with(|config| {
        config.tables("[pool.lost]\nendpoints = [\"http://127.0.0.1:1\"]\n[route.lost]\npath = \"/lost\"\npool = \"lost\"")
    })
    .await;
    let shown = eventually("what was found out of both", async || {
        let (has_succeeded, shown) = upstreams(&refrain, &[]).await;
        assert!(has_succeeded, "{shown}");
        (shown.contains("ago: ") && shown.contains("NO endpoint")).then_some(shown)
    })
    .await;
    let line = |start: &str| shown.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    assert!(line("llm ").contains(" healthy ") && line("llm ").contains(" m "), "{shown}");
    assert!(line("lost ").contains(" down "), "{shown}");
    assert!(line("lost: ").starts_with("lost: NO endpoint is in service"), "{shown}");
    let (_, json) = upstreams(&refrain, &["--json"]).await;
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["pools"][0]["endpoints"][0]["models"], json!(["m"]), "{json}");
}

#[tokio::test]
async fn fleet_endpoint_that_is_drained_gets_no_more_requests() {
    let (a, b) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let second = format!("[[pool.llm.endpoint]]\nname = \"b\"\nurl = {:?}", b.url());
    let config = Config::new(&a.url()).pool("balance = \"round-robin\"").tables(&second);
    let refrain = Refrain::start(&config).await;
    let first = format!("llm/{}", a.address());
    let (has_succeeded, said) = upstreams(&refrain, &["drain", &first]).await;
    assert!(has_succeeded && said.contains(&format!("{first} gets no new requests")), "{said}");
    for nth in 0..4 {
        assert_eq!(refrain.send(&Ask::chat(&format!("question {nth}"))).await.status, 200);
    }
    assert_eq!((a.posts(), b.posts()), (0, 4));
    let (_, shown) = upstreams(&refrain, &[]).await;
    assert!(shown.lines().any(|line| line.starts_with("llm ") && line.contains(" draining ")), "{shown}");

    let (has_succeeded, said) = upstreams(&refrain, &["undrain", &first]).await;
    assert!(has_succeeded && said.contains("is healthy"), "{said}");
    for nth in 4..8 {
        assert_eq!(refrain.send(&Ask::chat(&format!("question {nth}"))).await.status, 200);
    }
    assert!(a.posts() > 0, "{}", b.posts());
    let (has_succeeded, said) = upstreams(&refrain, &["drain", "llm/c"]).await;
    assert!(!has_succeeded && said.contains("it has: ") && said.contains(", b"), "{said}");
}
