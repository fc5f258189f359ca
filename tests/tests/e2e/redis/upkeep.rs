//! `refrain store` against what proxies have left in real servers.

use refrain_tests::redis::{Flavour, RedisCluster, RedisOptions, RedisServer, Value};
use refrain_tests::{Ask, Config, Refrain, eventually};

use super::{
    CALM, Fleet, PARAPHRASE, QUESTION, check_miss, detail, entries, look, report, run, runs, stored,
};

const REPEAT: &str = "repeat the command with --yes";

fn semantic(config: Config) -> Config {
    config.semantic("threshold = 0.85")
}

/// A line of a table, its cells with one space between.
fn line(table: &str, start: &str) -> String {
    let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let found = table.lines().map(squeezed).find(|line| line.starts_with(start));
    found.unwrap_or_else(|| panic!("no line {start:?} in\n{table}"))
}

/// Keys of others, and of other versions.
async fn strangers(redis: &RedisServer) -> Vec<Value> {
    let mut were = Vec::new();
    for key in STRANGERS {
        were.push(redis.command(&["SET", key, "x"]).await);
    }
    were
}

/// An older layout's, a newer one's, and two of prefixes that begin like ours.
const STRANGERS: [&str; 4] =
    ["refrain:0:{a}:e:b", "refrain:9:{a}:e:b", "refrain:prod:1:{a}:e:b", "{refrain:prod:1}:meta"];

/// Which of the strangers are there.
async fn left(redis: &RedisServer) -> Vec<bool> {
    let mut there = Vec::new();
    for key in STRANGERS {
        there.push(redis.command(&["EXISTS", key]).await.integer() == 1);
    }
    there
}

async fn only(redis: &RedisServer, pattern: &str) -> String {
    let names = redis.command(&["KEYS", pattern]).await;
    assert_eq!(names.items().len(), 1, "{pattern}: {names:?}");
    names.items()[0].text()
}

async fn check_list(flavour: Flavour, expected: &[(&str, &str)]) {
    let redis = RedisServer::start(flavour).await;
    let fleet = Fleet::of(&redis).await;
    let proxy = fleet.proxy_with(semantic).await;
    for ask in [Ask::chat(QUESTION), Ask::chat("How tall is the Eiffel tower?")] {
        stored(&proxy, &ask).await;
    }
    strangers(&redis).await;
    let table = runs(&proxy, "store ls").await;
    let entries = line(&table, "1 entries");
    assert!(entries.starts_with("1 entries 2 ") && entries.contains("KiB"), "{table}");
    assert!(line(&table, "0 entries 1 ").ends_with("an older version's"), "{table}");
    assert!(line(&table, "9 entries 1 ").ends_with("a newer version's"), "{table}");
    assert!(table.contains("2 keys of others"), "{table}");
    for (start, end) in expected {
        let line = line(&table, start);
        assert!(line.ends_with(end), "{line}");
    }
}

#[tokio::test]
async fn a_plain_servers_list_has_entries_and_the_stream_of_vectors() {
    check_list(Flavour::Plain, &[("1 stream vectors 2 messages", ""), ("1 meta 1", "")]).await;
}

#[tokio::test]
async fn a_list_names_vector_sets_and_the_configured_model() {
    let ends = "(configured)";
    check_list(
        Flavour::VectorSets,
        &[("1 vector sets 1 2 members", ends), ("1 expiry sets 1 2 members", ends)],
    )
    .await;
}

#[tokio::test]
async fn a_list_names_the_query_engines_index() {
    check_list(Flavour::QueryEngine, &[("1 query index 2 documents", "(configured)")]).await;
}

/// Removes an entry behind the store's back, as an eviction does.
async fn evict(redis: &RedisServer, kept: &[String]) -> String {
    let victim = entries(redis).await.into_iter().find(|name| !kept.contains(name)).unwrap();
    assert_eq!(redis.command(&["DEL", &victim]).await.integer(), 1);
    victim
}

#[tokio::test]
async fn vectors_without_entries_go_and_others_stay() {
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let fleet = Fleet::of(&redis).await;
    let proxy = fleet.proxy_with(semantic).await;
    let answer = stored(&proxy, &Ask::chat(QUESTION)).await.answer();
    let kept = entries(&redis).await;
    for text in ["How tall is the Eiffel tower?", "Who wrote Hamlet?"] {
        stored(&proxy, &Ask::chat(text)).await;
    }
    let (set, expiries) = (only(&redis, "refrain:1:*:s:*").await, only(&redis, "refrain:1:*:x:*").await);
    let members = async || redis.command(&["VCARD", &set]).await.integer();

    evict(&redis, &kept).await;
    let said = runs(&proxy, "store gc").await;
    assert!(said.contains("1 vector without an entry\n") && said.contains(REPEAT), "{said}");
    assert_eq!(members().await, 3, "a dry run removes nothing");
    let said = runs(&proxy, "store gc --yes").await;
    assert!(said.contains("1 vector without an entry\n") && said.contains("Removed."), "{said}");
    assert_eq!((members().await, redis.command(&["ZCARD", &expiries]).await.integer()), (2, 2));

    // The expiry set may be evicted too: then only the vector set knows its members.
    evict(&redis, &kept).await;
    redis.command(&["DEL", &expiries]).await;
    assert!(runs(&proxy, "store gc --yes").await.contains("1 vector without an entry\n"));
    assert_eq!(members().await, 1);
    assert_eq!(runs(&proxy, "store gc").await, "Nothing to remove.\n");

    let other = fleet.proxy_with(semantic).await;
    let hit = look(&other, &Ask::chat(PARAPHRASE)).await;
    assert_eq!((detail(&hit), hit.answer()), ("semantic_shared".to_owned(), answer));
}

