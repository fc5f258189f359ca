//! What is purged at one proxy is served by none, near caches and writes under way included.

use std::time::{Duration, Instant};

use refrain_tests::fake::{Gate, openai};
use refrain_tests::redis::{Flavour, Passage, RedisServer, Relay};
use refrain_tests::{Ask, Client, Config, Person, Policy, Refrain, eventually};
use serde_json::{Value, json};

use super::{
    CALM, Fleet, PARAPHRASE, QUESTION, away, check_miss, detail, entries, look, stored, up, written,
};

/// How soon other proxies follow.
const FOLLOWS: Duration = Duration::from_secs(1);

/// A second route.
const OTHER: &str = "[route.other]\npool = \"llm\"\nheaders = { x-team = \"other\" }\n[route.other.cache]\n";

async fn purge(refrain: &Refrain, what: Value) -> Value {
    let reply = refrain.admin(&Ask::post("/purge", what)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// Waits until none of the asks is a hit there, and says so if it took too long.
async fn check_gone(refrain: &Refrain, asks: &[&Ask]) {
    let purged = Instant::now();
    for ask in asks {
        let gone = async || {
            let asked = purged.elapsed();
            let is_hit = look(refrain, ask).await.is_hit();
            assert!(!is_hit || asked <= FOLLOWS, "{ask:?} is served {asked:?} after the purge");
            (!is_hit).then_some(())
        };
        eventually("the purge at another proxy", gone).await;
    }
}

/// The numbers of the asks that are hits.
async fn hits(refrain: &Refrain, asks: &[Ask]) -> Vec<usize> {
    let mut hits = Vec::new();
    for (nth, ask) in asks.iter().enumerate() {
        if look(refrain, ask).await.is_hit() {
            hits.push(nth);
        }
    }
    hits
}

/// `what`, said to `a`, is about the answers of `gone` and no others: counted first, then removed everywhere.
async fn check([a, b]: &[Refrain; 2], asks: &[Ask], what: &Value, gone: &[usize]) {
    let before = hits(b, asks).await;
    let mut dry = what.clone();
    dry["dry_run"] = true.into();
    let counted = purge(a, dry).await;
    assert_eq!((&counted["matched"], &counted["dry_run"]), (&gone.len().into(), &true.into()), "{what}");
    assert_eq!(hits(b, asks).await, before, "a dry run removes nothing");
    assert_eq!(purge(a, what.clone()).await["matched"], gone.len(), "{what}");
    check_gone(b, &gone.iter().map(|nth| &asks[*nth]).collect::<Vec<_>>()).await;
    let left: Vec<usize> = before.into_iter().filter(|nth| !gone.contains(nth)).collect();
    for proxy in [a, b] {
        assert_eq!(hits(proxy, asks).await, left, "{what}");
    }
}

#[tokio::test]
async fn a_purge_at_one_proxy_is_followed_by_others_by_each_condition() {
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let fleet = Fleet::of(&redis).await;
    let people =
        [Person::new("ann", "acme").admin(), Person::new("bob", "acme"), Person::new("eve", "umbrella")];
    let policy = Policy::new().tags(&["prices"]);
    let pair = fleet
        .pair_with(|config| config.people(&people.each_ref()).policy("test", &policy, "").tables(OTHER))
        .await;
    let [ann, bob, eve] = &people;
    let untagged = |text: &str| Ask::chat(text).header("x-team", "other");
    let asks = [
        Ask::chat("one").by(ann),
        untagged("two").by(ann),
        untagged("three").by(bob),
        untagged("four").by(eve),
        untagged("five").by(eve).field("model", json!("large")),
        untagged("six").by(ann),
        untagged("seven").by(ann).streamed(),
    ];
    for ask in &asks {
        stored(&pair[0], ask).await;
        assert_eq!(detail(&pair[1].send(ask).await), "exact_shared", "near from now on");
    }
    let debug = pair[1].send(&asks[1].clone().header("x-refrain-debug", "1")).await.header("refrain-debug");
    let (_, key) = debug.split_once("key=").unwrap_or_else(|| panic!("no key in {debug:?}"));
    for (what, gone) in [
        (json!({"tag": "prices"}), &[0][..]),
        (json!({ "key": key }), &[1]),
        (json!({"user": "bob"}), &[2]),
        (json!({"model": "large"}), &[4]),
        (json!({"tenant": "umbrella"}), &[3]),
        (json!({"route": "all"}), &[]),
        (json!({"route": "other"}), &[5, 6]),
        (json!({"everything": true}), &[]),
    ] {
        check(&pair, &asks, &what, gone).await;
    }
    assert!(entries(&redis).await.is_empty());
}

#[tokio::test]
async fn old_answers_are_purged_by_their_age_everywhere() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let fleet = Fleet::of(&redis).await;
    let pair = fleet.pair().await;
    let asks = [Ask::chat("what now?")];
    stored(&pair[0], &asks[0]).await;
    check(&pair, &asks, &json!({"older_than": "1h"}), &[]).await;
    check(&pair, &asks, &json!({"older_than": "0s"}), &[0]).await;
}

#[tokio::test]
async fn similar_questions_find_nothing_purged_at_any_proxy() {
    for flavour in [Flavour::QueryEngine, Flavour::VectorSets, Flavour::Plain] {
        let redis = RedisServer::start(flavour).await;
        let fleet = Fleet::of(&redis).await;
        let [a, b] = fleet.pair_with(|config| config.semantic("threshold = 0.85")).await;
        let (question, similar) = (Ask::chat(QUESTION), Ask::chat(PARAPHRASE));
        let old = stored(&a, &question).await.answer();
        let found = async || look(&b, &similar).await.is_hit().then_some(());
        eventually("a similar hit", found).await;
        // What it has near is gone when it has heard of the purge, and what it begins from then on is stored.
        assert!(b.send(&question).await.is_hit());
        assert_eq!(purge(&a, json!({"everything": true})).await["matched"], 1, "{flavour:?}");
        check_gone(&b, &[&question, &similar]).await;
        check_miss(&a, &similar).await;
        let new = stored(&b, &question).await.answer();
        assert_ne!(new, old);
        let found = async || {
            let reply = look(&a, &similar).await;
            reply.is_hit().then(|| reply.answer())
        };
        assert_eq!(eventually(&format!("the new answer, {flavour:?}"), found).await, new);
    }
}

#[tokio::test]
async fn after_a_soft_purge_every_proxy_refreshes() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let fleet = Fleet::of(&redis).await;
    let windows = |config: Config| config.cache("stale_while_revalidate = \"10m\"");
    let [a, b] = fleet.pair_with(windows).await;
    let ask = Ask::chat("what now?");
    let old = stored(&a, &ask).await.answer();
    assert_eq!(detail(&b.send(&ask).await), "exact_shared");
    let answer = purge(&a, json!({"everything": true, "soft": true})).await;
    assert_eq!((&answer["matched"], &answer["how"]), (&1.into(), &"soft".into()));
    let purged = Instant::now();
    let stale = async || {
        let asked = purged.elapsed();
        let reply = b.send(&ask).await;
        let is_stale = detail(&reply) == "stale_while_revalidate";
        assert!(is_stale || asked <= FOLLOWS || reply.answer() != old, "{}", reply.cache_status());
        is_stale.then(|| reply.answer())
    };
    assert_eq!(eventually("a stale answer", stale).await, old);
    for proxy in [&b, &a] {
        let fresh = async || {
            let reply = proxy.send(&ask).await;
            (reply.is_hit() && reply.answer() != old && detail(&reply).starts_with("exact")).then_some(())
        };
        eventually("a fresh answer", fresh).await;
    }
}

