//! `refrain check` says of Redis what a proxy would meet there, and leaves nothing behind.

use refrain_tests::redis::{ClientCertificates, Flavour, RedisCluster, RedisOptions, RedisServer};
use refrain_tests::{Authority, Config};

use super::{CALM, Fleet, run, runs};

fn semantic(config: Config) -> Config {
    config.semantic("threshold = 0.85")
}

/// What `check` says with a fleet's config.
async fn checked(fleet: &Fleet, change: impl Fn(Config) -> Config) -> (bool, String) {
    let path = change(fleet.config()).write(fleet.dir.path());
    run(&path, "check").await
}

async fn check_mode(flavour: Flavour, mode: &str) {
    let redis = RedisServer::start(flavour).await;
    let fleet = Fleet::of(&redis).await;
    let (is_well, said) = checked(&fleet, semantic).await;
    assert!(is_well && said.contains(mode) && said.contains("RESP3"), "{said}");
    assert!(said.contains(&redis.address().to_string()), "{said}");
    assert!(said.contains("will be made at start") && said.contains("no maxmemory"), "{said}");
    assert!(said.contains("nothing is kept over its restart"), "{said}");
    assert_eq!(redis.command(&["DBSIZE"]).await.integer(), 0, "a check leaves nothing behind");
    assert!(!fleet.dir.path().join("cache.secret").exists());
    if flavour == Flavour::QueryEngine {
        assert!(redis.command(&["FT._LIST"]).await.items().is_empty());
    }
}

#[tokio::test]
async fn a_query_engine_is_found_and_nothing_is_left_behind() {
    check_mode(Flavour::QueryEngine, "query-engine: the server has a query engine (FT.SEARCH)").await;
}

#[tokio::test]
async fn vector_sets_are_found_and_nothing_is_left_behind() {
    check_mode(Flavour::VectorSets, "vector-sets: the server has vector sets (VSIM)").await;
}

#[tokio::test]
async fn a_server_that_can_not_search_is_found_and_nothing_is_left_behind() {
    check_mode(Flavour::Plain, "local: the server has neither FT.SEARCH nor VSIM").await;
}

#[tokio::test]
async fn redis_cluster_is_checked() {
    let cluster = RedisCluster::start(Flavour::VectorSets, 3).await;
    let fleet = Fleet::with(&format!("urls = {:?}\ncluster = true\n{CALM}", cluster.urls())).await;
    let (is_well, said) = checked(&fleet, semantic).await;
    assert!(is_well && said.contains("vector-sets") && said.contains("RESP3"), "{said}");
}

#[tokio::test]
async fn secrets_that_match_and_that_do_not_are_told_apart() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let fleet = Fleet::of(&redis).await;
    let proxy = fleet.proxy().await;
    assert!(
        runs(&proxy, "check --running").await.contains("the same as of the proxies that use this prefix")
    );
    let secret = fleet.dir.path().join("cache.secret");
    std::fs::remove_file(&secret).unwrap();
    let (is_well, said) = run(&proxy.config_path(), "check --running").await;
    assert!(!is_well && said.contains("copy their secret_file here"), "{said}");
    std::fs::write(&secret, [7; 32]).unwrap();
    let (is_well, said) = run(&proxy.config_path(), "check --running").await;
    assert!(!is_well && said.contains("proxies with another cache secret use this prefix"), "{said}");
}

#[tokio::test]
async fn a_policy_that_evicts_purges_is_warned_of() {
    let full = RedisOptions::new(Flavour::Plain).line("maxmemory 100mb\nmaxmemory-policy allkeys-lru");
    let redis = RedisServer::start_with(full).await;
    let (is_well, said) = checked(&Fleet::of(&redis).await, |config| config).await;
    assert!(is_well && said.contains("warning: maxmemory-policy allkeys-lru"), "{said}");
}

async fn check_trouble(lines: &str, expected: &[&str]) {
    let fleet = Fleet::with(&format!("{lines}\n{CALM}")).await;
    let (is_well, said) = checked(&fleet, |config| config).await;
    assert!(!is_well, "{said}");
    for text in expected {
        assert!(said.contains(text), "{text}: {said}");
    }
    assert!(!said.contains("battery"), "{said}");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_what_to_do() {
    let mut redis = RedisServer::start_with(RedisOptions::new(Flavour::Plain).password("right-horse")).await;
    let wrong = format!("url = {:?}", redis.url_as(":wrong-battery"));
    check_trouble(&wrong, &["login: ", "check user and password"]).await;
    check_trouble(&format!("url = {:?}", redis.url()), &["login: ", "check user and password"]).await;
    redis.kill9();
    check_trouble(&wrong, &["unreachable: ", "is the server up"]).await;

    let authority = Authority::new();
    let options = RedisOptions::new(Flavour::Plain).tls(&authority, ClientCertificates::Ignored);
    let redis = RedisServer::start_with(options).await;
    check_trouble(&format!("url = {:?}", redis.url()), &["tls: ", "ca_file"]).await;
    let trusted = format!("url = {:?}\ntls.ca_file = {:?}", redis.url(), redis.root_file());
    let (is_well, said) = checked(&Fleet::with(&trusted).await, |config| config).await;
    assert!(is_well, "{said}");
}

#[tokio::test]
async fn a_command_that_the_user_may_not_run_is_named() {
    let user = "app on >wrong-battery ~refrain:* ~{refrain:* +@all -vadd -xadd -hset";
    let redis = RedisServer::start_with(RedisOptions::new(Flavour::VectorSets).user(user)).await;
    let lines = format!("url = {:?}\n{CALM}", redis.url_as("app:wrong-battery"));
    let (is_well, said) = checked(&Fleet::with(&lines).await, semantic).await;
    assert!(!is_well && said.contains("HSET, VADD, XADD"), "{said}");
    assert!(said.contains("docs/operations.md") && !said.contains("battery"), "{said}");
    let user = "app on >wrong-battery ~refrain:* ~{refrain:* +@all -exists -xread";
    let redis = RedisServer::start_with(RedisOptions::new(Flavour::Plain).user(user)).await;
    let url = format!("url = {:?}", redis.url_as("app:wrong-battery"));
    check_trouble(&url, &["forbidden: ", "EXISTS, XREAD", "docs/operations.md"]).await;
    let user = "app on >wrong-battery ~refrain:* +@all";
    let redis = RedisServer::start_with(RedisOptions::new(Flavour::Plain).user(user)).await;
    check_trouble(
        &format!("url = {:?}", redis.url_as("app:wrong-battery")),
        &["forbidden: ", "docs/operations.md"],
    )
    .await;
}
