//! What operators purge is served to nobody any more, and nothing else is gone.

use std::process::Output;

use refrain_tests::fake::{Answer, FakeUpstream, Gate, openai};
use refrain_tests::{Ask, Client, Config, Person, Policy, Refrain, Reply, refrain_binary, within};
use serde_json::{Value, json};

use crate::{start, start_with};

/// A second route.
const OTHER: &str = "[route.other]\npool = \"llm\"\nheaders = { x-team = \"other\" }\n[route.other.cache]\n";

/// Asks the admin listener.
async fn purge(refrain: &Refrain, what: Value) -> Value {
    let reply = refrain.admin(&Ask::post("/purge", what)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// How many were purged.
async fn purged(refrain: &Refrain, what: Value) -> u64 {
    purge(refrain, what).await["matched"].as_u64().unwrap()
}

/// Asks without storing what comes, whether it is a hit.
async fn is_stored(refrain: &Refrain, ask: &Ask) -> bool {
    refrain.send(&ask.clone().cache_control("no-store")).await.is_hit()
}

/// The numbers of the asks whose answers are stored.
async fn stored(refrain: &Refrain, asks: &[Ask]) -> Vec<usize> {
    let mut stored = Vec::new();
    for (nth, ask) in asks.iter().enumerate() {
        if is_stored(refrain, ask).await {
            stored.push(nth);
        }
    }
    stored
}

async fn fill(refrain: &Refrain, asks: &[Ask]) {
    for ask in asks {
        assert_eq!(refrain.send(ask).await.cache_status(), "refrain; fwd=miss");
    }
    assert_eq!(stored(refrain, asks).await.len(), asks.len());
}

/// `what` is about the answers of `gone`: first a dry run, then in earnest.
async fn check(refrain: &Refrain, asks: &[Ask], what: &Value, gone: &[usize]) {
    let before = stored(refrain, asks).await;
    let mut dry = what.clone();
    dry["dry_run"] = true.into();
    let counted = purge(refrain, dry).await;
    assert_eq!((&counted["matched"], &counted["dry_run"]), (&gone.len().into(), &true.into()), "{what}");
    assert_eq!(stored(refrain, asks).await, before, "a dry run removes nothing");
    let answer = purge(refrain, what.clone()).await;
    for number in ["matched", "bytes", "by_route"] {
        assert_eq!(answer[number], counted[number], "{what}");
    }
    let left: Vec<usize> = before.into_iter().filter(|nth| !gone.contains(nth)).collect();
    assert_eq!(stored(refrain, asks).await, left, "{what}");
    assert_eq!(purged(refrain, what.clone()).await, 0, "{what}");
}

#[tokio::test]
async fn answers_are_purged_by_who_asked_first() {
    let people = [Person::new("ann", "acme"), Person::new("bob", "acme"), Person::new("ann", "umbrella")];
    let (_fake, refrain) = start_with(|config| config.people(&people.each_ref())).await;
    let asks = people.each_ref().map(|person| Ask::chat("what now?").by(person));
    fill(&refrain, &asks).await;
    check(&refrain, &asks, &json!({"tenant": "nobody"}), &[]).await;
    check(&refrain, &asks, &json!({"tenant": "acme", "user": "ann"}), &[0]).await;
    check(&refrain, &asks, &json!({"tenant": "acme"}), &[1]).await;
    check(&refrain, &asks, &json!({"user": "ann"}), &[2]).await;
}

#[tokio::test]
async fn answers_are_purged_by_route_and_model_and_all_together() {
    let (_fake, refrain) = start_with(|config| config.tables(OTHER)).await;
    let large = Ask::chat("what now?").field("model", "large".into());
    let there = Ask::chat("what now?").header("x-team", "other");
    let asks = [Ask::chat("what now?"), large, there, Ask::chat("what then?")];
    fill(&refrain, &asks).await;
    let counted = purge(&refrain, json!({"everything": true, "dry_run": true})).await;
    assert_eq!(counted["by_route"], json!({"all": 3, "other": 1}));
    check(&refrain, &asks, &json!({"route": "other", "model": "large"}), &[]).await;
    check(&refrain, &asks, &json!({"route": "other"}), &[2]).await;
    check(&refrain, &asks, &json!({"model": "large"}), &[1]).await;
    check(&refrain, &asks, &json!({"everything": true}), &[0, 3]).await;
}

#[tokio::test]
async fn answers_are_purged_by_the_tag_that_a_policy_gave() {
    let policy = Policy::new().tags(&["prices", "2026"]);
    let (_fake, refrain) = start_with(|config| config.policy("test", &policy, "").tables(OTHER)).await;
    let untagged = Ask::chat("what now?").header("x-team", "other");
    let asks = [Ask::chat("what now?"), Ask::chat("what then?"), untagged];
    fill(&refrain, &asks).await;
    check(&refrain, &asks, &json!({"tag": "price"}), &[]).await;
    check(&refrain, &asks, &json!({"tag": "2026"}), &[0, 1]).await;
}

#[tokio::test]
async fn one_answer_is_purged_by_its_key() {
    let root = Person::new("root", "acme").admin();
    let (_fake, refrain) = start_with(|config| config.people(&[&root])).await;
    let asks = ["what now?", "what then?"].map(|text| Ask::chat(text).by(&root));
    fill(&refrain, &asks).await;
    let debug = refrain.send(&asks[1].clone().header("x-refrain-debug", "1")).await.header("refrain-debug");
    let (_, key) = debug.split_once("key=").unwrap();
    check(&refrain, &asks, &json!({ "key": key }), &[1]).await;
}

#[tokio::test]
async fn old_answers_are_purged_by_their_age() {
    let (_fake, refrain) = start().await;
    let asks = [Ask::chat("what now?")];
    fill(&refrain, &asks).await;
    assert_eq!(purged(&refrain, json!({"older_than": "1h"})).await, 0);
    assert_eq!(stored(&refrain, &asks).await, [0]);
    // "Older than nothing" is anything from before this millisecond.
    assert_eq!(purged(&refrain, json!({"older_than": "0s"})).await, 1);
    assert!(stored(&refrain, &asks).await.is_empty());
}

#[tokio::test]
async fn similar_questions_find_nothing_either() {
    let (_fake, refrain) = start_with(|config| config.semantic("threshold = 0.85")).await;
    let (question, similar) =
        (Ask::chat("How do I reset my password?"), Ask::chat("How can I reset my password?"));
    refrain.send(&question).await;
    assert!(is_stored(&refrain, &similar).await);
    assert_eq!(purged(&refrain, json!({"route": "all"})).await, 1);
    assert!(!is_stored(&refrain, &similar).await && !is_stored(&refrain, &question).await);
    assert!(refrain.metrics().await.sum("refrain_store_vectors", &[]) < 0.5);
    let new = refrain.send(&question).await.answer();
    assert_eq!(refrain.send(&similar).await.answer(), new);
}

/// A Refrain whose answers may be served stale for ten minutes while they are refreshed.
async fn with_stale_window(change: impl FnOnce(Config) -> Config) -> (FakeUpstream, Refrain) {
    start_with(|config| change(config.cache("stale_while_revalidate = \"10m\""))).await
}

fn is_stale(reply: &Reply) -> bool {
    reply.cache_status().ends_with("detail=stale_while_revalidate")
}

#[tokio::test]
async fn after_a_soft_purge_a_stale_answer_is_served_while_a_fresh_one_is_made() {
    let (fake, refrain) = with_stale_window(|config| config).await;
    let ask = Ask::chat("what now?");
    let old = refrain.send(&ask).await.answer();
    let answer = purge(&refrain, json!({"everything": true, "soft": true})).await;
    assert_eq!((&answer["matched"], &answer["how"]), (&1.into(), &"soft".into()));
    let gate = Gate::default();
    fake.next(openai::chat_stream(&["a ", "new ", "one"], "stop").gate(3, &gate));
    for _ in 0..2 {
        let stale = refrain.send(&ask).await;
        assert!(is_stale(&stale), "{}", stale.cache_status());
        assert_eq!(stale.answer(), old);
    }
    gate.open();
    let fresh = async || {
        let reply = refrain.send(&ask).await;
        (reply.is_hit() && !is_stale(&reply)).then(|| reply.answer())
    };
    assert_eq!(refrain_tests::eventually("the refreshed answer", fresh).await, "a new one");
    assert_eq!(fake.posts(), 2);
}

#[tokio::test]
async fn where_nothing_may_be_stale_a_soft_purge_is_as_good_as_a_hard_one() {
    let (_fake, refrain) = start().await;
    let asks = [Ask::chat("what now?"), Ask::chat("what then?")];
    fill(&refrain, &asks).await;
    assert_eq!(purged(&refrain, json!({"everything": true, "soft": true})).await, 2);
    assert!(stored(&refrain, &asks).await.is_empty());
}

#[tokio::test]
async fn what_was_begun_before_a_purge_is_neither_stored_nor_joined_after_it() {
    let (fake, refrain) = start().await;
    let client = Client::http(refrain.address());
    let ask = Ask::chat("what now?").streamed();
    let gate = Gate::default();
    fake.next(openai::chat_stream(&["an ", "old ", "one"], "stop").gate(3, &gate));
    let mut early = client.open(&ask).await;
    early.until("an ").await;
    assert_eq!(purged(&refrain, json!({"everything": true})).await, 0, "nothing is stored yet");
    fake.next(openai::chat_stream(&["a ", "new ", "one"], "stop"));
    // The old one is still under way: it isn't waited for.
    let late = within("an answer of its own", client.open(&ask)).await;
    assert_eq!(late.cache_status(), "refrain; fwd=miss");
    assert_eq!(late.whole().await.answer(), "a new one");
    gate.open();
    let rest = early.whole().await.text();
    assert!(
        rest.contains("old ") && rest.ends_with("data: [DONE]\n\n"),
        "who asked before may have it: {rest}"
    );
    refrain.counted("refrain_cache_skips_total", &[("reason", "purged")], 1.0).await;
    let hit = refrain.send(&ask).await;
    assert!(hit.is_hit());
    assert_eq!(hit.answer(), "a new one");
}

#[tokio::test]
async fn a_stale_answer_that_was_purged_meanwhile_is_no_way_out() {
    let windows = "ttl = \"1s\"\nstale_if_error = \"10m\"";
    let (fake, refrain) = start_with(|config| config.cache(windows)).await;
    let ask = Ask::chat("what now?");
    refrain.send(&ask).await;
    assert_eq!(purged(&refrain, json!({"everything": true, "soft": true})).await, 1);
    fake.next(Answer::json(503, &json!({})));
    let saved = refrain.send(&ask).await;
    assert!(saved.cache_status().ends_with("detail=stale_if_error"), "{}", saved.cache_status());
    let gate = Gate::default();
    fake.next(Answer::json(503, &json!({})).gate(0, &gate));
    let asking = refrain.send(&ask);
    let purging = async {
        fake.posted(3).await;
        assert_eq!(purged(&refrain, json!({"everything": true})).await, 1);
        gate.open();
    };
    let (reply, ()) = tokio::join!(asking, purging);
    assert_eq!(reply.status, 503, "{}", reply.text());
}

#[tokio::test]
async fn a_purge_on_disk_survives_a_restart_and_kill_9() {
    let (_fake, refrain) = with_stale_window(Config::on_disk).await;
    let asks = [Ask::chat("one?"), Ask::chat("two?").field("model", "m2".into()), Ask::chat("three?")];
    fill(&refrain, &asks).await;
    let refrain = refrain.restart().await;
    // From disk alone.
    assert_eq!(purged(&refrain, json!({"model": "m2"})).await, 1);
    let refrain = refrain.kill9_and_restart().await;
    assert_eq!(stored(&refrain, &asks).await, [0, 2]);
    assert_eq!(purged(&refrain, json!({"everything": true, "soft": true})).await, 2);
    let refrain = refrain.kill9_and_restart().await;
    assert!(is_stale(&refrain.send(&asks[0]).await));
    // A refresh that begins after the purge is none of its business: it must have ended before.
    refrain_tests::eventually("a fresh answer", async || {
        (!is_stale(&refrain.send(&asks[0]).await)).then_some(())
    })
    .await;
    assert_eq!(purged(&refrain, json!({"everything": true})).await, 2);
    let refrain = refrain.kill9_and_restart().await;
    assert!(stored(&refrain, &asks).await.is_empty());
    fill(&refrain, &asks).await;
}

#[tokio::test]
async fn purges_are_counted_and_logged() {
    let (_fake, refrain) = start().await;
    fill(&refrain, &[Ask::chat("what now?")]).await;
    purge(&refrain, json!({"route": "all", "dry_run": true})).await;
    purge(&refrain, json!({"route": "all"})).await;
    purge(&refrain, json!({"route": "all", "soft": true})).await;
    let metrics = refrain.metrics().await;
    for (how, entries) in [("hard", 1.0), ("soft", 0.0)] {
        assert_eq!(metrics.sum("refrain_purges_total", &[("how", how)]), 1.0);
        assert_eq!(metrics.sum("refrain_purged_entries_total", &[("how", how)]), entries);
    }
    refrain.logged(0, "purged").await;
    refrain.logged(0, "what=route \"all\"").await;
}

#[tokio::test]
async fn without_a_store_there_is_nothing_to_purge() {
    let (_fake, refrain) =
        start_with(|config| config.without_cache().tables("[store]\nkind = \"off\"")).await;
    let reply = refrain.admin(&Ask::post("/purge", json!({"everything": true}))).await;
    assert_eq!(reply.status, 409);
}

/// `refrain purge`, asking this one.
async fn command(refrain: &Refrain, arguments: &[&str]) -> (Output, String) {
    let admin = refrain.admin_address().to_string();
    let mut command = tokio::process::Command::new(refrain_binary());
    command.arg("purge").args(arguments).args(["--admin", &admin]).kill_on_drop(true);
    let output = within("end of refrain purge", command.output()).await.unwrap();
    let text = [&output.stdout[..], &output.stderr].concat();
    (output, String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn the_command_counts_first_and_removes_with_yes() {
    let (_fake, refrain) = start().await;
    let asks = [Ask::chat("what now?"), Ask::chat("what then?")];
    fill(&refrain, &asks).await;
    let (output, text) = command(&refrain, &["--route", "all"]).await;
    assert!(output.status.success(), "{text}");
    assert!(text.starts_with("ROUTE  ANSWERS\nall    2\nall    2  ("), "{text}");
    assert!(text.contains("--yes"), "{text}");
    assert_eq!(stored(&refrain, &asks).await, [0, 1]);
    let (_, text) = command(&refrain, &["--route", "all", "--yes"]).await;
    assert!(text.contains("Removed"), "{text}");
    assert!(stored(&refrain, &asks).await.is_empty());
    let (output, text) = command(&refrain, &["--route", "all", "--yes"]).await;
    assert!(output.status.success() && text.contains("Nothing matches"), "{text}");
}

#[tokio::test]
async fn the_command_says_what_is_wrong_and_what_to_do() {
    let (_fake, mut refrain) = start().await;
    let (output, text) = command(&refrain, &["--yes"]).await;
    assert!(output.status.code() == Some(2) && text.contains("--everything"), "{text}");
    let long = "x".repeat(2000);
    let (output, text) = command(&refrain, &["--tag", &long]).await;
    assert!(output.status.code() == Some(1) && text.contains("longer than 1024 bytes"), "{text}");
    refrain.sigterm();
    refrain.ended().await;
    let (output, text) = command(&refrain, &["--everything"]).await;
    assert!(output.status.code() == Some(1) && text.contains("is refrain running?"), "{text}");
}
