//! What one proxy stored, others serve, to whom it belongs.

use refrain_tests::redis::{Flavour, RedisServer};
use refrain_tests::{Ask, Config, Person, Refrain, eventually, wire};
use serde_json::json;

use super::{Fleet, LOOKUPS, PARAPHRASE, QUESTION, check_miss, detail, look, report, stored};

fn people() -> [Person; 3] {
    [Person::new("ann", "acme"), Person::new("bob", "acme"), Person::new("ann", "umbrella")]
}

fn semantic(config: Config) -> Config {
    config.semantic("threshold = 0.85")
}

#[tokio::test]
async fn another_proxy_serves_what_one_has_stored_in_every_api_and_form() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let fleet = Fleet::of(&redis).await;
    let [a, b] = fleet.pair().await;
    let asks = [
        Ask::chat("one"),
        Ask::chat("two").streamed(),
        Ask::chat("three").streamed().field("stream_options", json!({"include_usage": true})),
        Ask::completion("one"),
        Ask::completion("two").streamed(),
        Ask::message("one"),
        Ask::message("two").streamed(),
        Ask::ollama_chat("one"),
        Ask::ollama_chat("two").streamed(),
        Ask::ollama_generate("one"),
        Ask::post("/v1/embeddings", json!({"model": "m", "input": "one"})),
        Ask::post("/api/embed", json!({"model": "m", "input": ["one", "two"]})),
    ];
    for ask in &asks {
        let miss = stored(&a, ask).await;
        let shared = b.send(ask).await;
        assert_eq!(detail(&shared), "exact_shared", "{ask:?}");
        assert_eq!(shared.header("content-type"), miss.header("content-type"));
        assert_eq!(shared.answer(), miss.answer(), "{ask:?}");
        assert!(!shared.answer().is_empty());
        let near = b.send(ask).await;
        assert_eq!(detail(&near), "exact", "{ask:?}");
        assert_eq!(near.body, shared.body, "{ask:?}");
        assert_eq!(detail(&a.send(ask).await), "exact", "who stored it keeps it near");
    }
    assert_eq!(fleet.fake.posts(), asks.len());
}

#[tokio::test]
async fn another_proxys_whole_hit_equals_the_miss_in_every_field() {
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let fleet = Fleet::of(&redis).await;
    let [a, b] = fleet.pair().await;
    for ask in Ask::each_dialect("the same") {
        let miss = stored(&a, &ask).await;
        assert_eq!(b.send(&ask).await.json(), miss.json(), "{ask:?}");
    }
}

#[tokio::test]
async fn a_stream_serves_anothers_whole_hit_and_a_whole_answer_anothers_stream() {
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let fleet = Fleet::of(&redis).await;
    let [a, b] = fleet.pair().await;
    for ask in Ask::each_dialect("crosswise one two") {
        let first = ask.clone().field("seed", json!(1));
        let miss = stored(&a, &first.clone().streamed()).await;
        let hit = b.send(&first).await;
        assert_eq!((detail(&hit), hit.answer()), ("exact_shared".to_owned(), miss.answer()), "{ask:?}");
        let usage = ["/usage/completion_tokens", "/usage/output_tokens", "/eval_count"];
        assert!(usage.iter().any(|place| hit.json().pointer(place).is_some()), "{}", hit.text());

        let first = ask.clone().field("seed", json!(2));
        let miss = stored(&a, &first).await;
        let hit = b.send(&first.clone().streamed()).await;
        assert_eq!((detail(&hit), hit.answer()), ("exact_shared".to_owned(), miss.answer()), "{ask:?}");
    }
    let ask = Ask::chat("the same deltas").streamed();
    let miss = stored(&b, &ask).await;
    assert_eq!(wire::events(&a.send(&ask).await.text()), wire::events(&miss.text()));
}

/// The mode that is on, and its reason, self-test and metric.
async fn check_mode(refrain: &Refrain, mode: &str, why: &str) {
    let report = report(refrain).await;
    assert_eq!(report["vectors"], mode, "{report}");
    assert!(report["vectors_why"].as_str().unwrap().contains(why), "{report}");
    let ready = refrain.readiness().await;
    assert_eq!((&ready["store"]["state"], &ready["ready"]), (&json!("ok"), &json!(true)), "{ready}");
    let test = &ready["store"]["self_test"];
    for passed in ["write", "exact_read", "other_user_misses", "removed"] {
        assert_eq!(test[passed], true, "{passed}: {test}");
    }
    let metrics = refrain.metrics().await;
    assert!((metrics.sum("refrain_store_redis_vectors", &[("mode", mode)]) - 1.0).abs() < 0.1);
    assert!((metrics.sum("refrain_store_redis_vectors", &[]) - 1.0).abs() < 0.1);
    refrain.logged(0, why).await;
}

