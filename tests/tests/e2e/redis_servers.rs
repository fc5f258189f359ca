//! The Redis servers that other tests build upon do what those rely on; Refrain takes no part.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use refrain_tests::redis::{
    ClientCertificates, Flavour, Passage, RedisCluster, RedisConnection, RedisOptions, RedisServer, Relay,
    Value,
};
use refrain_tests::{Authority, eventually};

/// So long nothing must come where nothing is to come.
const SILENCE: Duration = Duration::from_millis(150);

async fn connect(server: &RedisServer) -> RedisConnection {
    RedisConnection::tcp(server.address()).await.unwrap()
}

/// What the server has of what Refrain looks for.
async fn found(server: &RedisServer) -> [bool; 3] {
    let answer = connect(server).await.command(&["COMMAND", "INFO", "VSIM", "FT.SEARCH", "EVALSHA"]).await;
    <[bool; 3]>::try_from(answer.items().iter().map(|item| !item.is_nil()).collect::<Vec<_>>()).unwrap()
}

#[tokio::test]
async fn redis_8_has_vector_sets_and_speaks_resp3() {
    let server = RedisServer::start(Flavour::VectorSets).await;
    assert_eq!(found(&server).await, [true, false, true]);
    let mut connection = connect(&server).await;
    let hello = connection.command(&["HELLO", "3"]).await;
    assert!(matches!(hello, Value::Map(_)), "{hello:?}");
    assert_eq!(hello.field("proto").unwrap().integer(), 3);
    assert_eq!(hello.field("version").unwrap().text(), "8.2.3");
    let added = connection.command(&["VADD", "{a}:vs", "VALUES", "2", "1", "0", "one"]).await;
    assert_eq!(added, Value::Boolean(true));
    let similar = ["VSIM", "{a}:vs", "VALUES", "2", "1", "0", "WITHSCORES", "EF", "50", "NOTHREAD"];
    let similar = connection.command(&similar).await;
    assert_eq!(similar.field("one"), Some(&Value::Double(1.0)), "{similar:?}");
}

#[tokio::test]
async fn redis_8_with_the_query_engine_searches_hashes() {
    let server = RedisServer::start(Flavour::QueryEngine).await;
    assert_eq!(found(&server).await, [true, true, true]);
    let mut connection = connect(&server).await;
    let create = "FT.CREATE idx SCHEMA v VECTOR HNSW 6 TYPE FLOAT32 DIM 2 DISTANCE_METRIC COSINE";
    let created = connection.command(&create.split(' ').collect::<Vec<_>>()).await;
    assert!(created.is_ok(), "{created:?}");
    assert_eq!(connection.command(&["FT._LIST"]).await.items()[0].text(), "idx");
    let vector: Vec<u8> = [1.0_f32, 0.0].iter().flat_map(|number| number.to_le_bytes()).collect();
    connection.command(&[b"HSET", b"p:1".as_slice(), b"v", &vector]).await;
    let search: [&[u8]; 10] = [
        b"FT.SEARCH",
        b"idx",
        b"*=>[KNN 1 @v $q AS s]",
        b"PARAMS",
        b"2",
        b"q",
        &vector,
        b"NOCONTENT",
        b"DIALECT",
        b"2",
    ];
    let hits = connection.command(&search).await;
    assert_eq!((hits.items()[0].integer(), hits.items()[1].text().as_str()), (1, "p:1"));
}

#[tokio::test]
async fn redis_7_is_plain_and_speaks_resp3() {
    let server = RedisServer::start(Flavour::Plain).await;
    assert_eq!(found(&server).await, [false, false, true]);
    let mut connection = connect(&server).await;
    assert_eq!(connection.command(&["PING"]).await.text(), "PONG");
    let hello = connection.command(&["HELLO", "3"]).await;
    assert!(hello.field("version").unwrap().text().starts_with("7."), "{hello:?}");
    let mut by_socket = RedisConnection::unix(&server.socket()).await.unwrap();
    assert_eq!(by_socket.command(&["PING"]).await.text(), "PONG");
}

