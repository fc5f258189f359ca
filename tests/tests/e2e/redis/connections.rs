//! Every way to reach Redis, and who may know its password: nobody.

use refrain_tests::redis::{ClientCertificates, Flavour, RedisOptions, RedisServer, Relay};
use refrain_tests::{Ask, Authority, Config, Refrain, eventually};

use super::{CALM, Fleet, PARAPHRASE, QUESTION, away, detail, look, stored, up, written};

/// Needs percent-encoding, and quoting nearly everywhere.
const PASSWORD: &str = "p@ss:w/rd %#?é\"x";
const ENCODED: &str = "p%40ss%3Aw%2Frd%20%25%23%3F%C3%A9%22x";
/// Forms and parts of it.
const TRACES: [&str; 5] = [PASSWORD, "p@ss", "p%40ss", "w/rd", "w%2Frd"];

/// What the documentation asks operators to give.
const RIGHTS: &str = "~refrain:* ~{refrain:* &* +@all -@dangerous";

/// Redis with a user `app`, who has no password yet, and nobody else.
fn with_user<'a>(flavour: Flavour) -> RedisOptions<'a> {
    RedisOptions::new(flavour).user("default off").user(&format!("app on {RIGHTS}"))
}

/// Gives `app` its password, whatever is in it.
async fn give_password(redis: &RedisServer) {
    let given = redis.command(&["ACL", "SETUSER", "app", &format!(">{PASSWORD}")]).await;
    assert!(given.is_ok(), "{given:?}");
}

/// Neither what it logged nor what it tells has the password, in any form.
async fn check_keeps_password(refrain: &Refrain) {
    let mut said = refrain.logs();
    for path in ["/readyz", "/metrics", "/config", "/", "/livez"] {
        said += &refrain.admin(&Ask::get(path)).await.text();
    }
    said += &refrain.reload().await.text();
    said += &refrain.logs();
    assert!(said.len() > 1000, "there is something to look at");
    check_silent(&said);
}

fn check_silent(said: &str) {
    for trace in TRACES {
        assert!(!said.contains(trace), "{trace} is in\n{said}");
    }
}

/// Two proxies with these lines share answers.
async fn check_shares(lines: &str) -> (Fleet, [Refrain; 2]) {
    check_shares_with(lines, |config| config).await
}

async fn check_shares_with(lines: &str, change: impl Fn(Config) -> Config) -> (Fleet, [Refrain; 2]) {
    let fleet = Fleet::with(lines).await;
    let pair = fleet.pair_with(change).await;
    check_shared(&pair, "what now?").await;
    (fleet, pair)
}

async fn check_shared([a, b]: &[Refrain; 2], text: &str) {
    let answer = stored(a, &Ask::chat(text)).await.answer();
    let hit = b.send(&Ask::chat(text)).await;
    assert_eq!((detail(&hit), hit.answer()), ("exact_shared".to_owned(), answer));
}

#[tokio::test]
async fn a_user_and_a_password_come_from_the_url_a_file_the_environment_or_as_they_are() {
    let redis = RedisServer::start_with(with_user(Flavour::VectorSets)).await;
    give_password(&redis).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let url = redis.url();
    let separate = format!("url = {url:?}\nusername = \"app\"\n");
    let ways = [
        format!("url = {:?}\n", redis.url_as(&format!("app:{ENCODED}"))),
        separate.clone() + &format!("password = {{ file = {file:?} }}\n"),
        separate.clone() + "password = { env = \"THE_PASSWORD\" }\n",
        separate + &format!("password = {{ value = {PASSWORD:?} }}\n"),
    ];
    for (nth, way) in ways.iter().enumerate() {
        let lines = format!("{way}prefix = \"refrain:way-{nth}\"\n{CALM}");
        let (_fleet, pair) = check_shares_with(&lines, |config| config.env("THE_PASSWORD", PASSWORD)).await;
        for proxy in &pair {
            check_keeps_password(proxy).await;
        }
    }
}

#[tokio::test]
async fn the_url_comes_from_the_environment() {
    let redis = RedisServer::start_with(with_user(Flavour::Plain)).await;
    give_password(&redis).await;
    let url = redis.url_as(&format!("app:{ENCODED}"));
    let (_fleet, [a, _b]) = check_shares_with(CALM, |config| config.env("REDIS_URL", &url)).await;
    check_keeps_password(&a).await;
}

