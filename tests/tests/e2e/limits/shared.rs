//! Limits that proxies count together.

use std::path::Path;
use std::time::{Duration, Instant};

use refrain_tests::fake::{Answer, FakeUpstream, Gate, openai};
use refrain_tests::redis::{Flavour, Passage, RedisCluster, RedisServer, Relay};
use refrain_tests::{Client, Config, Person, Refrain, eventually};

use super::{RESULTS, answer, check_exact, check_refused, crowd, fresh, limited, people};

/// Deadlines that a busy machine keeps.
const CALM: &str = "timeout = \"5s\"\nconnect_timeout = \"5s\"";

fn config(fake: &FakeUpstream, secret: &Path, redis: &str, people: &[&Person], lines: &str) -> Config {
    let config = Config::new(&fake.url()).people(people).redis(secret, &format!("{redis}\n{CALM}"));
    limited(config, &format!("timeout = \"5s\"\n{lines}"))
}

/// A proxy that has joined Redis.
async fn start(config: &Config) -> Refrain {
    let refrain = Refrain::start(config).await;
    let is_up = async || (refrain.metrics().await.sum("refrain_store_redis_up", &[]) > 0.5).then_some(());
    eventually("a proxy that uses Redis", is_up).await;
    refrain
}

async fn check_pair(redis: &str) {
    let [ann, bob] = people();
    let (fake, dir) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let lines = "requests_per_minute = 3\nburst = \"1h\"";
    let config = config(&fake, &dir.path().join("secret"), redis, &[&ann, &bob], lines).quiet();
    let pair = [start(&config).await, start(&config).await];
    let begun = Instant::now();
    let admitted = crowd(&pair, 150, &ann).await;
    check_exact(admitted, 3, begun);
    for proxy in &pair {
        assert!(proxy.metrics().await.sum(RESULTS, &[("result", "unavailable")]) < 0.5);
        check_refused(&proxy.send(&fresh(0).by(&ann)).await);
        assert_eq!(proxy.send(&fresh(0).by(&bob)).await.status, 200);
    }
}

#[tokio::test]
async fn two_proxies_let_exactly_as_much_through_as_one() {
    for flavour in [Flavour::VectorSets, Flavour::Plain] {
        let redis = RedisServer::start(flavour).await;
        check_pair(&format!("url = {:?}", redis.url())).await;
        let names = redis.command(&["KEYS", "*:meters"]).await;
        assert_eq!(names.items().len(), 2);
        for name in names.items() {
            let name = name.text();
            assert!(name.starts_with("{refrain:1:l:") && !name.contains("person"), "{name}");
            assert!(redis.command(&["PTTL", &name]).await.integer() > 0, "it expires");
        }
    }
}

#[tokio::test]
async fn redis_cluster_counts_each_subject_on_one_of_its_servers() {
    let cluster = RedisCluster::start(Flavour::VectorSets, 3).await;
    check_pair(&format!("url = {:?}\ncluster = true", cluster.urls()[0])).await;
    for node in cluster.nodes() {
        let errors = node.command(&["INFO", "errorstats"]).await.text();
        assert!(!errors.contains("CROSSSLOT"), "{errors}");
    }
}

#[tokio::test]
async fn places_and_tokens_are_shared_too() {
    let [ann] = people();
    let (fake, dir) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let lines = "concurrency = 1\noutput_tokens_per_minute = 50";
    let url = format!("url = {:?}", redis.url());
    let config = config(&fake, &dir.path().join("secret"), &url, &[&ann], lines);
    let [a, b] = [start(&config).await, start(&config).await];
    let gate = Gate::default();
    fake.next(
        Answer::stream("text/event-stream", openai::chat_events(&["a".into()], "stop", true)).gate(3, &gate),
    );
    let mut first = a.open(&fresh(1).streamed().by(&ann)).await;
    first.until("\"a\"").await;
    check_refused(&b.send(&fresh(2).by(&ann)).await);
    gate.open();
    first.whole().await;
    fake.always(|_| answer(400));
    let again = async || (b.send(&fresh(3).by(&ann)).await.status == 200).then_some(());
    eventually("room after the answer has ended", again).await;
    let refused = async || {
        let reply = a.send(&fresh(4).by(&ann)).await;
        (reply.status == 429 && reply.text().contains("output tokens")).then_some(reply)
    };
    let refused = eventually("a debt of tokens elsewhere", refused).await;
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 200, "{}", refused.header("retry-after"));
}