#[tokio::test]
async fn other_models_vectors_and_older_layouts_go_only_if_asked_for() {
    let redis = RedisServer::start(Flavour::QueryEngine).await;
    let fleet = Fleet::with(&format!("url = {:?}\nvectors = \"vector-sets\"\n{CALM}", redis.url())).await;
    let proxy = fleet.proxy_with(semantic).await;
    stored(&proxy, &Ask::chat(QUESTION)).await;
    let set = only(&redis, "refrain:1:*:s:*").await;
    let (part, _) = set.rsplit_once(":s:").unwrap();
    let (old, old_expiries) = (format!("{part}:s:0ld"), format!("{part}:x:0ld"));
    let index = "refrain:1:i:0ld";
    let create = ["FT.CREATE", index, "PREFIX", "1", "none:", "SCHEMA", "p", "TAG"];
    assert!(redis.command(&create).await.is_ok());
    redis.command(&["VADD", &old, "VALUES", "2", "1", "0", "m"]).await;
    redis.command(&["ZADD", &old_expiries, "1", "m"]).await;
    redis.command(&["ZADD", "refrain:1:{b}:x:0ld", "1", "m"]).await;
    redis.command(&["ZADD", "{refrain:prod:1}:other", "1", "m"]).await;
    strangers(&redis).await;

    let said = runs(&proxy, "store gc").await;
    assert!(said.contains("1 vector set of other models left alone: --models"), "{said}");
    assert!(said.contains("2 keys of other layouts left alone"), "{said}");
    let kept = runs(&proxy, "store gc --models --keep 0ld").await;
    assert!(!kept.contains("of model 0ld") && !kept.contains(index), "{kept}");
    let said = runs(&proxy, "store gc --models --layouts").await;
    for expected in ["1 vector set of model 0ld", "query index refrain:1:i:0ld", "1 key of layout 0", REPEAT]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert_eq!(redis.command(&["EXISTS", &old, &old_expiries]).await.integer(), 2);

    runs(&proxy, "store gc --models --layouts --yes").await;
    assert_eq!(redis.command(&["EXISTS", &old, &old_expiries, "refrain:1:{b}:x:0ld"]).await.integer(), 0);
    assert!(redis.command(&["FT._LIST"]).await.items().is_empty());
    assert_eq!(redis.command(&["EXISTS", &set]).await.integer(), 1);
    assert_eq!(left(&redis).await, [false, true, true, true]);
}

#[tokio::test]
async fn without_an_embedder_no_model_is_another() {
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let fleet = Fleet::of(&redis).await;
    let proxy = fleet.proxy().await;
    let (has_succeeded, said) = run(&proxy.config_path(), "store gc --models --yes").await;
    assert!(!has_succeeded && said.contains("no embedder"), "{said}");
}

async fn check_drop(flavour: Flavour) {
    let redis = RedisServer::start(flavour).await;
    let fleet = Fleet::of(&redis).await;
    let proxy = fleet.proxy_with(semantic).await;
    stored(&proxy, &Ask::chat(QUESTION)).await;
    let entry = only(&redis, "refrain:1:*:e:*").await;
    let released =
        async || redis.command(&["KEYS", "refrain:1:*:c:*"]).await.items().is_empty().then_some(());
    eventually("the claim's release", released).await;
    strangers(&redis).await;
    // But for claims, which come and go.
    let size = async || {
        let names = redis.command(&["KEYS", "*"]).await;
        names.items().iter().filter(|name| !name.text().contains("}:c:")).count()
    };
    let before = size().await;
    let said = runs(&proxy, "store drop").await;
    assert!(
        said.contains("of layout 1\n") && said.contains("2 keys left alone") && said.contains(REPEAT),
        "{said}"
    );
    assert_eq!(size().await, before, "a dry run removes nothing");
    let said = runs(&proxy, "store drop --layout 0 --yes").await;
    assert!(said.contains("1 key of layout 0\n") && said.contains("of other layouts left alone"), "{said}");
    assert_eq!(size().await, before - 1);

    let life = redis.command(&["HGET", "{refrain:1}:meta", "life"]).await;
    runs(&proxy, "store drop --yes").await;
    assert_eq!(redis.command(&["EXISTS", &entry]).await.integer(), 0);
    assert_eq!(left(&redis).await, [false, false, true, true]);

    // A proxy that runs begins anew, and all works as before.
    let again = async || {
        let now = redis.command(&["HGET", "{refrain:1}:meta", "life"]).await;
        (!now.is_nil() && now != life && report(&proxy).await["state"] == "up").then_some(())
    };
    eventually("a new life", again).await;
    check_miss(&proxy, &Ask::chat(QUESTION)).await;
    let answer = stored(&proxy, &Ask::chat(QUESTION)).await.answer();
    let other = fleet.proxy_with(semantic).await;
    let hit = look(&other, &Ask::chat(PARAPHRASE)).await;
    assert!(detail(&hit).starts_with("semantic"), "{flavour:?}: {}", hit.cache_status());
    assert_eq!(hit.answer(), answer);
}