#[tokio::test]
async fn a_password_that_is_refused_is_told_to_nobody() {
    let redis = RedisServer::start_with(with_user(Flavour::Plain)).await;
    let url = redis.url_as(&format!("app:{ENCODED}"));
    let fleet = Fleet::with(&format!("url = {url:?}\n{CALM}")).await;
    let a = Refrain::start(&fleet.config()).await;
    away(&a, "login").await;
    check_keeps_password(&a).await;
    let fleet = Fleet { lines: fleet.lines + "\nrequire_store = true", ..fleet };
    let (status, said) = Refrain::run_to_end(&fleet.config()).await;
    assert!(!status.success() && said.contains("login"), "{said}");
    check_silent(&said);
    give_password(&redis).await;
    up(&a).await;
    check_keeps_password(&a).await;
}

#[tokio::test]
async fn a_user_without_the_rights_is_told_which_are_missing() {
    let options = RedisOptions::new(Flavour::Plain).user("app on >secret ~other:* +@all");
    let redis = RedisServer::start_with(options).await;
    let fleet = Fleet::with(&format!("url = {:?}\n{CALM}", redis.url_as("app:secret"))).await;
    let a = Refrain::start(&fleet.config()).await;
    away(&a, "forbidden").await;
    assert_eq!(a.send(&Ask::chat("what now?")).await.status, 200);
    redis.command(&["ACL", "SETUSER", "app", "~refrain:*", "~{refrain:*"]).await;
    up(&a).await;
}

#[tokio::test]
async fn tls_with_a_user_and_a_password() {
    let authority = Authority::new();
    let redis =
        RedisServer::start_with(with_user(Flavour::Plain).tls(&authority, ClientCertificates::Ignored)).await;
    give_password(&redis).await;
    let url = redis.url_as(&format!("app:{ENCODED}"));
    let tls = format!("[store.redis.tls]\nca_file = {:?}", redis.root_file());
    let (_fleet, pair) = check_shares(&format!("url = {url:?}\n{CALM}\n{tls}")).await;
    for proxy in &pair {
        check_keeps_password(proxy).await;
    }
    // Nobody who isn't trusted is talked to.
    let fleet = Fleet::with(&format!("url = {url:?}\n{CALM}")).await;
    let a = Refrain::start(&fleet.config()).await;
    away(&a, "tls").await;
    assert_eq!(a.send(&Ask::chat("what now?")).await.status, 200);
    check_keeps_password(&a).await;
}

/// A Redis with TLS that asks for certificates, and one for clients.
async fn with_certificates(authority: &Authority) -> (RedisServer, String) {
    let options = RedisOptions::new(Flavour::Plain).tls(authority, ClientCertificates::Required);
    let redis = RedisServer::start_with(options).await;
    authority.issue(redis.dir(), "client", &["proxy.test"]);
    let (chain, key) = (redis.dir().join("client.pem"), redis.dir().join("client.key"));
    (redis, format!("client_certificate = {{ chain = {chain:?}, key = {key:?} }}"))
}

#[tokio::test]
async fn tls_with_a_client_certificate_and_another_servers_name() {
    let authority = Authority::new();
    let (redis, certificate) = with_certificates(&authority).await;
    let tls = format!("[store.redis.tls]\nca_file = {:?}", redis.root_file());
    check_shares(&format!("url = {:?}\n{CALM}\n{tls}\n{certificate}", redis.url())).await;
    let named = format!("{tls}\n{certificate}\nserver_name = \"localhost\"");
    check_shares(&format!("url = {:?}\n{CALM}\nprefix = \"named\"\n{named}", redis.url())).await;

    for wrong in [format!("{tls}\n{certificate}\nserver_name = \"redis.other\""), tls] {
        let fleet = Fleet::with(&format!("url = {:?}\n{CALM}\n{wrong}", redis.url())).await;
        let a = Refrain::start(&fleet.config()).await;
        away(&a, "tls").await;
        assert_eq!(a.send(&Ask::chat("what now?")).await.status, 200);
    }
}

