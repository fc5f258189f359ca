//! Servers that are found while it runs: what a source says is followed, as far as it can be believed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use refrain_tests::fake::{Answer, FakeUpstream, Gate, openai};
use refrain_tests::{Ask, Config, Refrain, eventually};
use serde_json::{Value, json};

/// The account's key: to be seen by the provider and nobody else.
const KEY: &str = "vast-key-9f3c";

/// New servers are ready at once, and each gets its turn.
const POOL: &str =
    "[pool.fleet]\nbalance = \"round-robin\"\nhealth = { interval = \"50ms\", slow_start = \"1ms\" }\n";

/// A local fake of vast.ai's API, called one: lists fake upstreams as running instances, or answers as it is told.
struct FakeVast {
    api: FakeUpstream,
    says: Arc<Mutex<Says>>,
}

#[derive(Clone)]
enum Says {
    Instances(Vec<Value>),
    Other(Arc<dyn Fn() -> Answer + Send + Sync>),
}

impl FakeVast {
    async fn start(servers: &[&FakeUpstream]) -> Self {
        let api = FakeUpstream::start().await;
        let vast = Self { api, says: Arc::new(Mutex::new(Says::Instances(Vec::new()))) };
        vast.lists(servers);
        let says = vast.says.clone();
        vast.api.answers_gets(move |request| {
            if request.header("authorization") != [format!("Bearer {KEY}")] {
                return Answer::json(401, &json!({"error": "auth_error"}));
            }
            let says = says.lock().clone();
            match says {
                Says::Instances(list) => Answer::json(200, &json!({"instances": list, "next_token": null})),
                Says::Other(answer) => answer(),
            }
        });
        vast
    }

    fn lists(&self, servers: &[&FakeUpstream]) {
        *self.says.lock() = Says::Instances(servers.iter().map(|server| instance(server)).collect());
    }

    fn says(&self, answer: impl Fn() -> Answer + Send + Sync + 'static) {
        *self.says.lock() = Says::Other(Arc::new(answer));
    }

    fn config(&self) -> Config {
        self.config_with("")
    }

    /// A pool that knows no server itself, in front of which `/v1` is; with lines for its table.
    fn config_with(&self, lines: &str) -> Config {
        let url = self.api.url();
        let tables = format!(
            "{POOL}{lines}\n[[pool.fleet.discover]]\nkind = \"vast\"\nport = 8000\ninterval = \"30ms\"\napi_url = \"{url}\"\n\
             api_key = {{ env = \"VAST_API_KEY\" }}\n\
             [route.fleet]\npath = \"/v1\"\npool = \"fleet\"\ncache = false\n"
        );
        Config::new(&url).tables(&tables).env("VAST_API_KEY", KEY)
    }

    /// Waits until it was asked twice more: what it says now was heard.
    async fn heard(&self) {
        let asked = || self.api.requests("/api/v1/instances/?limit=25").len();
        let before = asked();
        eventually("two more looks", async || (asked() > before + 1).then_some(())).await;
    }
}

/// The instance's number is the server's port.
fn instance(server: &FakeUpstream) -> Value {
    let port = server.address().port();
    json!({
        "id": port, "label": "llm", "actual_status": "running", "public_ipaddr": "127.0.0.1 ",
        "ports": {"8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": port.to_string()}]},
        "dph_total": 0.25, "start_date": 1_767_225_600.0,
    })
}

/// A question that nobody has asked.
fn ask() -> Ask {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    Ask::chat(&format!("who are you? {}", COUNT.fetch_add(1, Relaxed)))
}

/// Asks until a server has answered.
async fn answers(refrain: &Refrain, server: &FakeUpstream) {
    let before = server.posts();
    eventually("an answer of the server", async || {
        refrain.send(&ask()).await;
        (server.posts() > before).then_some(())
    })
    .await;
}