/// A paraphrase finds on one proxy what another has stored, for the one whose it is and nobody else, and as often as asked.
async fn check_similar(flavour: Flavour, mode: &str, why: &str) {
    let redis = RedisServer::start(flavour).await;
    let fleet = Fleet::of(&redis).await;
    let people = people();
    let [a, b] = fleet.pair_with(|config| semantic(config.people(&people.each_ref()))).await;
    for proxy in [&a, &b] {
        check_mode(proxy, mode, why).await;
    }
    let [ann, strangers @ ..] = &people;
    for (ask, similar) in Ask::each_dialect(QUESTION).into_iter().zip(Ask::each_dialect(PARAPHRASE)) {
        let answer = stored(&a, &ask.clone().by(ann)).await.answer();
        let similar_hit = async || {
            let reply = look(&b, &similar.clone().by(ann)).await;
            reply.is_hit().then_some(reply)
        };
        // Where each process searches for itself, it is told of new vectors.
        let hit = eventually("another proxy's similar hit", similar_hit).await;
        assert!(detail(&hit).starts_with("semantic"), "{}", hit.cache_status());
        assert_eq!(hit.answer(), answer);
        assert_eq!(look(&b, &similar.clone().streamed().by(ann)).await.answer(), answer);
        for stranger in strangers {
            check_miss(&b, &similar.clone().by(stranger)).await;
            check_miss(&b, &ask.clone().by(stranger)).await;
        }
        check_miss(&b, &similar.clone().field("temperature", json!(1)).by(ann)).await;
    }
    check_miss(&b, &Ask::chat(PARAPHRASE).field("model", json!("n")).by(ann)).await;
    for text in ["How do I reset my phone?", "How do I not reset my password?"] {
        check_miss(&b, &Ask::chat(text).by(ann)).await;
    }
}

#[tokio::test]
async fn similar_questions_are_found_by_the_query_engine() {
    check_similar(Flavour::QueryEngine, "query-engine", "FT.SEARCH").await;
}

#[tokio::test]
async fn similar_questions_are_found_by_vector_sets() {
    check_similar(Flavour::VectorSets, "vector-sets", "VSIM").await;
}

#[tokio::test]
async fn similar_questions_are_found_in_each_process_where_the_server_can_not_search() {
    check_similar(Flavour::Plain, "local", "neither").await;
}

#[tokio::test]
async fn config_chooses_who_searches_and_a_proxy_that_came_later_finds_the_same() {
    let redis = RedisServer::start(Flavour::QueryEngine).await;
    for mode in ["query-engine", "vector-sets", "local"] {
        let lines = format!("url = {:?}\nvectors = {mode:?}\nprefix = \"of-{mode}\"", redis.url());
        let fleet = Fleet::with(&lines).await;
        let a = fleet.proxy_with(semantic).await;
        check_mode(&a, mode, "config says so").await;
        let answer = stored(&a, &Ask::chat(QUESTION)).await.answer();
        drop(a);
        let b = fleet.proxy_with(semantic).await;
        let hit = look(&b, &Ask::chat(PARAPHRASE)).await;
        assert!(detail(&hit).starts_with("semantic"), "{mode}: {}", hit.cache_status());
        assert_eq!(hit.answer(), answer);
    }
}

#[tokio::test]
async fn an_answer_that_was_replaced_is_replaced_for_similar_questions_everywhere() {
    for flavour in [Flavour::QueryEngine, Flavour::VectorSets, Flavour::Plain] {
        let redis = RedisServer::start(flavour).await;
        let fleet = Fleet::of(&redis).await;
        let [a, b] = fleet.pair_with(semantic).await;
        let old = stored(&a, &Ask::chat(QUESTION)).await.answer();
        let similar = async || {
            let reply = look(&b, &Ask::chat(PARAPHRASE)).await;
            reply.is_hit().then(|| reply.answer())
        };
        assert_eq!(eventually("the first answer", similar).await, old);
        assert_eq!(b.send(&Ask::chat(QUESTION)).await.answer(), old, "it is near now");
        let new = a.send(&Ask::chat(QUESTION).cache_control("no-cache")).await.answer();
        assert_ne!(new, old);
        let both_new = async || {
            let exact = look(&b, &Ask::chat(QUESTION)).await;
            let similar = look(&b, &Ask::chat(PARAPHRASE)).await;
            (exact.is_hit() && exact.answer() == new && similar.is_hit() && similar.answer() == new)
                .then_some(())
        };
        eventually(&format!("the second answer, {flavour:?}"), both_new).await;
    }
}

