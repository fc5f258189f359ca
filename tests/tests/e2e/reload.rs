//! A new configuration takes over at once and as a whole, or not at all; nobody in flight notices.

use refrain_tests::fake::{FakeUpstream, Gate, openai};
use refrain_tests::{Ask, Authority, Client, Config, Person, Refrain, eventually};
use rustls::version::TLS13;

/// Answers come from this fake from now on.
async fn check_answers_from(refrain: &Refrain, fake: &FakeUpstream) {
    let before = fake.posts();
    let ask = Ask::chat("who are you?").cache_control("no-cache, no-store");
    assert_eq!(refrain.send(&ask).await.status, 200);
    assert_eq!(fake.posts(), before + 1);
}

async fn two_fakes() -> (FakeUpstream, FakeUpstream, Config, Refrain) {
    let (old, new) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let config = Config::new(&old.url());
    let refrain = Refrain::start(&config).await;
    check_answers_from(&refrain, &old).await;
    (old, new, config, refrain)
}

async fn generation(refrain: &Refrain) -> u64 {
    refrain.readiness().await["config"]["generation"].as_u64().unwrap()
}

#[tokio::test]
async fn a_saved_file_is_reloaded() {
    let (_old, new, config, refrain) = two_fakes().await;
    let before = generation(&refrain).await;
    refrain.write_config(&config.upstream(&new.url()));
    eventually("reload of the file", async || (generation(&refrain).await > before).then_some(())).await;
    check_answers_from(&refrain, &new).await;
}

#[tokio::test]
async fn sighup_reloads() {
    let (_old, new, config, refrain) = two_fakes().await;
    let log = refrain.logs().len();
    refrain.write_config(&config.upstream(&new.url()));
    refrain.sighup();
    refrain.logged(log, "configuration reloaded").await;
    check_answers_from(&refrain, &new).await;
}

