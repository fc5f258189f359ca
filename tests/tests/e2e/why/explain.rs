//! An explanation says what then happens, changes nothing, and tells no text of others.

use refrain_tests::fake::{Answer, FakeUpstream, Gate, openai};
use refrain_tests::redis::{Flavour, RedisServer};
use refrain_tests::{Ask, Config, Person, Policy, Refrain, eventually};
use serde_json::{Value, json};

use super::{PARAPHRASE, QUESTION, chat, explained, run, to_explain};
use crate::start_with;

/// What a response or an explanation says of the cache, without the seconds.
fn without_seconds(status: &str) -> String {
    let parts = status.split("; ").filter(|part| !part.starts_with("ttl="));
    parts.collect::<Vec<_>>().join("; ")
}

/// Explains a request, sends it, and holds the one against the other.
async fn check(refrain: &Refrain, ask: &Ask) {
    let explained = explained(refrain, to_explain(ask)).await;
    let outcome = &explained["outcome"];
    let reply = refrain.send(ask).await;
    match outcome["error"].as_str() {
        Some(error) => {
            assert!(reply.status >= 400, "{ask:?}: {error}, but {}", reply.status);
            assert!(
                reply.text().contains(outcome["message"].as_str().unwrap()),
                "{outcome} {}",
                reply.text()
            );
        }
        None => {
            assert!(reply.status < 400, "{ask:?}: {outcome}, but {} {}", reply.status, reply.text());
            let said = outcome["cache_status"].as_str().map(without_seconds).unwrap_or_default();
            assert_eq!(said, without_seconds(&reply.cache_status()), "{ask:?}\n{explained:#}");
        }
    }
}

#[tokio::test]
async fn what_is_explained_is_what_then_happens() {
    let people = [Person::new("ann", "acme"), Person::new("bob", "acme"), Person::service("web", "acme")];
    let [ann, bob, web] = &people;
    let limited = Person::new("eve", "acme").only(&["n"]);
    let all = [ann, bob, web, &limited];
    let (_fake, refrain) =
        start_with(|config| config.people(&all).semantic("threshold = 0.85").cache("sampled = \"skip\""))
            .await;
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let asks = [
        Ask::chat(QUESTION).by(ann),
        Ask::chat(PARAPHRASE).by(ann),
        Ask::chat("How do I turn off dark mode?").by(ann),
        Ask::chat("How do I turn on dark mode?").by(ann),
        Ask::chat(QUESTION).by(bob),
        Ask::chat(QUESTION).by(web),
        Ask::chat(QUESTION).by(&limited),
        Ask::chat(QUESTION),
        Ask::chat(QUESTION).by(ann).cache_control("no-cache"),
        Ask::chat(QUESTION).by(ann).cache_control("only-if-cached"),
        Ask::chat("Never asked").by(ann).cache_control("only-if-cached"),
        Ask::chat(PARAPHRASE).by(bob).streamed(),
        Ask::chat(QUESTION).by(ann).field("temperature", json!(1)),
        Ask::chat(QUESTION).by(ann).field("tools", tools),
        Ask::message(QUESTION).by(ann),
        Ask::chat(QUESTION).by(ann).field("model", json!("")),
        Ask::post_bytes("/v1/chat/completions", "{oops").by(ann),
        Ask::post("/v1/unknown", json!({})).by(ann),
        Ask::post("/api/pull", json!({"model": "m"})).by(ann),
    ];
    for _ in 0..2 {
        for ask in &asks {
            check(&refrain, ask).await;
        }
    }
}

/// A limit of two requests a minute and person, wherever it is counted.
async fn check_limits(config: Config, ann: &Person) {
    let fake = FakeUpstream::start().await;
    let limited = config.upstream(&fake.url()).people(&[ann]).route("limits = [\"few\"]");
    let refrain = Refrain::start(&limited).await;
    let ask = Ask::chat(QUESTION).by(ann);
    let looked = async || explained(&refrain, to_explain(&ask)).await["limits"][0].clone();
    for _ in 0..3 {
        // Looking takes nothing: it says the same as often as it is asked.
        let limit = looked().await;
        assert_eq!((&limit["limit"], &limit["admits"]), (&json!("few"), &json!(true)), "{limit:#}");
        assert_eq!(limit["rates"][0]["left"], 2, "{limit:#}");
    }
    check(&refrain, &ask).await;
    assert_eq!(looked().await["rates"][0]["left"], 1);
    check(&refrain, &ask).await;
    check(&refrain, &ask).await;
    let refused = explained(&refrain, to_explain(&ask)).await;
    assert_eq!(refused["outcome"]["error"], "rate_limit_exceeded", "{refused:#}");
    assert!(
        refused["key"]["key"].is_string() && refused["limits"][0]["admits"] == json!(false),
        "{refused:#}"
    );
}