#[tokio::test]
async fn nobody_else_is_ever_served_what_is_shared() {
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let fleet = Fleet::of(&redis).await;
    let people = people();
    let [a, b] = fleet.pair_with(|config| config.people(&people.each_ref())).await;
    let [ann, strangers @ ..] = &people;
    for ask in Ask::each_dialect("my salary?") {
        let own = stored(&a, &ask.clone().by(ann)).await.answer();
        for stranger in strangers {
            for proxy in [&a, &b] {
                check_miss(proxy, &ask.clone().by(stranger)).await;
            }
        }
        let hit = look(&b, &ask.clone().by(ann)).await;
        assert_eq!((detail(&hit), hit.answer()), ("exact_shared".to_owned(), own));
    }
}

#[tokio::test]
async fn proxies_of_another_prefix_share_nothing() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let fleet = Fleet::of(&redis).await;
    let a = fleet.proxy().await;
    let other = Fleet { lines: format!("{}\nprefix = \"other\"", fleet.lines), ..fleet };
    let b = other.proxy().await;
    stored(&a, &Ask::chat("what now?")).await;
    check_miss(&b, &Ask::chat("what now?")).await;
}

#[tokio::test]
async fn look_ups_are_counted_by_where_they_ended() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let fleet = Fleet::of(&redis).await;
    let [a, b] = fleet.pair().await;
    stored(&a, &Ask::chat("what now?")).await;
    for _ in 0..3 {
        b.send(&Ask::chat("what now?")).await;
    }
    b.send(&Ask::chat("what then?")).await;
    let metrics = b.metrics().await;
    let counts = ["shared", "near", "miss", "away"].map(|result| metrics.sum(LOOKUPS, &[("result", result)]));
    assert_eq!(counts, [1.0, 2.0, 1.0, 0.0]);
    b.counted("refrain_requests_total", &[("outcome", "hit_exact")], 3.0).await;
}

#[tokio::test]
async fn an_entry_expires_everywhere_and_leaves_redis() {
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let fleet = Fleet::of(&redis).await;
    let [a, b] = fleet.pair_with(|config| semantic(config.cache("ttl = \"3s\""))).await;
    stored(&a, &Ask::chat(QUESTION)).await;
    assert!(look(&b, &Ask::chat(QUESTION)).await.is_hit());
    for ask in [Ask::chat(QUESTION), Ask::chat(PARAPHRASE)] {
        for proxy in [&a, &b] {
            let expired = async || (!look(proxy, &ask).await.is_hit()).then_some(());
            eventually("expiry", expired).await;
        }
    }
    let empty = async || super::entries(&redis).await.is_empty().then_some(());
    eventually("an empty Redis", empty).await;
    let sets = redis.command(&["KEYS", "refrain:*:s:*"]).await;
    assert!(sets.items().is_empty(), "the set of vectors expires with its last member: {sets:?}");
}

#[tokio::test]
async fn what_a_killed_proxy_had_written_is_served_by_others_and_by_itself_again() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let fleet = Fleet::of(&redis).await;
    let [a, b] = fleet.pair().await;
    let answer = stored(&a, &Ask::chat("what now?")).await.answer();
    let a = a.kill9_and_restart().await;
    super::up(&a).await;
    for proxy in [&a, &b] {
        let hit = proxy.send(&Ask::chat("what now?")).await;
        assert_eq!((detail(&hit), hit.answer()), ("exact_shared".to_owned(), answer.clone()));
    }
}

#[tokio::test]
async fn what_waits_to_be_written_at_sigterm_is_written() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let fleet = Fleet::of(&redis).await;
    let [mut a, b] = fleet.pair().await;
    let asks: Vec<Ask> = (0..20).map(|nth| Ask::chat(&format!("question {nth}"))).collect();
    for ask in &asks {
        a.send(ask).await;
    }
    a.sigterm();
    assert!(a.ended().await.success());
    for ask in &asks {
        assert_eq!(detail(&look(&b, ask).await), "exact_shared", "{ask:?}");
    }
}
