//! The rights that docs/operations.md gives Refrain's user suffice for everything it does.

use refrain_tests::redis::{Flavour, RedisCluster, RedisServer};
use refrain_tests::{Ask, Config, Refrain, Reply, eventually};
use serde_json::json;

use super::{CALM, ERRORS, Fleet, PARAPHRASE, QUESTION, detail, look, report, run, runs, stored};

const DOCS: &str = include_str!("../../../../docs/operations.md");

/// The `ACL SETUSER` lines of the docs whose comments begin so, as commands.
fn documented(topics: &[&str]) -> Vec<Vec<String>> {
    let lines = DOCS.lines().filter_map(|line| line.strip_prefix("ACL SETUSER ")?.split_once('#'));
    let of_topic = |topic: &&str| {
        let line = lines.clone().find(|(_, comment)| comment.trim().starts_with(topic));
        let (rights, _) = line.unwrap_or_else(|| panic!("no line about {topic:?}"));
        ["ACL", "SETUSER"].into_iter().chain(rights.split_whitespace()).map(str::to_owned).collect()
    };
    topics.iter().map(of_topic).collect()
}

async fn admit(redis: &RedisServer, topics: &[&str]) {
    for line in documented(topics) {
        let answer = redis.command(&line).await;
        assert!(answer.is_ok(), "{line:?}: {answer:?}");
    }
}

fn semantic(config: Config) -> Config {
    config.semantic("threshold = 0.85")
}

/// Everything that makes the store ask Redis for something.
async fn exercise(fleet: &Fleet, mode: &str) -> Refrain {
    let [a, b] = fleet.pair_with(semantic).await;
    assert_eq!(report(&a).await["vectors"], mode);
    let answer = stored(&a, &Ask::chat(QUESTION)).await.answer();
    let similar = eventually("the similar question's answer", async || {
        // Where no server searches, another proxy is told of it first.
        Some(look(&b, &Ask::chat(PARAPHRASE)).await).filter(Reply::is_hit)
    });
    let similar = similar.await;
    assert!(detail(&similar).starts_with("semantic"), "{}", similar.cache_status());
    assert_eq!(similar.answer(), answer);
    stored(&a, &Ask::chat("Who wrote Hamlet?")).await;
    let purged = a.admin(&Ask::post("/purge", json!({ "everything": true }))).await;
    assert_eq!(purged.json()["matched"], 2, "{}", purged.text());
    let ask = Ask::chat(QUESTION);
    eventually("the purge elsewhere", async || (!look(&b, &ask).await.is_hit()).then_some(())).await;
    stored(&b, &ask).await;
    for proxy in [&a, &b] {
        let metrics = proxy.metrics().await;
        assert!(metrics.sum(ERRORS, &[]) < 0.5, "{}", metrics.text());
    }
    a
}

/// The fleet's user is let in with these rights of the docs and no others.
async fn check_single(flavour: Flavour, topics: &[&str], lines: &str, mode: &str) {
    let redis = RedisServer::start(flavour).await;
    admit(&redis, topics).await;
    let fleet = Fleet::with(&format!("url = {:?}\n{CALM}\n{lines}", redis.url_as("refrain:PASSWORD"))).await;
    let proxy = exercise(&fleet, mode).await;
    let said = runs(&proxy, "check --running").await;
    assert!(said.contains(mode), "{said}");
    admit(&redis, &["refrain store"]).await;
    let vectors = if mode == "query-engine" { vec!["refrain store, query engine"] } else { vec![] };
    admit(&redis, &vectors).await;
    if mode == "vector-sets" {
        admit(&redis, &["refrain store, vector sets"]).await;
    }
    let said = runs(&proxy, "store ls").await;
    assert!(said.contains("KiB"), "{said}");
    assert!(mode != "query-engine" || said.contains("document"), "{said}");
    runs(&proxy, "store gc --models --layouts --yes").await;
    let dropped = runs(&proxy, "store drop --yes").await;
    assert!(dropped.contains("Removed."), "{dropped}");
}

#[tokio::test]
async fn the_documented_rights_suffice_on_a_plain_server() {
    check_single(Flavour::Plain, &["every server"], "", "local").await;
}

#[tokio::test]
async fn the_documented_rights_suffice_for_vector_sets() {
    check_single(Flavour::VectorSets, &["every server", "vector sets"], "", "vector-sets").await;
}

#[tokio::test]
async fn the_documented_rights_suffice_for_the_query_engine() {
    check_single(Flavour::QueryEngine, &["every server", "query engine"], "", "query-engine").await;
}

#[tokio::test]
async fn the_documented_rights_suffice_in_a_redis_cluster() {
    let cluster = RedisCluster::start(Flavour::VectorSets, 3).await;
    for node in cluster.nodes() {
        admit(
            node,
            &["every server", "vector sets", "cluster", "refrain store", "refrain store, vector sets"],
        )
        .await;
    }
    let urls: Vec<String> = cluster.nodes().iter().map(|node| node.url_as("refrain:PASSWORD")).collect();
    let fleet = Fleet::with(&format!("urls = {urls:?}\ncluster = true\n{CALM}")).await;
    let proxy = exercise(&fleet, "vector-sets").await;
    for command in ["check --running", "store ls", "store gc --yes", "store drop --yes"] {
        runs(&proxy, command).await;
    }
}

fn shared_limit(config: Config) -> Config {
    let limit = "[limit.all]\nby = [\"tenant\"]\nrequests_per_day = 2\nconcurrency = 1\ntimeout = \"2s\"\non_error = \"refuse\"";
    config.route("limits = [\"all\"]").tables(limit)
}

#[tokio::test]
async fn check_names_the_rights_that_shared_limits_lack() {
    let redis = RedisServer::start(Flavour::Plain).await;
    admit(&redis, &["every server"]).await;
    let fleet = Fleet::at(&redis.url_as("refrain:PASSWORD")).await;
    let path = shared_limit(fleet.config()).write(fleet.dir.path());
    let (is_well, said) = run(&path, "check").await;
    assert!(!is_well && said.contains("PEXPIRE, ZADD, ZCARD, ZREM, ZREMRANGEBYSCORE"), "{said}");
    let path = fleet.config().write(fleet.dir.path());
    assert!(run(&path, "check").await.0, "without such limits nobody needs them");
    admit(&redis, &["shared limits"]).await;
    let path = shared_limit(fleet.config()).write(fleet.dir.path());
    let (is_well, said) = run(&path, "check").await;
    assert!(is_well, "{said}");
    assert_eq!(redis.command(&["DBSIZE"]).await.integer(), 0, "a check leaves nothing behind");
}

#[tokio::test]
async fn the_documented_rights_suffice_for_shared_limits() {
    let redis = RedisServer::start(Flavour::Plain).await;
    admit(&redis, &["every server", "shared limits"]).await;
    let fleet = Fleet::at(&redis.url_as("refrain:PASSWORD")).await;
    let pair = fleet.pair_with(shared_limit).await;
    runs(&pair[0], "check --running").await;
    for (proxy, status) in [(&pair[0], 200), (&pair[1], 200), (&pair[0], 429), (&pair[1], 429)] {
        let room = async || {
            let reply = proxy.send(&Ask::chat(QUESTION)).await;
            (reply.status == status).then_some(())
        };
        eventually("a place given back, and then no request left", room).await;
    }
    for proxy in &pair {
        let metrics = proxy.metrics().await;
        assert!(metrics.sum(ERRORS, &[]) < 0.5, "{}", metrics.text());
    }
}