#[tokio::test]
async fn two_proxies_never_have_more_under_way_than_may_be() {
    let [ann] = people();
    let (fake, dir) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let url = format!("url = {:?}", redis.url());
    let config = config(&fake, &dir.path().join("secret"), &url, &[&ann], "concurrency = 3").quiet();
    fake.always(|_| answer(1).pause(0, Duration::from_millis(20)));
    let pair = [start(&config).await, start(&config).await];
    let admitted = crowd(&pair, 60, &ann).await;
    assert!(admitted >= 3, "{admitted}");
    assert!((1..=3).contains(&fake.peak_in_flight()), "{}", fake.peak_in_flight());
}

#[tokio::test]
async fn while_redis_is_away_each_counts_for_itself_or_none_or_refuses() {
    for (on_error, statuses) in [("local", [200, 429]), ("allow", [200, 200]), ("refuse", [503, 503])] {
        let [ann] = people();
        let (fake, dir) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
        let mut redis = RedisServer::start(Flavour::VectorSets).await;
        let lines = format!("requests_per_day = 1\non_error = {on_error:?}");
        let url = format!("url = {:?}", redis.url());
        let config = config(&fake, &dir.path().join("secret"), &url, &[&ann], &lines);
        let refrain = start(&config).await;
        assert_eq!(refrain.send(&fresh(1).by(&ann)).await.status, 200);
        check_refused(&refrain.send(&fresh(2).by(&ann)).await);
        redis.kill9();
        let is_away =
            async || (refrain.metrics().await.sum("refrain_store_redis_up", &[]) < 0.5).then_some(());
        eventually("a proxy without Redis", is_away).await;
        for (nth, status) in statuses.into_iter().enumerate() {
            let reply = refrain.send(&fresh(nth).by(&ann)).await;
            assert_eq!(reply.status, status, "{on_error}: {}", reply.text());
        }
        refrain.counted(RESULTS, &[("result", "unavailable")], 2.0).await;
    }
}

/// A proxy whose user has this limit, in a Redis that other proxies have asked before.
async fn behind(relay: &Relay, fake: &FakeUpstream, secret: &Path, ann: &Person, lines: &str) -> Refrain {
    let redis = format!("url = \"redis://{}\"\n{CALM}", relay.address());
    let config = Config::new(&fake.url()).people(&[ann]).redis(secret, &redis).without_cache();
    start(&limited(config.route("cache = false"), lines)).await
}

#[tokio::test]
async fn a_thread_that_has_yet_to_connect_lets_nobody_down() {
    let [ann] = people();
    let (fake, dir) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let redis = RedisServer::start(Flavour::Plain).await;
    let relay = Relay::start(redis.address()).await;
    let lines = "requests_per_day = 100\ntimeout = \"390ms\"\non_error = \"refuse\"";
    let secret = dir.path().join("secret");
    let (former, refrain) = (
        behind(&relay, &fake, &secret, &ann, lines).await,
        behind(&relay, &fake, &secret, &ann, lines).await,
    );
    // From here on the server knows the script.
    let asked = async || (former.send(&fresh(1).by(&ann)).await.status == 200).then_some(());
    eventually("a request that is counted", asked).await;
    // Connecting and asking take longer than a request waits for its limits, and asking alone does not.
    relay.set(Passage::Delayed(Duration::from_millis(200))).await;
    let reply = refrain.send(&fresh(2).by(&ann)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test]
async fn a_moment_of_slowness_takes_no_place_for_as_long_as_a_lease_lasts() {
    let [ann] = people();
    let (fake, dir) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let redis = RedisServer::start(Flavour::Plain).await;
    let relay = Relay::start(redis.address()).await;
    let lines = "concurrency = 1\ntimeout = \"500ms\"\non_error = \"refuse\"";
    let refrain = behind(&relay, &fake, &dir.path().join("secret"), &ann, lines).await;
    let client = Client::http(refrain.address());
    let asked = async || (client.send(&fresh(1).by(&ann)).await.status == 200).then_some(());
    eventually("a request that is counted", asked).await;
    relay.set(Passage::Held).await;
    assert_eq!(client.send(&fresh(2).by(&ann)).await.status, 503);
    relay.set(Passage::Open).await;
    // Sooner than the lease ends.
    eventually("room for one", asked).await;
}
