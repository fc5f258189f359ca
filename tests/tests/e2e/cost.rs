//! What servers cost, who they worked for, and what the cache spared: `refrain cost`, `/cost`, and metrics.

use refrain_tests::fake::{Answer, FakeUpstream, Gate, openai};
use refrain_tests::{Ask, Client, Config, Person, Refrain, eventually, refrain_binary, within};
use serde_json::{Value, json};

/// A dollar a second, so that shares can be told from cents.
const PRICES: &str = "price_per_hour = 3600.0";

async fn cost(refrain: &Refrain) -> Value {
    let reply = refrain.admin(&Ask::get("/cost")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("a number: {value}"))
}

#[tokio::test]
async fn cost_of_misses_and_what_hits_spare_are_told_apart() {
    let fake = FakeUpstream::start().await;
    let config =
        Config::new(&fake.url()).pool(PRICES).tables("[cost]\ncache_per_hour = 0.5\nbudget_per_day = 9.0");
    let refrain = Refrain::start(&config).await;
    let ask = Ask::chat("what does it cost?");
    refrain.send(&ask).await;
    for _ in 0..3 {
        assert!(refrain.send(&ask).await.is_hit());
    }
    let report = eventually("a settled miss", async || {
        let report = cost(&refrain).await;
        (report["cache"]["misses"] == 1 && report["pools"][0]["bill_dollars"].as_f64() > Some(0.0))
            .then_some(report)
    })
    .await;
    let route = &report["routes"][0];
    assert_eq!((&route["name"], &route["requests"], &route["hits"]), (&"all".into(), &1.into(), &3.into()));
    let (gpu, dollars) = (number(&route["gpu_seconds"]), number(&route["busy_dollars"]));
    assert!(gpu > 0.0 && (dollars - gpu).abs() < 1e-6, "a dollar a second: {report:#}");
    assert_eq!(report["tenants"][0]["name"], "anonymous");
    assert_eq!(route["input_tokens"], report["tenants"][0]["input_tokens"]);
    assert!(number(&route["output_tokens"]) > 0.0, "{report:#}");
    let (gpu_all, bill) =
        (number(&report["pools"][0]["busy_gpu_seconds"]), number(&report["pools"][0]["bill_dollars"]));
    assert!(gpu_all <= bill, "what was idle is paid for too: {report:#}");
    let metrics = refrain.metrics().await;
    let labels = [("route", "all"), ("pool", "llm"), ("for", "miss")];
    assert!((metrics.sum("refrain_cost_dollars_total", &labels) - dollars).abs() < 1e-6);
    assert!(metrics.sum("refrain_cost_gpu_seconds_total", &labels) > 0.0);
    assert!(
        metrics.has("refrain_cost_freed_gpu_seconds{")
            && metrics.has("refrain_cost_budget_dollars_per_day 9")
    );
}

#[tokio::test]
async fn cost_of_a_generation_that_several_wait_for_is_spared_to_all_but_one() {
    let fake = FakeUpstream::start().await;
    let gate = Gate::default();
    let message = json!({"role": "assistant", "content": "the one"});
    fake.next(Answer::json(200, &openai::chat_whole(1, &message, "stop", 1)).gate(1, &gate));
    let refrain = Refrain::start(&Config::new(&fake.url()).pool(PRICES)).await;
    let client = Client::http(refrain.address());
    let ask = Ask::chat("all at once");
    let mut crowd = Vec::new();
    for _ in 0..3 {
        crowd.push(client.open(&ask).await);
    }
    gate.open();
    for response in crowd {
        assert_eq!(response.whole().await.answer(), "the one");
    }
    let report = eventually("settled records", async || {
        let report = cost(&refrain).await;
        (report["cache"]["misses"] == 1 && report["cache"]["hits"] == 2).then_some(report)
    })
    .await;
    assert_eq!((&report["routes"][0]["requests"], fake.posts()), (&1.into(), 1));
}

#[tokio::test]
async fn cost_of_a_server_that_two_share_is_paid_once() {
    let fake = FakeUpstream::start().await;
    let gate = Gate::default();
    let held = gate.clone();
    fake.always(move |request| openai::chat(&request.json(), 1).gate(1, &held));
    let (ann, bob) = (Person::new("ann", "acme"), Person::new("bob", "beta"));
    let config = Config::new(&fake.url()).pool(PRICES).pool("tenancy = \"shared\"").people(&[&ann, &bob]);
    let refrain = Refrain::start(&config).await;
    let client = Client::http(refrain.address());
    let asks = [&ann, &bob].map(|person| Ask::chat("both at once").by(person));
    let opened = async {
        eventually("both at once", async || {
            let in_flight = refrain.metrics().await.sum("refrain_pool_in_flight_requests", &[]);
            (in_flight > 1.5).then_some(())
        })
        .await;
        gate.open();
    };
    let (first, second, ()) = tokio::join!(client.send(&asks[0]), client.send(&asks[1]), opened);
    assert_eq!((first.status, second.status), (200, 200), "{}", first.text());
    let report = eventually("both are settled", async || {
        let report = cost(&refrain).await;
        (report["cache"]["misses"] == 2).then_some(report)
    })
    .await;
    let tenants = report["tenants"].as_array().unwrap();
    let shares: Vec<f64> = tenants.iter().map(|tenant| number(&tenant["gpu_seconds"])).collect();
    let busy = number(&report["pools"][0]["busy_gpu_seconds"]);
    assert_eq!(shares.len(), 2, "{report:#}");
    assert!(
        (shares.iter().sum::<f64>() - busy).abs() < 1e-6 && shares.iter().all(|share| *share < busy),
        "{report:#}"
    );
    assert!(number(&report["pools"][0]["concurrency"]) > 1.0, "{report:#}");
}

