//! While Redis is away, or answers badly, requests go on without it, and it is used again as soon as it can be.

use std::time::{Duration, Instant};

use refrain_tests::redis::{Flavour, Passage, RedisCluster, RedisOptions, RedisServer, Relay};
use refrain_tests::{Ask, Client, Refrain, Reply, eventually};
use tokio::task::JoinSet;

use super::{
    CALM, ERRORS, Fleet, LOOKUPS, PARAPHRASE, QUESTION, WRITES, away, check_miss, detail, look, report,
    stored, up,
};

/// How long a request may wait for Redis in these tests.
const DEADLINE: Duration = Duration::from_millis(500);
/// How much longer a busy machine may take for everything else.
const SLACK: Duration = Duration::from_secs(1);
/// Requests at a time.
const CROWD: usize = 24;

fn lines(url: &str) -> String {
    format!("url = {url:?}\ntimeout = \"500ms\"\nconnect_timeout = \"500ms\"")
}

async fn behind(relay: &Relay) -> Fleet {
    Fleet::with(&lines(&format!("redis://{}", relay.address()))).await
}

/// How long each of so many different questions takes, all asked at once, each answered by the upstream.
async fn crowd(refrain: &Refrain, round: &str) -> Vec<Duration> {
    let mut asking = JoinSet::new();
    for nth in 0..CROWD {
        let (client, ask) = (Client::http(refrain.address()), Ask::chat(&format!("{round} {nth}")));
        asking.spawn(async move {
            let start = Instant::now();
            let reply = client.send(&ask).await;
            assert_eq!((reply.status, reply.cache_status().as_str()), (200, "refrain; fwd=miss"));
            start.elapsed()
        });
    }
    asking.join_all().await
}

/// Requests go on, in several ways.
async fn check_goes_on(refrain: &Refrain, round: &str) {
    for ask in Ask::each_dialect(&format!("{round}, while Redis is away")) {
        for ask in [ask.clone(), ask.streamed()] {
            let reply = refrain.send(&ask.cache_control("no-store")).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            assert!(reply.answer().ends_with("while Redis is away"), "{}", reply.text());
        }
    }
    assert_eq!(refrain.admin(&Ask::get("/readyz")).await.status, 200);
    assert!(refrain.metrics().await.sum("refrain_store_redis_up", &[]) < 0.5);
    assert!(
        refrain.readiness().await["degraded"].as_array().unwrap().contains(&"store".into()),
        "operators are told"
    );
}

/// Redis is used again by both.
async fn check_shares(a: &Refrain, b: &Refrain, round: &str) {
    for proxy in [a, b] {
        up(proxy).await;
        assert!((proxy.metrics().await.sum("refrain_store_redis_up", &[]) - 1.0).abs() < 0.1);
    }
    let ask = Ask::chat(&format!("{round}, after Redis came back"));
    let answer = stored(a, &ask).await.answer();
    // The first look-up may be the one that finds its connection cut, which is a miss.
    let found = async || Some(look(b, &ask).await).filter(Reply::is_hit);
    let hit = eventually("what the other proxy stored", found).await;
    assert_eq!((detail(&hit), hit.answer()), ("exact_shared".to_owned(), answer));
}

#[tokio::test]
async fn a_start_without_redis_serves_and_joins_when_it_comes() {
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let relay = Relay::start(redis.address()).await;
    relay.set(Passage::Refused).await;
    let fleet = behind(&relay).await;
    let [a, b] = [Refrain::start(&fleet.config()).await, Refrain::start(&fleet.config()).await];
    away(&a, "unreachable").await;
    check_goes_on(&a, "not there").await;
    a.logged(0, "the shared store is away").await;
    relay.set(Passage::Open).await;
    check_shares(&a, &b, "late").await;
    assert!(report(&a).await["reason"].is_null());
}

#[tokio::test]
async fn a_start_before_a_silent_redis_is_not_held_up() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let relay = Relay::start(redis.address()).await;
    relay.set(Passage::Held).await;
    let fleet = behind(&relay).await;
    let a = Refrain::start(&fleet.config()).await;
    check_goes_on(&a, "silent").await;
    relay.set(Passage::Open).await;
    up(&a).await;
}

#[tokio::test]
async fn require_store_ends_the_start_with_advice() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let relay = Relay::start(redis.address()).await;
    let lines = lines(&format!("redis://{}", relay.address())) + "\nrequire_store = true";
    let fleet = Fleet::with(&lines).await;
    fleet.proxy().await;
    relay.set(Passage::Refused).await;
    let (status, said) = Refrain::run_to_end(&fleet.config()).await;
    assert!(!status.success());
    for word in ["require_store", "unreachable", "store.redis.url"] {
        assert!(said.contains(word), "no {word}: {said}");
    }
}