#[tokio::test]
async fn the_admin_call_reloads_and_reports() {
    let (_old, new, config, refrain) = two_fakes().await;
    refrain.write_config(&config.upstream(&new.url()));
    let reply = refrain.reload().await;
    assert_eq!((reply.status, reply.json()["applied"].clone()), (200, true.into()));
    check_answers_from(&refrain, &new).await;
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_reported_until_it_is_mended() {
    let (old, new, config, refrain) = two_fakes().await;
    let bad = [
        config.clone().upstream(&new.url()).route("nonsense = 1"),
        config.clone().upstream(&new.url()).tables("[route.other]\npool = \"nowhere\""),
        config
            .clone()
            .upstream(&new.url())
            .listener("tls.certificates = [{ chain = \"no.pem\", key = \"no.pem\" }]"),
    ];
    for config in &bad {
        refrain.write_config(config);
        let reply = refrain.reload().await;
        assert_eq!((reply.status, reply.json()["applied"].clone()), (422, false.into()), "{}", reply.text());
        assert!(!reply.json()["problems"].as_array().unwrap().is_empty());
        check_answers_from(&refrain, &old).await;
    }
    refrain.write_config_text("[[[ no TOML");
    assert_eq!(refrain.reload().await.status, 422);
    check_answers_from(&refrain, &old).await;
    let metrics = refrain.metrics().await;
    assert!(metrics.sum("refrain_config_last_reload_successful", &[]) < 0.5, "{}", metrics.text());
    let ready = refrain.readiness().await;
    assert_eq!((&ready["ready"], &ready["degraded"][0]), (&true.into(), &"config".into()), "{ready}");
    refrain.logged(0, "the old one stays in force").await;

    refrain.write_config(&config.upstream(&new.url()));
    assert_eq!(refrain.reload().await.status, 200);
    check_answers_from(&refrain, &new).await;
    assert!(refrain.metrics().await.sum("refrain_config_last_reload_successful", &[]) > 0.5);
}

#[tokio::test]
async fn streams_in_flight_survive_reloads() {
    let (old, new, config, refrain) = two_fakes().await;
    let gate = Gate::default();
    old.next(openai::chat_stream(&["first ", "second"], "stop").gate(3, &gate));
    let ask = Ask::chat("long story").streamed();
    let mut stream = refrain.open(&ask).await;
    stream.until("first ").await;
    refrain.write_config(&config.clone().upstream(&new.url()));
    assert_eq!(refrain.reload().await.status, 200);
    refrain.write_config(&config.cache("ttl = \"5m\""));
    assert_eq!(refrain.reload().await.status, 200);
    gate.open();
    let rest = stream.whole().await.text();
    assert!(rest.contains("second") && rest.ends_with("data: [DONE]\n\n"), "{rest}");
    assert!(refrain.send(&ask).await.is_hit());
}

#[tokio::test]
async fn entries_survive_a_reload() {
    let (_old, new, config, refrain) = two_fakes().await;
    let ask = Ask::chat("remember");
    let answer = refrain.send(&ask).await.answer();
    refrain.write_config(&config.upstream(&new.url()));
    assert_eq!(refrain.reload().await.status, 200);
    let hit = refrain.send(&ask).await;
    assert!(hit.is_hit(), "{}", hit.cache_status());
    assert_eq!(hit.answer(), answer);
}

#[tokio::test]
async fn another_revision_leaves_old_answers_behind() {
    let (_old, _new, config, refrain) = two_fakes().await;
    let ask = Ask::chat("which build?");
    refrain.send(&ask).await;
    refrain.write_config(&config.clone().pool("revision = \"build-2\""));
    assert_eq!(refrain.reload().await.status, 200);
    assert_eq!(refrain.send(&ask).await.cache_status(), "refrain; fwd=miss");
    refrain.write_config(&config);
    assert_eq!(refrain.reload().await.status, 200);
    assert!(refrain.send(&ask).await.is_hit());
}

#[tokio::test]
async fn keys_come_and_go_by_reload_on_open_connections_too() {
    let (ann, bob) = (Person::new("ann", "acme"), Person::new("bob", "acme"));
    let fake = FakeUpstream::start().await;
    let config = Config::new(&fake.url());
    let refrain = Refrain::start(&config.clone().people(&[&ann])).await;
    assert_eq!(refrain.send(&Ask::chat("a").by(&ann)).await.status, 200);
    assert_eq!(refrain.send(&Ask::chat("a").by(&bob)).await.status, 401);
    let mut open = refrain_tests::Raw::connect(refrain.address()).await;
    let get =
        format!("GET /api/version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", ann.token());
    open.send(&get).await;
    assert_eq!(open.response().await.0, 200);
    refrain.write_config(&config.people(&[&bob]));
    assert_eq!(refrain.reload().await.status, 200);
    assert_eq!(refrain.send(&Ask::chat("a").by(&ann)).await.status, 401);
    assert_eq!(refrain.send(&Ask::chat("a").by(&bob)).await.status, 200);
    open.send(&get).await;
    assert_eq!(open.response().await.0, 401);
}

#[tokio::test]
async fn renewed_certificates_are_served_after_the_file_changes() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let first = authority.issue(dir.path(), "site", &["llm.example"]);
    let tls = format!(
        "tls.certificates = [{{ chain = {:?}, key = {:?} }}]",
        dir.path().join("site.pem"),
        dir.path().join("site.key")
    );
    let fake = FakeUpstream::start().await;
    let refrain = Refrain::start(&Config::new(&fake.url()).listener(&tls)).await;
    let client = Client::tls(refrain.address(), authority.client(&["h2"], &[&TLS13]), "llm.example");
    let served = async || client.open(&Ask::get("/api/version")).await.certificate;
    assert_eq!(served().await, Some(first));
    let second = authority.issue(dir.path(), "site", &["llm.example"]);
    eventually("the new certificate", async || (served().await.as_ref() == Some(&second)).then_some(()))
        .await;
}