#[tokio::test]
async fn all_is_dropped_from_a_plain_server_and_a_proxy_goes_on() {
    check_drop(Flavour::Plain).await;
}

#[tokio::test]
async fn all_is_dropped_with_vector_sets_and_a_proxy_goes_on() {
    check_drop(Flavour::VectorSets).await;
}

#[tokio::test]
async fn all_is_dropped_with_a_query_engine_and_a_proxy_goes_on() {
    check_drop(Flavour::QueryEngine).await;
}

#[tokio::test]
async fn a_large_vector_set_is_emptied_in_steps() {
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let fleet = Fleet::of(&redis).await;
    let proxy = fleet.proxy().await;
    let fill =
        "for i = 1, 10100 do redis.call('VADD', KEYS[1], 'VALUES', 2, i % 101, 1 + i % 97, tostring(i)) end";
    redis.command(&["EVAL", fill, "1", "refrain:1:{a}:s:m"]).await;
    assert_eq!(redis.command(&["VCARD", "refrain:1:{a}:s:m"]).await.integer(), 10_100);
    runs(&proxy, "store drop --yes").await;
    assert_eq!(redis.command(&["EXISTS", "refrain:1:{a}:s:m"]).await.integer(), 0);
    let stats = redis.info("cmdstat_VRANDMEMBER").await.unwrap();
    assert!(stats.contains("calls=7,"), "100 members beyond those that go at once, 16 a step: {stats}");
}

#[tokio::test]
async fn redis_cluster_is_looked_after_on_every_master() {
    let cluster = RedisCluster::start(Flavour::VectorSets, 3).await;
    let fleet = Fleet::with(&format!("urls = {:?}\ncluster = true\n{CALM}", cluster.urls())).await;
    let proxy = fleet.proxy_with(|config| semantic(config).cache("scope = \"user\"")).await;
    for nth in 0..12 {
        stored(&proxy, &Ask::chat(QUESTION).field("seed", nth.into())).await;
    }
    let table = runs(&proxy, "store ls").await;
    assert!(line(&table, "1 entries").starts_with("1 entries 12 "), "{table}");
    let mut victims = 0;
    for node in cluster.nodes() {
        if let Some(victim) = entries(node).await.first() {
            victims += node.command(&["DEL", victim]).await.integer();
        }
    }
    let expected = if victims == 1 { "1 vector without an entry" } else { "vectors without an entry" };
    assert!(victims > 0 && runs(&proxy, "store gc --yes").await.contains(expected));
    assert_eq!(runs(&proxy, "store gc").await, "Nothing to remove.\n");
    runs(&proxy, "store drop --yes").await;
    for node in cluster.nodes() {
        assert!(entries(node).await.is_empty());
        assert!(node.command(&["KEYS", "refrain:*:s:*"]).await.items().is_empty());
    }
}

#[tokio::test]
async fn who_can_not_log_in_is_told_what_to_do_and_no_password_is_shown() {
    let redis = RedisServer::start_with(RedisOptions::new(Flavour::Plain).password("right-horse")).await;
    let fleet = Fleet::with(&format!("url = {:?}\n{CALM}", redis.url_as(":wrong-battery"))).await;
    let proxy = Refrain::start(&fleet.config()).await;
    for command in ["store ls", "store gc --yes", "store drop --yes"] {
        let (has_succeeded, said) = run(&proxy.config_path(), command).await;
        assert!(!has_succeeded && said.contains("check user and password of store.redis"), "{said}");
        assert!(!said.contains("battery") && !said.contains("horse"), "{said}");
    }
}

#[tokio::test]
async fn the_commands_of_the_docs_run() {
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let proxy = Fleet::of(&redis).await.proxy_with(semantic).await;
    let docs = include_str!("../../../../docs/operations.md");
    let commands: Vec<&str> = docs.lines().filter_map(|line| line.strip_prefix("refrain store ")).collect();
    assert!(commands.len() >= 4);
    for command in commands {
        let command = command.split('#').next().unwrap().replace("--config refrain.toml", "");
        let words: Vec<&str> = command.split_whitespace().collect();
        runs(&proxy, &format!("store {}", words.join(" "))).await;
    }
}

#[tokio::test]
async fn where_there_is_no_redis_the_commands_say_so() {
    let (_fake, proxy) = crate::start().await;
    let (has_succeeded, said) = run(&proxy.config_path(), "store ls").await;
    assert!(!has_succeeded && said.contains("store.kind is not \"redis\""), "{said}");
}