#[tokio::test]
async fn a_redis_that_stops_answering_under_load_costs_each_request_one_deadline_at_most() {
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let fleet = Fleet::with(&lines(&redis.url())).await;
    let [a, b] = fleet.pair_with(|config| config.semantic("threshold = 0.85")).await;
    crowd(&a, "before").await;
    redis.sigstop();
    for took in crowd(&a, "at the moment").await {
        assert!(took < DEADLINE + SLACK, "{took:?}");
    }
    away(&a, "timed_out").await;
    // Nobody waits any more: one after another they would take 24 deadlines.
    let start = Instant::now();
    for nth in 0..CROWD {
        check_miss(&a, &Ask::chat(&format!("away {nth}"))).await;
    }
    assert!(start.elapsed() < DEADLINE * 20, "{:?}", start.elapsed());
    check_goes_on(&a, "stopped").await;
    assert!(a.metrics().await.sum(LOOKUPS, &[("result", "away")]) > 1.0);
    redis.sigcont();
    check_shares(&a, &b, "stopped").await;
}

#[tokio::test]
async fn a_redis_that_is_slower_than_the_deadline_is_gone_without() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let relay = Relay::start(redis.address()).await;
    let url = format!("redis://{}", relay.address());
    let fleet = Fleet::with(&format!("url = {url:?}\ntimeout = \"200ms\"\nconnect_timeout = \"5s\"")).await;
    let [a, b] = fleet.pair().await;
    relay.set(Passage::Delayed(DEADLINE)).await;
    for took in crowd(&a, "slow").await {
        assert!(took < DEADLINE + SLACK, "{took:?}");
    }
    away(&a, "timed_out").await;
    check_goes_on(&a, "slow").await;
    relay.set(Passage::Open).await;
    check_shares(&a, &b, "slow").await;
}

#[tokio::test]
async fn connections_that_break_under_load_are_opened_again() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let relay = Relay::start(redis.address()).await;
    let fleet = behind(&relay).await;
    let [a, b] = fleet.pair().await;
    for round in 0..5 {
        let name = format!("cut {round}");
        let ((), took) = tokio::join!(relay.cut(), crowd(&a, &name));
        assert!(took.iter().all(|took| *took < DEADLINE + SLACK), "{took:?}");
    }
    a.counted(ERRORS, &[], 1.0).await;
    check_shares(&a, &b, "cut").await;
}

#[tokio::test]
async fn a_wrong_password_is_told_and_the_right_one_is_tried_for() {
    let options = RedisOptions::new(Flavour::Plain).user("app on >other-password ~* &* +@all");
    let redis = RedisServer::start_with(options).await;
    let fleet = Fleet::with(&lines(&redis.url_as("app:the-password"))).await;
    let a = Refrain::start(&fleet.config()).await;
    away(&a, "login").await;
    check_goes_on(&a, "wrong password").await;
    redis.command(&["ACL", "SETUSER", "app", ">the-password"]).await;
    let b = Refrain::start(&fleet.config()).await;
    check_shares(&a, &b, "right password").await;
    // And once more while it runs.
    redis.command(&["ACL", "SETUSER", "app", "<the-password"]).await;
    redis.command(&["CLIENT", "KILL", "USER", "app"]).await;
    away(&a, "login").await;
    check_goes_on(&a, "password taken back").await;
    redis.command(&["ACL", "SETUSER", "app", ">the-password"]).await;
    check_shares(&a, &b, "right password again").await;
    assert!(!a.logs().contains("the-password"));
}

#[tokio::test]
async fn a_redis_without_memory_is_read_on_and_writes_are_counted_as_dropped() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let fleet = Fleet::of(&redis).await;
    let [a, b] = fleet.pair().await;
    let known = Ask::chat("what now?");
    let answer = stored(&a, &known).await.answer();
    assert!(redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await.is_ok());
    let new = Ask::chat("what then?");
    assert_eq!(a.send(&new).await.status, 200);
    a.counted(WRITES, &[("result", "dropped")], 1.0).await;
    a.counted(ERRORS, &[("reason", "out_of_memory")], 1.0).await;
    let hit = b.send(&known).await;
    assert_eq!((detail(&hit), hit.answer()), ("exact_shared".to_owned(), answer));
    check_miss(&b, &new).await;
    assert!(a.send(&new).await.is_hit(), "it is kept near");
    // Nor can a proxy join that finds it so; it is told why.
    let c = Refrain::start(&fleet.config()).await;
    away(&c, "out_of_memory").await;
    check_goes_on(&c, "no memory").await;
    assert!(redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await.is_ok());
    check_shares(&a, &c, "memory").await;
}

