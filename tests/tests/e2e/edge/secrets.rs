//! Secrets stay secret: nothing that Refrain logs, measures or answers has a key, a credential, a password or a prompt.

use refrain_tests::fake::{Answer, FakeUpstream};
use refrain_tests::otlp::Collector;
use refrain_tests::redis::{Flavour, RedisOptions, RedisServer};
use refrain_tests::{Ask, Client, Config, Person, Refrain, eventually};

/// Stands in prompts, answers and whatever a client sends.
const PROMPT: &str = "canary-prompt-6b1f";
const ANSWER: &str = "canary-answer-9c2d";
const COOKIE: &str = "canary-cookie-17aa";
const WRONG_KEY: &str = "sk-canary-wrong-key-55e0";
const UPSTREAM_KEY: &str = "canary-upstream-key-0d4c";
const UPSTREAM_HEADER: &str = "canary-upstream-header-83b7";
const REDIS_PASSWORD: &str = "canary-redis-password-2e9f";
const JWT_SECRET: &str = "canary-jwt-secret-41c8-0123456789abcdef0123456789abcdef";
const OTLP_KEY: &str = "canary-otlp-key-9d30";

/// Everything that may not be seen by whoever reads logs and metrics.
fn canaries(people: &[&Person]) -> Vec<String> {
    let sent = [PROMPT, ANSWER, COOKIE, WRONG_KEY];
    let own = [UPSTREAM_KEY, UPSTREAM_HEADER, REDIS_PASSWORD, JWT_SECRET, OTLP_KEY];
    sent.into_iter().chain(own).map(str::to_owned).chain(people.iter().map(|person| person.token())).collect()
}

/// All that operators see.
async fn told(refrain: &Refrain) -> String {
    let mut told = String::new();
    let pages = [
        "/",
        "/livez",
        "/readyz",
        "/metrics",
        "/config",
        "/upstreams",
        "/scaling",
        "/cost",
        "/misses",
        "/shadow",
    ];
    for path in pages.into_iter().chain(["/nothing"]) {
        told += &refrain.admin(&Ask::get(path)).await.text();
    }
    told += &refrain.reload().await.text();
    told + &refrain.logs()
}

fn check_silent(told: &str, canaries: &[String]) {
    assert!(told.len() > 1000, "there is something to look at");
    for canary in canaries {
        let around =
            told.find(canary.as_str()).map(|at| &told[at.saturating_sub(300)..(at + 100).min(told.len())]);
        assert_eq!(around, None, "{canary} is told");
    }
}

/// What clients with every kind of trouble do.
async fn have_trouble(fake: &FakeUpstream, refrain: &Refrain, ann: &Person) {
    let answer = serde_json::json!({"role": "assistant", "content": ANSWER});
    let ask = Ask::chat(PROMPT).header("cookie", COOKIE).by(ann);
    for client in [Client::http(refrain.address()), Client::h2(refrain.address())] {
        fake.next(Answer::json(200, &refrain_tests::fake::openai::chat_whole(1, &answer, "stop", 1)));
        for ask in [ask.clone(), ask.clone(), ask.clone().streamed()] {
            client.send(&ask).await;
        }
        let wrong = Ask::chat(PROMPT).header("authorization", &format!("Bearer {WRONG_KEY}"));
        assert_eq!(client.send(&wrong).await.status, 401);
        for body in
            [format!("{{\"model\":\"m\",\"{PROMPT}"), format!("{{\"model\":\"{PROMPT}\",\"model\":1}}")]
        {
            let reply = client.send(&Ask::post_bytes("/v1/chat/completions", body).by(ann)).await;
            assert_eq!(reply.status, 400);
        }
        let unknown = client.send(&Ask::get(&format!("/{PROMPT}?key={WRONG_KEY}")).by(ann)).await;
        assert_eq!(unknown.status, 404);
        for broken in
            [Answer::close(), Answer::json(500, &ANSWER.into()), Answer::whole(200, "text/html", ANSWER)]
        {
            fake.next(broken);
            client.send(&ask.clone().cache_control("no-cache")).await;
        }
        fake.next(Answer::lying(&format!("{{\"choices\": \"{ANSWER}"), 1000));
        let _ = client.try_open(&ask.clone().cache_control("no-cache")).await;
    }
}

#[tokio::test]
async fn no_secret_and_no_prompt_is_logged_measured_or_told() {
    let (ann, webui) = (Person::new("ann", "acme"), Person::service("webui", "acme"));
    let redis = RedisServer::start_with(RedisOptions::new(Flavour::Plain).password(REDIS_PASSWORD)).await;
    let secret = tempfile::tempdir().unwrap();
    let (fake, collector) = (FakeUpstream::start().await, Collector::start().await);
    let config = Config::new(&fake.url())
        .people(&[&ann, &webui])
        .cache("miss_sample = 1.0")
        .tables(&format!(
            "[otlp]\nurl = \"{}\"\nsample = 1.0\nmetrics_interval = \"1s\"\nauthorization = {{ value = \"Bearer {OTLP_KEY}\" }}",
            collector.url()
        ))
        .tables(&format!(
            "[jwt.webui]\nissuer = \"open-webui\"\nheader = \"X-OpenWebUI-User-Jwt\"\nsecret = {{ value = {JWT_SECRET:?} }}"
        ))
        .pool(&format!(
            "authorization = {{ value = \"Bearer {UPSTREAM_KEY}\" }}\nheaders = {{ x-api-key = {{ value = {UPSTREAM_HEADER:?} }} }}"
        ))
        .redis(
            &secret.path().join("cache.secret"),
            &format!("url = \"redis://{}\"\npassword = {{ value = {REDIS_PASSWORD:?} }}", redis.address()),
        );
    let refrain = Refrain::start(&config).await;
    let up = async || (refrain.readiness().await["store"]["redis"]["state"] == "up").then_some(());
    eventually("Redis", up).await;
    have_trouble(&fake, &refrain, &ann).await;
    // They were really sent.
    let sent = fake.requests("/v1/chat/completions");
    assert!(sent.iter().any(|request| request.header("authorization") == [format!("Bearer {UPSTREAM_KEY}")]));
    assert!(sent.iter().all(|request| request.header("cookie").is_empty()));
    let canaries = canaries(&[&ann, &webui]);
    check_silent(&told(&refrain).await, &canaries);
    collector.request_with("refrain.cache.outcome", "error").await;
    collector.metrics_with("gen_ai.server.request.duration").await;
    let collected = ["/v1/traces", "/v1/metrics"].map(|path| collector.requests(path)).concat();
    assert!(collected[0].header("authorization") == [format!("Bearer {OTLP_KEY}")]);
    let texts: String =
        collected.iter().map(|sent| String::from_utf8_lossy(&sent.body).into_owned()).collect();
    check_silent(&texts, &canaries);
}

#[tokio::test]
async fn a_config_that_is_refused_is_told_without_its_secrets() {
    let fake = FakeUpstream::start().await;
    let config = Config::new(&fake.url())
        .pool(&format!("authorization = {{ value = \"Bearer {UPSTREAM_KEY}\" }}\nheaders = {{ x-api-key = {{ valu = {UPSTREAM_HEADER:?} }} }}"))
        .tables("[limits]\nbody = \"much\"");
    let (status, said) = Refrain::run_to_end(&config).await;
    assert!(!status.success());
    assert!(said.contains("valu"), "{said}");
    for canary in [UPSTREAM_KEY, UPSTREAM_HEADER] {
        assert!(!said.contains(canary), "{said}");
    }
}