#[tokio::test]
async fn redis_with_tls_and_users_lets_in_who_has_both() {
    let authority = Authority::new();
    let options = RedisOptions::new(Flavour::Plain)
        .tls(&authority, ClientCertificates::Required)
        .user("default off")
        .user("app on >p@ss ~refrain:* +@all -@dangerous");
    let server = RedisServer::start_with(options).await;
    assert_eq!(server.url_as("app:p%40ss"), format!("rediss://app:p%40ss@{}", server.address()));
    authority.issue(server.dir(), "client", &["proxy.test"]);
    let certified = authority.client_as(server.dir(), "client");
    let mut connection =
        RedisConnection::tls(server.address(), "localhost", certified.clone()).await.unwrap();
    assert!(connection.command(&["PING"]).await.error().starts_with("NOAUTH"));
    assert!(connection.command(&["AUTH", "app", "wrong"]).await.error().starts_with("WRONGPASS"));
    assert!(connection.command(&["AUTH", "app", "p@ss"]).await.is_ok());
    assert!(connection.command(&["SET", "refrain:a", "1"]).await.is_ok());
    assert!(connection.command(&["SET", "other", "1"]).await.error().starts_with("NOPERM"));

    let nameless = authority.client(&[], rustls::ALL_VERSIONS);
    let mut refused = RedisConnection::tls(server.address(), "localhost", nameless).await.unwrap();
    assert!(refused.try_command(&["PING"]).await.is_err(), "without a certificate");
    let stranger = Authority::new().client(&[], rustls::ALL_VERSIONS);
    assert!(RedisConnection::tls(server.address(), "localhost", stranger).await.is_err());
    assert!(RedisConnection::tls(server.address(), "redis.other", certified).await.is_err());
    assert_eq!(server.command(&["PING"]).await.text(), "PONG", "the harness comes in");
}

#[tokio::test]
async fn redis_keeps_what_is_appended_over_kill_9_on_the_same_address() {
    let mut server = RedisServer::start_with(RedisOptions::new(Flavour::VectorSets).append_only()).await;
    let mut connection = connect(&server).await;
    assert!(connection.command(&["SET", "a", "1"]).await.is_ok());
    server.kill9();
    assert!(connection.try_command(&["PING"]).await.is_err());
    assert_eq!(
        RedisConnection::tcp(server.address()).await.err().unwrap().kind(),
        ErrorKind::ConnectionRefused
    );
    server.start_again().await;
    assert_eq!(connect(&server).await.command(&["GET", "a"]).await.text(), "1");
    server.restart_empty().await;
    assert!(connect(&server).await.command(&["GET", "a"]).await.is_nil());
}

#[tokio::test]
async fn redis_stopped_answers_nothing_until_it_goes_on() {
    let server = RedisServer::start(Flavour::VectorSets).await;
    let mut connection = connect(&server).await;
    server.sigstop();
    let answer = tokio::time::timeout(SILENCE, connection.try_command(&["PING"])).await;
    assert!(answer.is_err(), "{answer:?}");
    server.sigcont();
    assert_eq!(connection.answer().await.unwrap().text(), "PONG");
}

#[tokio::test]
async fn redis_replica_follows_and_is_read_only() {
    let primary = RedisServer::start(Flavour::Plain).await;
    let replica = RedisServer::start_with(RedisOptions::new(Flavour::Plain).replica_of(&primary)).await;
    primary.command(&["SET", "a", "1"]).await;
    let copied = async || (!replica.command(&["GET", "a"]).await.is_nil()).then_some(());
    eventually("the copy", copied).await;
    assert!(replica.command(&["SET", "a", "2"]).await.error().starts_with("READONLY"));
}

#[tokio::test]
async fn redis_without_memory_refuses_writes_and_reads_on() {
    let server = RedisServer::start(Flavour::VectorSets).await;
    assert!(server.command(&["SET", "a", "1"]).await.is_ok());
    assert!(server.command(&["CONFIG", "SET", "maxmemory", "1"]).await.is_ok());
    assert!(server.command(&["SET", "b", "1"]).await.error().starts_with("OOM"));
    assert_eq!(server.command(&["GET", "a"]).await.text(), "1");

    let tiny = RedisServer::start_with(RedisOptions::new(Flavour::Plain).memory_max(1)).await;
    assert!(tiny.command(&["SET", "a", "1"]).await.error().starts_with("OOM"));
}

#[tokio::test]
async fn redis_cluster_shows_the_way_and_moves_slots() {
    let cluster = RedisCluster::start(Flavour::Plain, 3).await;
    let slot = cluster.slot_of("{a}:1").await;
    let owner = cluster.owner_of(slot).await;
    let (source, other) = (&cluster.nodes()[owner], (owner + 1) % 3);
    let target = &cluster.nodes()[other];
    assert!(source.command(&["SET", "{a}:1", "1"]).await.is_ok());
    assert_eq!(target.command(&["GET", "{a}:1"]).await.error(), format!("MOVED {slot} {}", source.address()));

    let moving = cluster.move_slot(slot, other).await;
    assert_eq!(source.command(&["GET", "{a}:1"]).await.text(), "1");
    assert_eq!(moving.move_keys().await, 1);
    assert_eq!(source.command(&["GET", "{a}:1"]).await.error(), format!("ASK {slot} {}", target.address()));
    let mut asking = connect(target).await;
    assert!(asking.command(&["ASKING"]).await.is_ok());
    assert_eq!(asking.command(&["GET", "{a}:1"]).await.text(), "1");
    moving.finish().await;
    assert_eq!(target.command(&["GET", "{a}:1"]).await.text(), "1");
    assert_eq!(cluster.owner_of(slot).await, other);
}