#[tokio::test]
async fn what_another_proxy_had_begun_before_the_purge_is_not_stored_after_it() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let fleet = Fleet::of(&redis).await;
    let [a, b] = fleet.pair().await;
    let ask = Ask::chat("what now?").streamed();
    let gate = Gate::default();
    fleet.fake.next(openai::chat_stream(&["an ", "old ", "one"], "stop").gate(3, &gate));
    let mut early = Client::http(b.address()).open(&ask).await;
    early.until("an ").await;
    assert_eq!(purge(&a, json!({"everything": true})).await["matched"], 0, "nothing is stored yet");
    // B has heard of it when it doesn't join what is under way.
    fleet.fake.next(openai::chat_stream(&["a ", "new ", "one"], "stop"));
    let known = async || {
        let reply = look(&b, &Ask::chat("something else")).await;
        (reply.status == 200 && b.metrics().await.sum("refrain_store_redis_up", &[]) > 0.5).then_some(())
    };
    eventually("a living proxy", known).await;
    gate.open();
    let rest = early.whole().await.text();
    assert!(
        rest.contains("old ") && rest.ends_with("data: [DONE]\n\n"),
        "who asked before may have it: {rest}"
    );
    written(&b).await;
    let gone = Instant::now();
    for proxy in [&a, &b] {
        let reply = look(proxy, &ask).await;
        assert!(!reply.is_hit() || gone.elapsed() < FOLLOWS, "{}", reply.cache_status());
    }
    let c = fleet.proxy().await;
    assert_ne!(look(&c, &ask).await.answer(), "an old one");
    check_gone(&b, &[&ask]).await;
    check_gone(&a, &[&ask]).await;
}