#[tokio::test]
async fn limits_are_looked_at_and_not_charged() {
    let ann = Person::new("ann", "acme");
    let table = "[limit.few]\nby = [\"user\"]\nrequests_per_minute = 2\n";
    check_limits(Config::new("http://127.0.0.1:9").tables(table), &ann).await;
}

#[tokio::test]
async fn limits_that_proxies_share_are_looked_at_and_not_charged() {
    let ann = Person::new("ann", "acme");
    let (redis, dir) = (RedisServer::start(Flavour::Plain).await, tempfile::tempdir().unwrap());
    let lines =
        format!("url = {:?}\ntimeout = \"2s\"\nconnect_timeout = \"5s\"\nrequire_store = true", redis.url());
    let table = "[limit.few]\nby = [\"user\"]\nshared = true\ntimeout = \"2s\"\nrequests_per_minute = 2\nconcurrency = 9\n";
    let config =
        Config::new("http://127.0.0.1:9").redis(&dir.path().join("cache.secret"), &lines).tables(table);
    check_limits(config, &ann).await;
}

#[tokio::test]
async fn what_would_join_a_generation_is_said_to_join_it() {
    let (fake, refrain) = start_with(|config| config).await;
    let gate = Gate::default();
    let events = openai::chat_events(&["a".into()], "stop", true);
    fake.next(Answer::stream("text/event-stream", events).gate(3, &gate));
    let ask = Ask::chat(QUESTION).streamed();
    assert_eq!(explained(&refrain, to_explain(&ask)).await["under_way"], "no");
    let mut first = refrain.open(&ask).await;
    first.until("\"a\"").await;
    let seen = explained(&refrain, to_explain(&ask)).await;
    assert_eq!(seen["under_way"], "joinable", "{seen:#}");
    let mut second = refrain.open(&ask).await;
    second.until("\"a\"").await;
    let told = second.headers["cache-status"].to_str().unwrap().to_owned();
    assert_eq!(seen["outcome"]["cache_status"], told);
    gate.open();
    first.whole().await;
    second.whole().await;
    let over = async || {
        (explained(&refrain, to_explain(&ask)).await["exact"]["stored"] == json!(true)).then_some(())
    };
    eventually("the end of the generation", over).await;
}

#[tokio::test]
async fn two_whom_nobody_has_verified_are_not_told_each_others_texts() {
    let web = Person::service("web", "acme");
    let (_fake, refrain) =
        start_with(|config| config.people(&[&web]).semantic("threshold = 0.85").cache("scope = \"tenant\""))
            .await;
    refrain.send(&Ask::chat(QUESTION).by(&web)).await;
    let mut what = to_explain(&Ask::chat(PARAPHRASE).by(&web));
    what["show_text"] = true.into();
    let seen = explained(&refrain, what).await;
    assert_eq!(seen["neighbours"].as_array().unwrap().len(), 1);
    assert!(!seen.to_string().contains(QUESTION), "{seen:#}");
}

#[tokio::test]
async fn what_policies_would_do_is_explained_by_asking_them() {
    let policy = Policy::new().bypass("testing");
    let (_fake, refrain) = start_with(|config| config.policy("test", &policy, "")).await;
    let ask = Ask::chat(QUESTION);
    check(&refrain, &ask).await;
    let explained = explained(&refrain, to_explain(&ask)).await;
    assert_eq!(explained["policies"][0]["policy"], "test");
    assert_eq!(explained["policies"][0]["says"]["decision"], "bypass");
    assert_eq!(explained["outcome"]["bypass"], "policy");
}

#[tokio::test]
async fn explaining_sends_stores_and_counts_nothing() {
    let (fake, refrain) =
        start_with(|config| config.semantic("threshold = 0.85").cache("miss_sample = 1.0")).await;
    refrain.send(&Ask::chat(QUESTION)).await;
    refrain.counted("refrain_requests_total", &[], 1.0).await;
    let before = refrain.metrics().await;
    let names = [
        "refrain_requests_total",
        "refrain_semantic_refusals_total",
        "refrain_cache_bypasses_total",
        "refrain_cache_exact_only_total",
        "refrain_unrouted_errors_total",
        "refrain_errors_total",
    ];
    for ask in [
        Ask::chat("Something else entirely"),
        Ask::chat(QUESTION),
        Ask::chat(PARAPHRASE),
        Ask::post("/x", json!({})),
    ] {
        explained(&refrain, to_explain(&ask)).await;
    }
    let after = refrain.metrics().await;
    for name in names {
        assert_eq!(before.sum(name, &[]), after.sum(name, &[]), "{name}");
    }
    assert_eq!(fake.posts(), 1);
    let misses = refrain.admin(&Ask::get("/misses")).await.json();
    assert_eq!(misses["routes"][0]["misses"], 1);
    assert!(!refrain.send(&Ask::chat("Something else entirely")).await.is_hit());
}