#[tokio::test]
async fn cost_of_waiting_for_a_server_is_not_freed_by_a_hit() {
    let fake = FakeUpstream::start().await;
    let config = Config::new(&fake.url()).pool(PRICES).pool("limits = { concurrency = 1 }");
    let refrain = Refrain::start(&config).await;
    fake.next(openai::chat(&json!({}), 1).pause(1, std::time::Duration::from_secs(2)));
    let client = Client::http(refrain.address());
    let second = async {
        eventually("the first", async || (fake.in_flight() == 1).then_some(())).await;
        client.send(&Ask::chat("the second waits")).await
    };
    let first = Ask::chat("the first takes long");
    let (first, second) = tokio::join!(client.send(&first), second);
    assert_eq!((first.status, second.status), (200, 200));
    assert!(refrain.send(&Ask::chat("the second waits")).await.is_hit());
    let report = cost(&refrain).await;
    assert!(number(&report["routes"][0]["freed_gpu_seconds"]) < 1.0, "{report:#}");
}

#[tokio::test]
async fn cost_of_a_pool_that_a_reload_took_away_grows_no_more() {
    let fake = FakeUpstream::start().await;
    let tables =
        |more: &str| format!("{more}[pool.kept]\nendpoints = [{:?}]\nprice_per_hour = 5.0\n", fake.url());
    let gone = format!("[pool.gone]\nendpoints = [{:?}]\nprice_per_hour = 7.0\n", fake.url());
    let refrain = Refrain::start(&Config::new(&fake.url()).tables(&tables(&gone))).await;
    let price = async |pool: &str| {
        refrain.metrics().await.sum("refrain_cost_pool_dollars_per_hour", &[("pool", pool)])
    };
    eventually("both prices", async || {
        (price("gone").await == 7.0 && price("kept").await == 5.0).then_some(())
    })
    .await;
    let text = std::fs::read_to_string(refrain.config_path()).unwrap();
    std::fs::write(refrain.config_path(), text.replace(&gone, "")).unwrap();
    assert_eq!(refrain.reload().await.status, 200);
    assert_eq!((price("gone").await, price("kept").await), (0.0, 5.0));
}

#[tokio::test]
async fn cost_command_says_freed_and_what_is_missing() {
    let fake = FakeUpstream::start().await;
    let config = Config::new(&fake.url()).pool(PRICES);
    let refrain = Refrain::start(&config).await;
    let ask = Ask::chat("what does it cost?");
    fake.always(|request| openai::chat(&request.json(), 1).pause(1, std::time::Duration::from_millis(20)));
    refrain.send(&ask).await;
    assert!(refrain.send(&ask).await.is_hit());
    let command = async |words: &[&str]| {
        let mut command = tokio::process::Command::new(refrain_binary());
        command.arg("cost").args(words).args(["--admin", &refrain.admin_address().to_string()]);
        let output = within("refrain cost", command.kill_on_drop(true).output()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let page = command(&[]).await;
    for wanted in ["$3600.00/h", "The cache answered 1 of 2 requests", "Freed: $", "cache_per_hour in [cost]"]
    {
        assert!(page.contains(wanted), "{wanted}:\n{page}");
    }
    let json: Value = serde_json::from_str(&command(&["--json"]).await).unwrap();
    assert_eq!(json["cache"]["hits"], 1);
}

#[tokio::test]
async fn cost_of_what_passes_the_cache_has_its_tokens_too() {
    let (_fake, refrain) =
        crate::start_with(|config| config.pool(PRICES).without_cache().route("cache = false")).await;
    refrain.send(&Ask::chat("past the cache")).await;
    refrain
        .send(
            &Ask::chat("and again, as a stream")
                .streamed()
                .field("stream_options", json!({ "include_usage": true })),
        )
        .await;
    let report = eventually("two settled answers", async || {
        let report = cost(&refrain).await;
        (report["routes"][0]["requests"] == 2).then_some(report)
    })
    .await;
    let route = &report["routes"][0];
    assert!(number(&route["output_tokens"]) > 1.0 && number(&route["input_tokens"]) > 1.0, "{report:#}");
    // Nothing of it could have been in the cache.
    assert_eq!((&report["cache"]["misses"], number(&report["cache"]["avoidable_dollars"])), (&json!(0), 0.0));
}
