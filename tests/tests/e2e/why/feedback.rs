//! A wrong answer is removed wherever it is kept, whom it was served to is told, and what was said is remembered.

use refrain_tests::fake::FakeUpstream;
use refrain_tests::redis::{Flavour, RedisServer};
use refrain_tests::{Ask, Config, Person, Refrain, eventually};
use serde_json::{Value, json};

use super::{PARAPHRASE, QUESTION, run, to_explain};
use crate::start_with;

async fn feedback(refrain: &Refrain, what: Value) -> Value {
    let reply = refrain.admin(&Ask::post("/feedback", what)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

async fn is_stored(refrain: &Refrain, ask: &Ask) -> bool {
    refrain.send(&ask.clone().cache_control("no-store")).await.is_hit()
}

fn id(answer: &Value) -> String {
    answer["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_wrong_answer_is_removed_and_those_who_were_served_it_are_named() {
    let people =
        [Person::new("ann", "acme").admin(), Person::new("bob", "acme"), Person::new("eve", "umbrella")];
    let [ann, bob, eve] = &people;
    let (_fake, refrain) = start_with(|config| {
        config.people(&people.each_ref()).semantic("threshold = 0.85").cache("scope = \"tenant\"").on_disk()
    })
    .await;
    let wrong = id(&refrain.send(&Ask::chat(QUESTION).by(ann)).await.json());
    refrain.send(&Ask::chat(QUESTION).by(ann)).await;
    refrain.send(&Ask::chat(QUESTION).by(bob)).await;
    refrain.send(&Ask::chat(PARAPHRASE).by(bob)).await;
    refrain.send(&Ask::chat(QUESTION).by(eve)).await;
    let looked = feedback(&refrain, json!({"id": wrong, "dry_run": true})).await;
    assert_eq!((&looked["matched"], &looked["labels"]), (&json!(1), &json!(0)));
    let served: Vec<(&str, &str)> = looked["served"]
        .as_array()
        .unwrap()
        .iter()
        .map(|to| (to["user"].as_str().unwrap(), to["served_as"].as_str().unwrap()))
        .collect();
    assert_eq!(served, [("bob", "semantic"), ("bob", "exact"), ("ann", "generated")], "{looked:#}");
    assert!(is_stored(&refrain, &Ask::chat(QUESTION).by(ann)).await, "a look removes nothing");
    let done = feedback(&refrain, json!({"id": wrong})).await;
    assert_eq!((&done["matched"], &done["labels"]), (&json!(1), &json!(1)), "{done:#}");
    refrain.counted("refrain_purged_entries_total", &[("how", "hard")], 1.0).await;
    assert!(!is_stored(&refrain, &Ask::chat(QUESTION).by(ann)).await);
    assert!(!is_stored(&refrain, &Ask::chat(PARAPHRASE).by(bob)).await);
    assert!(is_stored(&refrain, &Ask::chat(QUESTION).by(eve)).await, "another answer stays");
    let labels = std::fs::read_to_string(refrain.dir().join("data/labels.jsonl")).unwrap();
    let label: Value = serde_json::from_str(labels.trim()).unwrap();
    assert_eq!((&label["same"], label["similarity"].as_f64().unwrap() > 0.85), (&json!(false), true));
    assert!(!labels.contains("password"), "{labels}");
}

/// What is said of the answer to a request.
fn of_request(ask: &Ask, right: bool) -> Value {
    json!({"request": to_explain(ask), "right": right})
}

#[tokio::test]
async fn who_has_only_the_question_names_the_answer_by_it() {
    let people = [Person::new("ann", "acme"), Person::new("bob", "acme"), Person::new("eve", "umbrella")];
    let [ann, bob, eve] = &people;
    let (_fake, refrain) = start_with(|config| {
        config.people(&people.each_ref()).semantic("threshold = 0.85").cache("scope = \"tenant\"").on_disk()
    })
    .await;
    let question = Ask::chat(QUESTION);
    refrain.send(&question.clone().by(ann)).await;
    refrain.send(&question.clone().by(bob)).await;
    refrain.send(&Ask::chat(PARAPHRASE).by(bob)).await;
    refrain.send(&question.clone().by(eve)).await;
    // Right for the similar question: one label, of that question alone.
    let right = feedback(&refrain, of_request(&Ask::chat(PARAPHRASE).by(bob), true)).await;
    assert_eq!((&right["matched"], &right["labels"]), (&json!(1), &json!(1)), "{right:#}");
    assert!(right["similarity"].as_f64().unwrap() > 0.85, "{right:#}");
    // Wrong for the question itself: nothing is said of what is similar.
    let wrong = feedback(&refrain, of_request(&question.clone().by(bob), false)).await;
    assert_eq!((&wrong["matched"], &wrong["labels"]), (&json!(1), &json!(0)), "{wrong:#}");
    assert_eq!(wrong["served"].as_array().unwrap().len(), 3, "{wrong:#}");
    assert!(!is_stored(&refrain, &question.clone().by(ann)).await);
    assert!(is_stored(&refrain, &question.clone().by(eve)).await, "another tenant's answer stays");
    let nobody = json!({"request": to_explain(&Ask::chat(QUESTION)), "dry_run": true});
    let reply = refrain.admin(&Ask::post("/feedback", nobody)).await;
    assert!(reply.status == 400 && reply.text().contains("it is refused (unauthorized"), "{}", reply.text());
}

#[tokio::test]
async fn the_command_takes_a_request_from_a_file() {
    let (_fake, refrain) = start_with(|config| config).await;
    let (ask, admin) = (Ask::chat("Hello"), refrain.admin_address().to_string());
    refrain.send(&ask).await;
    let file = refrain.dir().join("req.json");
    std::fs::write(&file, ask.body()).unwrap();
    let fixed =
        ["feedback", "--admin", &admin, "--request", file.to_str().unwrap(), "--as", "anonymous/anonymous"];
    let (has_succeeded, page) = run(&fixed).await;
    assert!(has_succeeded && page.contains("1 stored answer is meant."), "{page}");
    let (_, page) = run(&[&fixed[..], &["--yes"]].concat()).await;
    assert!(page.contains("1 stored answer is removed"), "{page}");
    assert!(!is_stored(&refrain, &ask).await);
}

#[tokio::test]
async fn callers_whom_nobody_has_verified_are_counted_among_those_who_were_served() {
    let web = Person::service("web", "acme");
    let (_fake, refrain) = start_with(|config| config.people(&[&web]).cache("scope = \"tenant\"")).await;
    let wrong = id(&refrain.send(&Ask::chat("Hello").by(&web)).await.json());
    refrain.send(&Ask::chat("Hello").by(&web)).await;
    let looked = feedback(&refrain, json!({"id": wrong, "dry_run": true})).await;
    let served: Vec<&str> =
        looked["served"].as_array().unwrap().iter().map(|to| to["served_as"].as_str().unwrap()).collect();
    assert_eq!(served, ["exact", "generated"], "{looked:#}");
}

#[tokio::test]
async fn an_answer_that_was_streamed_or_stored_before_a_restart_is_found_by_its_id() {
    let (_fake, refrain) = start_with(|config| config.on_disk()).await;
    let whole = id(&refrain.send(&Ask::chat("one")).await.json());
    refrain.send(&Ask::chat("two").streamed()).await;
    let refrain = refrain.restart().await;
    for id in [whole.as_str(), "chatcmpl-s"] {
        assert_eq!(feedback(&refrain, json!({"id": id})).await["matched"], 1, "{id}");
        assert_eq!(feedback(&refrain, json!({"id": id})).await["matched"], 0, "{id}");
    }
    assert!(!is_stored(&refrain, &Ask::chat("one")).await && !is_stored(&refrain, &Ask::chat("two")).await);
}

#[tokio::test]
async fn the_command_looks_first_and_a_right_answer_stays() {
    let (_fake, refrain) = start_with(|config| config).await;
    let reply = refrain.send(&Ask::chat("Hello").header("x-refrain-debug", "1")).await;
    let debug = reply.header("refrain-debug");
    let key = debug.split("key=").nth(1).unwrap();
    let admin = refrain.admin_address().to_string();
    let feedback = async |more: &[&str]| run(&[&["feedback", "--admin", &admin], more].concat()).await.1;
    let page = feedback(&["--key", key]).await;
    assert!(page.contains("1 stored answer is meant. Nothing was removed yet"), "{page}");
    assert!(page.contains("anonymous") && page.contains("generated"), "{page}");
    assert!(
        feedback(&["--key", key, "--verdict", "right", "--yes"]).await.contains("1 stored answer is kept")
    );
    assert!(refrain.send(&Ask::chat("Hello")).await.is_hit());
    assert!(feedback(&["--key", key, "--yes"]).await.contains("1 stored answer is removed"));
    assert!(!is_stored(&refrain, &Ask::chat("Hello")).await);
    let refused = refrain.admin(&Ask::post("/feedback", json!({}))).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    let by_a_page = Ask::post("/feedback", json!({"id": "a"})).header("origin", "https://evil.example");
    assert_eq!(refrain.admin(&by_a_page).await.status, 403);
}

#[tokio::test]
async fn a_wrong_answer_is_served_by_no_proxy_that_shares_the_store() {
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let (fake, dir) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let lines = format!("url = {:?}\ntimeout = \"2s\"\nconnect_timeout = \"5s\"", redis.url());
    let config = Config::new(&fake.url()).redis(&dir.path().join("cache.secret"), &lines);
    let (first, second) = (Refrain::start(&config).await, Refrain::start(&config).await);
    let ask = Ask::chat(QUESTION);
    let shared = async || {
        first.send(&ask).await;
        second.send(&ask.clone().cache_control("no-store")).await.is_hit().then_some(())
    };
    eventually("an answer that both proxies have", shared).await;
    let wrong = id(&first.send(&ask).await.json());
    assert_eq!(feedback(&second, json!({"id": wrong})).await["matched"], 1);
    for proxy in [&first, &second] {
        eventually("the end of the answer", async || (!is_stored(proxy, &ask).await).then_some(())).await;
    }
}