#[tokio::test]
async fn texts_are_hidden_unless_asked_for_and_those_of_others_always() {
    let people = [Person::new("ann", "acme"), Person::new("bob", "acme"), Person::new("eve", "umbrella")];
    let [ann, bob, eve] = &people;
    let (_fake, refrain) = start_with(|config| {
        config.people(&people.each_ref()).semantic("threshold = 0.85").cache("scope = \"tenant\"")
    })
    .await;
    refrain.send(&chat("A secret prompt of ann.", QUESTION).by(ann)).await;
    let told = async |ask: &Ask, show_text: bool| {
        let mut what = to_explain(ask);
        what["show_text"] = show_text.into();
        explained(&refrain, what).await
    };
    let bobs = chat("A secret prompt of ann.", PARAPHRASE).by(bob);
    let hidden = told(&bobs, false).await;
    assert_eq!(hidden["neighbours"].as_array().unwrap().len(), 1);
    assert!(!hidden.to_string().contains("secret") && !hidden.to_string().contains("password"), "{hidden:#}");
    let shown = told(&bobs, true).await;
    assert!(shown.to_string().contains(PARAPHRASE) && !shown.to_string().contains(QUESTION), "{shown:#}");
    let anns = told(&chat("A secret prompt of ann.", PARAPHRASE).by(ann), true).await;
    assert_eq!(anns["neighbours"][0]["text"], QUESTION);
    let eves = told(&chat("A secret prompt of ann.", PARAPHRASE).by(eve), true).await;
    assert_eq!(eves["neighbours"], json!([]));
}

#[tokio::test]
async fn the_server_that_would_be_tried_first_is_the_one_that_is_asked() {
    let fakes = [FakeUpstream::start().await, FakeUpstream::start().await, FakeUpstream::start().await];
    let urls: Vec<String> = fakes.iter().map(FakeUpstream::url).collect();
    let refrain = Refrain::start(&Config::new(&urls[0]).upstreams(&urls)).await;
    for nth in 0..8 {
        let ask = chat(&format!("You are number {nth}."), "Hello");
        let explained = explained(&refrain, to_explain(&ask)).await;
        let servers = explained["upstream"]["servers"].as_array().unwrap();
        assert_eq!((servers.len(), &servers[0]["reason"]), (3, &json!("home")), "{explained:#}");
        let first = servers[0]["endpoint"].as_str().unwrap();
        let posts = || fakes.iter().map(FakeUpstream::posts).collect::<Vec<_>>();
        let before = posts();
        refrain.send(&ask).await;
        let asked = posts().iter().zip(&before).position(|(after, before)| after > before).unwrap();
        assert!(urls[asked].contains(first), "{first} was named, {} was asked", urls[asked]);
    }
}

#[tokio::test]
async fn the_command_shows_a_page_and_in_what_two_requests_differ() {
    let (_fake, refrain) = start_with(|config| config).await;
    let admin = refrain.admin_address().to_string();
    let file = |name: &str, ask: &Ask| {
        let path = refrain.dir().join(name);
        std::fs::write(&path, ask.body()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let system = |clock: &str| format!("Be brief.\nYou are Ann.\nIt is {clock}.");
    let first = file("a.json", &chat(&system("12:01"), "Hello").field("seed", json!(1)));
    let second = file("b.json", &chat(&system("12:02"), "Hello"));
    let explain = async |more: &[&str]| {
        let all = [&["explain", "--request", &first, "--admin", &admin], more].concat();
        run(&all).await
    };
    let (has_succeeded, page) = explain(&["--as", "anonymous/anonymous"]).await;
    assert!(has_succeeded && page.starts_with("MISS: nothing is stored for this request."), "{page}");
    for expected in
        ["Cache-Status: refrain; fwd=miss", "all  takes it", "system prompt line 3", "pool llm, model m"]
    {
        assert!(page.contains(expected), "{expected}\n{page}");
    }
    let (_, page) = explain(&["--against", &second]).await;
    assert!(page.starts_with("They differ in: seed, system prompt line 3\n"), "{page}");
    assert!(!page.contains("12:01"), "{page}");
    let (_, page) = explain(&["--against", &second, "--show-text"]).await;
    assert!(page.contains("It is 12:01.") && page.contains("It is 12:02."), "{page}");
    let (_, json) = explain(&["--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["outcome"]["cache_status"], "refrain; fwd=miss");
    let (_, page) = explain(&["--key", "nobody"]).await;
    assert!(page.starts_with("REFUSED: unauthorized"), "{page}");
}