#[tokio::test]
async fn redis_cluster_with_tls_and_a_password_shows_the_way_and_moves_slots() {
    let authority = Authority::new();
    let options =
        || RedisOptions::new(Flavour::Plain).tls(&authority, ClientCertificates::Ignored).password("secret");
    let cluster = RedisCluster::start_with(3, options).await;
    let slot = cluster.slot_of("a").await;
    let owner = cluster.owner_of(slot).await;
    let (source, other) = (&cluster.nodes()[owner], (owner + 1) % 3);
    assert!(source.command(&["SET", "a", "1"]).await.is_ok());
    cluster.move_slot(slot, other).await.finish().await;
    let target = &cluster.nodes()[other];
    let ip = target.address().ip().to_string();
    let client = authority.client(&[], rustls::ALL_VERSIONS);
    let mut connection = RedisConnection::tls(source.address(), &ip, client).await.unwrap();
    assert!(connection.command(&["GET", "a"]).await.error().starts_with("NOAUTH"));
    assert!(connection.command(&["AUTH", "secret"]).await.is_ok());
    assert_eq!(connection.command(&["GET", "a"]).await.error(), format!("MOVED {slot} {}", target.address()));
    assert_eq!(target.command(&["GET", "a"]).await.text(), "1");
}

#[tokio::test]
async fn redis_cluster_replaces_a_master_that_dies() {
    let mut cluster = RedisCluster::start_with_replicas(Flavour::VectorSets, 3).await;
    let slot = cluster.slot_of("a").await;
    let (owner, replica) = (cluster.owner_of(slot).await, cluster.replica_of(cluster.owner_of(slot).await));
    let mut connection = cluster.nodes()[owner].connection().await;
    assert!(connection.command(&["SET", "a", "1"]).await.is_ok());
    assert_eq!(connection.command(&["WAIT", "1", "5000"]).await.integer(), 1);
    cluster.node_mut(owner).kill9();
    cluster.promoted(replica).await;
    assert_eq!(cluster.owner_of(slot).await, replica);
    assert_eq!(cluster.nodes()[replica].command(&["GET", "a"]).await.text(), "1");
}

#[tokio::test]
async fn redis_behind_a_relay_is_slow_silent_refused_or_cut_off() {
    let server = RedisServer::start(Flavour::VectorSets).await;
    let relay = Relay::start(server.address()).await;
    let mut connection = RedisConnection::tcp(relay.address()).await.unwrap();
    assert_eq!(connection.command(&["PING"]).await.text(), "PONG");

    relay.set(Passage::Delayed(SILENCE)).await;
    let start = Instant::now();
    assert_eq!(connection.command(&["PING"]).await.text(), "PONG");
    assert!(start.elapsed() >= SILENCE);

    relay.set(Passage::Held).await;
    let answer = tokio::time::timeout(SILENCE, connection.try_command(&["PING"])).await;
    assert!(answer.is_err(), "{answer:?}");
    relay.set(Passage::Open).await;
    assert_eq!(connection.answer().await.unwrap().text(), "PONG");

    relay.set(Passage::Refused).await;
    assert_eq!(
        RedisConnection::tcp(relay.address()).await.err().unwrap().kind(),
        ErrorKind::ConnectionRefused
    );
    assert_eq!(connection.command(&["PING"]).await.text(), "PONG", "it was there before");
    relay.cut().await;
    assert!(connection.try_command(&["PING"]).await.is_err());
    relay.set(Passage::Open).await;
    connection = RedisConnection::tcp(relay.address()).await.unwrap();
    assert_eq!(connection.command(&["PING"]).await.text(), "PONG");
    assert_eq!(relay.accepted(), 2);
}

#[tokio::test]
async fn redis_8_behind_a_relay_with_tls_searches_vectors() {
    let authority = Authority::new();
    let server = RedisServer::start(Flavour::VectorSets).await;
    let relay = Relay::start_tls(server.address(), &authority).await;
    let client = authority.client(&[], rustls::ALL_VERSIONS);
    let mut connection = RedisConnection::tls(relay.address(), "localhost", client.clone()).await.unwrap();
    let added = connection.command(&["VADD", "{a}:vs", "VALUES", "2", "1", "0", "one"]).await;
    assert_eq!(added.integer(), 1);
    relay.cut().await;
    assert!(connection.try_command(&["PING"]).await.is_err());
    assert!(RedisConnection::tls(relay.address(), "redis.other", client).await.is_err());
}