/// Asks a few times; all is well.
async fn serves(refrain: &Refrain) {
    for _ in 0..4 {
        let reply = refrain.send(&ask()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}

#[tokio::test]
async fn a_new_instance_is_taken_in_and_a_lost_one_finishes_what_it_does() {
    let (a, b) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let vast = FakeVast::start(&[&a]).await;
    let refrain = Refrain::start(&vast.config()).await;
    assert_eq!(refrain.send(&ask()).await.status, 200, "the first look was not waited for");
    let gate = Gate::default();
    a.next(openai::chat_stream(&["first ", "second"], "stop").gate(3, &gate));
    let mut stream = refrain.open(&Ask::chat("long story").streamed()).await;
    stream.until("first ").await;

    vast.lists(&[&a, &b]);
    answers(&refrain, &b).await;
    vast.lists(&[&b]);
    // The pool's own view: what the source is known to say comes a moment before.
    let lost = format!("vast:{}", a.address().port());
    eventually("the loss", async || (!refrain.readiness().await.to_string().contains(&lost)).then_some(()))
        .await;
    let before = (a.posts(), b.posts());
    serves(&refrain).await;
    assert_eq!((a.posts(), b.posts()), (before.0, before.1 + 4), "requests go to what is not listed");

    gate.open();
    let rest = stream.whole().await.text();
    assert!(rest.contains("second") && rest.ends_with("data: [DONE]\n\n"), "{rest}");
    let metrics = refrain.metrics().await;
    assert!(
        (metrics.sum("refrain_upstream_price_dollars_per_hour", &[("pool", "fleet")]) - 0.25).abs() < 1e-9
    );
}

#[tokio::test]
async fn an_api_that_errs_or_forgets_takes_down_nothing() {
    let (a, b) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let vast = FakeVast::start(&[&a, &b]).await;
    let refrain = Refrain::start(&vast.config()).await;
    answers(&refrain, &a).await;
    answers(&refrain, &b).await;
    let wrong: [fn() -> Answer; 4] = [
        || Answer::json(500, &json!({})),
        || Answer::whole(200, "text/html", "<html>Just a moment...</html>"),
        || Answer::json(200, &json!({"instances": [], "next_token": null})),
        || {
            Answer::json(
                200,
                &json!({"instances": [{"id": 1, "actual_status": "exited"}], "next_token": null}),
            )
        },
    ];
    for answer in wrong {
        vast.says(answer);
        vast.heard().await;
        serves(&refrain).await;
        answers(&refrain, &a).await;
        answers(&refrain, &b).await;
    }
    vast.lists(&[]);
    vast.heard().await;
    serves(&refrain).await;
    refrain.counted("refrain_discovery_looks_total", &[("result", "failed")], 2.0).await;
}

#[tokio::test]
async fn a_reload_loses_nothing_that_was_found() {
    let a = FakeUpstream::start().await;
    let vast = FakeVast::start(&[&a]).await;
    let refrain = Refrain::start(&vast.config()).await;
    serves(&refrain).await;
    vast.says(|| Answer::json(500, &json!({})));
    vast.heard().await;
    // The pool changes, its source does not; then the source does too, and can't be asked.
    for lines in [
        "revision = \"2\"",
        "revision = \"3\"
authorization = { value = \"Bearer x\" }",
    ] {
        refrain.write_config(&vast.config_with(lines));
        let reply = refrain.reload().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        serves(&refrain).await;
        vast.heard().await;
        serves(&refrain).await;
    }
}

#[tokio::test]
async fn the_key_of_the_account_is_seen_by_nobody_else() {
    let a = FakeUpstream::start().await;
    let vast = FakeVast::start(&[&a]).await;
    let refrain = Refrain::start(&vast.config()).await;
    serves(&refrain).await;
    vast.says(|| Answer::json(401, &json!({"error": KEY})));
    refrain.logged(0, "refuses the credentials (401").await;
    let config = refrain.admin(&Ask::get("/config")).await.text();
    assert!(config.contains("\"api_key\""), "{config}");
    for (place, text) in [
        ("config", config),
        ("metrics", refrain.metrics().await.text().to_owned()),
        ("readiness", refrain.readiness().await.to_string()),
        ("upstreams", refrain.admin(&Ask::get("/upstreams")).await.text()),
        ("log", refrain.logs()),
    ] {
        assert!(!text.contains(KEY), "{place}: {text}");
    }
    let seen = a.requests("/v1/chat/completions");
    assert!(!seen.is_empty() && seen.iter().all(|request| request.header("authorization").is_empty()));
}

#[tokio::test]
async fn operators_see_prices_uptimes_and_how_a_source_does() {
    let a = FakeUpstream::start().await;
    let vast = FakeVast::start(&[&a]).await;
    let refrain = Refrain::start(&vast.config()).await;
    let report = async || {
        let report = refrain.admin(&Ask::get("/upstreams")).await.json();
        let pools = report["pools"].as_array().unwrap().clone();
        pools.into_iter().find(|pool| pool["pool"] == "fleet").unwrap()
    };
    let found = report().await;
    let (endpoint, source) = (&found["endpoints"][0], &found["discovery"][0]);
    assert_eq!((&endpoint["price_per_hour"], &source["kind"]), (&json!(0.25), &json!("vast")), "{found}");
    assert!(endpoint["uptime_seconds"].as_u64().is_some_and(|seconds| seconds > 0), "{found}");
    assert_eq!((&source["members"], &source["last_error"]), (&json!(1), &Value::Null), "{found}");
    vast.says(|| Answer::json(500, &json!({})));
    let failing = eventually("the source's trouble", async || {
        Some(report().await).filter(|report| !report["discovery"][0]["last_error"].is_null())
    })
    .await;
    assert_eq!(failing["discovery"][0]["members"], 1, "{failing}");
}

#[tokio::test]
async fn a_list_in_a_file_is_followed() {
    let (a, b) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("servers.json");
    std::fs::write(&file, json!([a.url()]).to_string()).unwrap();
    let tables = format!(
        "{POOL}[[pool.fleet.discover]]\nkind = \"file\"\nfile = {file:?}\ninterval = \"30ms\"\n\
         [route.fleet]\npath = \"/v1\"\npool = \"fleet\"\ncache = false\n"
    );
    let refrain = Refrain::start(&Config::new(&a.url()).tables(&tables)).await;
    serves(&refrain).await;
    std::fs::write(&file, json!(["nonsense", {"url": b.url(), "name": "b"}]).to_string()).unwrap();
    answers(&refrain, &b).await;
    std::fs::remove_file(&file).unwrap();
    refrain.logged(0, "endpoints can't be looked up").await;
    serves(&refrain).await;
}