#[tokio::test]
async fn a_write_that_waited_for_redis_over_a_purge_is_given_up() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let fleet = Fleet::of(&redis).await;
    let a = fleet.proxy().await;
    let relay = Relay::start(redis.address()).await;
    let behind =
        Fleet { lines: format!("url = \"redis://{}\"\ntimeout = \"300ms\"", relay.address()), ..fleet };
    let b = behind.proxy().await;
    relay.set(Passage::Refused).await;
    relay.cut().await;
    away(&b, "unreachable").await;
    let ask = Ask::chat("what now?");
    assert_eq!(b.send(&ask).await.status, 200);
    assert_eq!(purge(&a, json!({"everything": true})).await["matched"], 0);
    relay.set(Passage::Open).await;
    up(&b).await;
    written(&b).await;
    for proxy in [&a, &b] {
        check_miss(proxy, &ask).await;
    }
    assert!(entries(&redis).await.is_empty(), "nothing purged comes back");
}

#[tokio::test]
async fn a_purge_survives_kill_9_of_everybody_and_is_known_to_who_comes_later() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let fleet = Fleet::of(&redis).await;
    let [a, b] = fleet.pair().await;
    let ask = Ask::chat("what now?");
    stored(&a, &ask).await;
    let name = entries(&redis).await.remove(0);
    let copy = redis.command(&["DUMP", &name]).await.bytes().to_vec();
    assert_eq!(purge(&a, json!({"everything": true})).await["matched"], 1);
    check_gone(&b, &[&ask]).await;
    // As from a writer that was late, or a replica that was promoted without it.
    redis.command(&[b"RESTORE", name.as_bytes(), b"600000", &copy]).await;
    for proxy in [a.kill9_and_restart().await, b, fleet.proxy().await] {
        up(&proxy).await;
        check_gone(&proxy, &[&ask]).await;
    }
}

#[tokio::test]
async fn a_purge_is_refused_while_redis_is_away_and_says_so() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let relay = Relay::start(redis.address()).await;
    let fleet = Fleet::with(&format!("url = \"redis://{}\"\n{CALM}", relay.address())).await;
    let a = fleet.proxy().await;
    stored(&a, &Ask::chat("what now?")).await;
    relay.set(Passage::Refused).await;
    relay.cut().await;
    away(&a, "unreachable").await;
    let reply = a.admin(&Ask::post("/purge", json!({"everything": true}))).await;
    assert!(reply.status >= 500, "{} {}", reply.status, reply.text());
    relay.set(Passage::Open).await;
    up(&a).await;
    assert_eq!(purge(&a, json!({"everything": true})).await["matched"], 1);
    check_miss(&a, &Ask::chat("what now?")).await;
}