#[tokio::test]
async fn certificates_may_be_replaced_while_it_runs() {
    let (old, new) = (Authority::new(), Authority::new());
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root.pem");
    old.write_root(&root);
    let relay = Relay::start_tls(redis.address(), &new).await;
    let url = format!("rediss://localhost:{}", relay.address().port());
    let url = url.replace("localhost", &relay.address().ip().to_string());
    let tls = format!("[store.redis.tls]\nca_file = {root:?}");
    let fleet = Fleet::with(&format!("url = {url:?}\n{CALM}\n{tls}")).await;
    let a = Refrain::start(&fleet.config()).await;
    away(&a, "tls").await;
    new.write_root(&root);
    up(&a).await;
}

#[tokio::test]
async fn a_unix_socket() {
    let redis = RedisServer::start_with(with_user(Flavour::VectorSets)).await;
    give_password(&redis).await;
    let url = format!("redis+unix://{}?user=app&pass={ENCODED}", redis.socket().display());
    let (_fleet, [a, _b]) = check_shares(&format!("url = {url:?}\n{CALM}")).await;
    check_keeps_password(&a).await;
}

#[tokio::test]
async fn another_database_is_another_store() {
    let redis = RedisServer::start(Flavour::Plain).await;
    let (_fleet, _pair) = check_shares(&format!("url = \"{}/3\"\n{CALM}", redis.url())).await;
    let mut connection = redis.connection().await;
    assert_eq!(connection.command(&["DBSIZE"]).await.integer(), 0);
    connection.command(&["SELECT", "3"]).await;
    assert!(connection.command(&["DBSIZE"]).await.integer() > 0);
}

#[tokio::test]
async fn a_server_that_speaks_resp2_only() {
    for flavour in [Flavour::QueryEngine, Flavour::VectorSets, Flavour::Plain] {
        let options = with_user(flavour).line("rename-command HELLO \"\"");
        let redis = RedisServer::start_with(options).await;
        give_password(&redis).await;
        let url = redis.url_as(&format!("app:{ENCODED}"));
        let fleet = Fleet::with(&format!("url = {url:?}\n{CALM}")).await;
        let [a, b] = fleet.pair_with(|config| config.semantic("threshold = 0.85")).await;
        let answer = stored(&a, &Ask::chat(QUESTION)).await.answer();
        let similar = async || {
            let reply = look(&b, &Ask::chat(PARAPHRASE)).await;
            reply.is_hit().then(|| reply.answer())
        };
        assert_eq!(eventually("a similar hit by RESP2", similar).await, answer, "{flavour:?}");
        assert_eq!(b.send(&Ask::chat(QUESTION)).await.answer(), answer);
        let clients = redis.command(&["CLIENT", "LIST"]).await.text();
        assert!(clients.contains("user=app") && clients.contains("resp=2"), "{clients}");
    }
}

#[tokio::test]
async fn connections_are_few_and_named() {
    let redis = RedisServer::start(Flavour::VectorSets).await;
    let fleet = Fleet::of(&redis).await;
    let a = fleet.proxy().await;
    for nth in 0..50 {
        a.send(&Ask::chat(&format!("question {nth}"))).await;
    }
    written(&a).await;
    let clients = redis.command(&["CLIENT", "LIST"]).await.text();
    let own: Vec<&str> = clients.lines().filter(|line| line.contains("lib-name=refrain")).collect();
    assert!((1..=8).contains(&own.len()), "{clients}");
    assert!(own.iter().all(|line| line.contains("resp=3")), "{clients}");
}

#[tokio::test]
async fn a_reload_changes_the_store_or_keeps_the_old_one() {
    let (first, second) =
        (RedisServer::start(Flavour::VectorSets).await, RedisServer::start(Flavour::Plain).await);
    let fleet = Fleet::of(&first).await;
    let a = fleet.proxy().await;
    stored(&a, &Ask::chat("what now?")).await;
    let config = |url: &str| {
        let lines = format!("url = {url:?}\n{CALM}");
        Config::new(&fleet.fake.url()).redis(&fleet.dir.path().join("cache.secret"), &lines)
    };
    a.write_config(&config("redis://127.0.0.1:1"));
    let refused = a.reload().await;
    assert_ne!(refused.status, 200);
    assert!(refused.text().contains("unreachable"), "{}", refused.text());
    assert_eq!(detail(&a.send(&Ask::chat("what now?")).await), "exact", "the old one is kept");
    a.write_config(&config(&second.url()));
    let reply = a.reload().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    up(&a).await;
    super::check_miss(&a, &Ask::chat("what now?")).await;
    stored(&a, &Ask::chat("what then?")).await;
    assert_eq!(super::entries(&second).await.len(), 1);
}