#[tokio::test]
async fn a_read_only_replica_is_told_and_used_once_it_is_the_master() {
    let primary = RedisServer::start(Flavour::Plain).await;
    let replica = RedisServer::start_with(RedisOptions::new(Flavour::Plain).replica_of(&primary)).await;
    let fleet = Fleet::of(&replica).await;
    let a = Refrain::start(&fleet.config()).await;
    away(&a, "read_only").await;
    check_goes_on(&a, "read-only").await;
    assert!(replica.command(&["REPLICAOF", "NO", "ONE"]).await.is_ok());
    up(&a).await;
    let b = fleet.proxy().await;
    check_shares(&a, &b, "promoted").await;
    // A master that becomes a replica: what is there is served, what is new is not shared.
    let known = Ask::chat("what now?");
    stored(&a, &known).await;
    let (ip, port) = (primary.address().ip().to_string(), primary.address().port().to_string());
    primary
        .command(&["REPLICAOF", &replica.address().ip().to_string(), &replica.address().port().to_string()])
        .await;
    let copied =
        async || (primary.command(&["DBSIZE"]).await == replica.command(&["DBSIZE"]).await).then_some(());
    eventually("the copy", copied).await;
    primary.command(&["REPLICAOF", "NO", "ONE"]).await;
    assert!(replica.command(&["REPLICAOF", &ip, &port]).await.is_ok());
    assert_eq!(a.send(&Ask::chat("what then?")).await.status, 200);
    a.counted(ERRORS, &[("reason", "read_only")], 2.0).await;
    a.counted(WRITES, &[("result", "dropped")], 1.0).await;
    let hit = b.send(&known).await;
    assert!(hit.is_hit(), "{}", hit.cache_status());
}

#[tokio::test]
async fn after_flushall_nothing_old_is_served_and_new_answers_are_shared() {
    for flavour in [Flavour::QueryEngine, Flavour::VectorSets, Flavour::Plain] {
        let redis = RedisServer::start(flavour).await;
        let fleet = Fleet::of(&redis).await;
        let [a, b] = fleet.pair_with(|config| config.semantic("threshold = 0.85")).await;
        stored(&a, &Ask::chat(QUESTION)).await;
        assert!(b.send(&Ask::chat(QUESTION)).await.is_hit());
        assert!(redis.command(&["FLUSHALL"]).await.is_ok());
        for proxy in [&a, &b] {
            for ask in [Ask::chat(QUESTION), Ask::chat(PARAPHRASE)] {
                let gone = async || (!look(proxy, &ask).await.is_hit()).then_some(());
                eventually("what was flushed is gone", gone).await;
            }
        }
        check_shares(&a, &b, "flushed").await;
        let answer = stored(&b, &Ask::chat(QUESTION)).await.answer();
        let similar = async || {
            let reply = look(&a, &Ask::chat(PARAPHRASE)).await;
            reply.is_hit().then(|| reply.answer())
        };
        assert_eq!(eventually("a similar hit after the flush", similar).await, answer);
    }
}

#[tokio::test]
async fn a_redis_that_is_killed_comes_back_empty_or_with_its_data() {
    let mut redis = RedisServer::start_with(RedisOptions::new(Flavour::VectorSets).append_only()).await;
    let fleet = Fleet::with(&lines(&redis.url())).await;
    let [a, b] = fleet.pair().await;
    let known = Ask::chat("what now?");
    let answer = stored(&a, &known).await.answer();
    redis.kill9();
    check_goes_on(&b, "killed").await;
    b.counted(ERRORS, &[], 1.0).await;
    redis.start_again().await;
    check_shares(&a, &b, "with data").await;
    let hit = look(&b, &known).await;
    assert_eq!((detail(&hit), hit.answer()), ("exact_shared".to_owned(), answer));
    redis.restart_empty().await;
    for proxy in [&a, &b] {
        let gone = async || (!look(proxy, &known).await.is_hit()).then_some(());
        eventually("what was lost is gone", gone).await;
    }
    check_shares(&a, &b, "empty").await;
}

#[tokio::test]
async fn redis_cluster_without_some_slots_is_gone_without_until_they_are_back() {
    let mut cluster = RedisCluster::start(Flavour::VectorSets, 3).await;
    let urls = cluster.urls();
    let fleet = Fleet::with(&format!("urls = {urls:?}\ncluster = true\n{CALM}")).await;
    let [a, b] = fleet.pair().await;
    cluster.node_mut(1).kill9();
    for node in [0, 2] {
        let refuses = async || {
            let info = cluster.nodes()[node].command(&["CLUSTER", "INFO"]).await.text();
            info.contains("cluster_state:fail").then_some(())
        };
        eventually("a cluster that knows what it lacks", refuses).await;
    }
    // Many partitions, and so slots of every master.
    for nth in 0..CROWD {
        let ask = Ask::chat("what now?").field("seed", nth.into());
        let reply = a.send(&ask).await;
        let answer = format!("answer {} to what now?", fleet.fake.posts());
        assert_eq!((reply.status, reply.answer()), (200, answer));
    }
    away(&a, "cluster_down").await;
    check_goes_on(&a, "slots are missing").await;
    cluster.node_mut(1).start_again().await;
    cluster.served().await;
    check_shares(&a, &b, "slots").await;
}

#[tokio::test]
async fn redis_cluster_that_serves_only_some_slots_costs_no_request_more_than_its_deadlines() {
    let options = || RedisOptions::new(Flavour::VectorSets).line("cluster-require-full-coverage no");
    let mut cluster = RedisCluster::start_with(3, options).await;
    let lines = format!("urls = {:?}\ncluster = true\ntimeout = \"500ms\"", cluster.urls());
    let fleet = Fleet::with(&lines).await;
    let [a, b] = fleet.pair().await;
    cluster.node_mut(1).kill9();
    for nth in 0..3 * CROWD {
        let start = Instant::now();
        let reply = a.send(&Ask::chat("what now?").field("seed", nth.into())).await;
        let answer = format!("answer {} to what now?", fleet.fake.posts());
        assert_eq!((reply.status, reply.answer()), (200, answer));
        // A look-up, a claim, and a second look before it goes on without.
        assert!(start.elapsed() < DEADLINE * 3 + SLACK, "{:?}", start.elapsed());
    }
    cluster.node_mut(1).start_again().await;
    cluster.served().await;
    check_shares(&a, &b, "slots").await;
}

#[tokio::test]
async fn what_is_near_is_served_within_the_lease_and_not_after_it() {
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let relay = Relay::start(redis.address()).await;
    let lease = Duration::from_secs(1);
    let mut fleet = behind(&relay).await;
    fleet.lines += "\nlease = \"1s\"";
    let a = fleet.proxy_with(|config| config.semantic("threshold = 0.85")).await;
    let (known, similar) = (Ask::chat(QUESTION), Ask::chat(PARAPHRASE));
    stored(&a, &known).await;
    for passage in [Passage::Refused, Passage::Held] {
        for ask in [&known, &similar] {
            assert!(look(&a, ask).await.is_hit());
        }
        let cut = Instant::now();
        relay.set(passage).await;
        if passage == Passage::Refused {
            relay.cut().await;
        }
        let after = Instant::now();
        let mut hits = 0;
        while after.elapsed() < lease * 2 {
            for ask in [&known, &similar] {
                let asked = after.elapsed();
                let is_hit = look(&a, ask).await.is_hit();
                assert!(!is_hit || asked <= lease, "{asked:?} after Redis was last heard of");
                hits += usize::from(is_hit);
            }
        }
        assert!(hits > 0 || cut.elapsed() > lease * 3, "it is served within the lease");
        relay.set(Passage::Open).await;
        up(&a).await;
    }
    assert!(detail(&look(&a, &known).await).starts_with("exact"), "and again when Redis is back");
}

#[tokio::test]
async fn writes_wait_for_a_redis_that_comes_back_soon() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let relay = Relay::start(redis.address()).await;
    let fleet = behind(&relay).await;
    let [a, b] = fleet.pair().await;
    relay.set(Passage::Refused).await;
    relay.cut().await;
    // Both: one that has yet to notice looks as if it were up again.
    away(&a, "unreachable").await;
    away(&b, "unreachable").await;
    let ask = Ask::chat("what now?");
    let answer = a.send(&ask).await.answer();
    relay.set(Passage::Open).await;
    up(&b).await;
    let shared = async || {
        let reply = look(&b, &ask).await;
        reply.is_hit().then(|| reply.answer())
    };
    assert_eq!(eventually("the answer of meanwhile", shared).await, answer);
}
