//! A fleet behind TLS: who is trusted, what is shown, and how many connections it takes.

use std::path::Path;

use refrain_tests::fake::{FakeUpstream, Gate, openai};
use refrain_tests::{Ask, Authority, Config, Greeting, Refrain, TlsFront, eventually, within};
use tokio::task::JoinSet;

/// One for each of the two workers, and that of who looks after endpoints.
const CONNECTIONS_MAX: usize = 3;

/// A front that wants the certificate of `refrain.pem` in `dir`, and a config that shows it.
async fn front(fake: &FakeUpstream, alpn: &[&str], dir: &Path) -> (TlsFront, Config) {
    let (servers, clients) = (Authority::new(), Authority::new());
    servers.write_root(&dir.join("ca.pem"));
    clients.issue(dir, "refrain", &["refrain.test"]);
    let front = TlsFront::start(fake.address(), servers.server_for(&["llm.test"], alpn, &clients)).await;
    let file = |name: &str| dir.join(name);
    let config = Config::new(&front.url())
        .env("FLEET_KEY", "fleet-key-of-the-test")
        .pool(&format!(
            "tls = {{ ca_file = {:?}, client_certificate = {{ chain = {:?}, key = {:?} }}, server_name = \"llm.test\" }}\n\
             headers.x-api-key = {{ env = \"FLEET_KEY\" }}",
            file("ca.pem"),
            file("refrain.pem"),
            file("refrain.key"),
        ));
    (front, config)
}

#[tokio::test]
async fn a_fleet_behind_tls_is_asked_over_http2_with_certificate_and_headers() {
    let (fake, dir) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let (front, config) = front(&fake, &["h2", "http/1.1"], dir.path()).await;
    let refrain = Refrain::start(&config).await;
    for ask in [Ask::chat("one"), Ask::chat("two").streamed()] {
        let (miss, hit) = (refrain.send(&ask).await, refrain.send(&ask).await);
        assert_eq!(
            (miss.status, miss.cache_status()),
            (200, "refrain; fwd=miss".to_owned()),
            "{}",
            miss.text()
        );
        assert!(hit.is_hit());
        assert_eq!(hit.answer(), miss.answer());
    }
    assert_eq!(fake.last_post().header("x-api-key"), ["fleet-key-of-the-test"]);
    let expected =
        Greeting { server_name: Some("llm.test".into()), protocol: "h2".into(), has_certificate: true };
    let greetings = front.greetings();
    assert!(greetings.iter().all(|greeting| *greeting == expected), "{greetings:?}");
    assert!(!refrain.logs().contains("fleet-key-of-the-test"));
    assert!(!refrain.admin(&Ask::get("/config")).await.text().contains("fleet-key-of-the-test"));
}

#[tokio::test]
async fn answers_of_a_fleet_that_come_at_once_share_a_connection() {
    let (fake, dir) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let (front, config) = front(&fake, &["h2"], dir.path()).await;
    let refrain = Refrain::start(&config).await;
    let gate = Gate::default();
    let (count, address) = (30, refrain.address());
    let mut asked = JoinSet::new();
    for nth in 0..count {
        fake.next(openai::chat_stream(&["first ", "second"], "stop").gate(3, &gate));
        let ask = Ask::chat(&format!("question {nth}")).streamed();
        asked.spawn(async move { refrain_tests::Client::http(address).send(&ask).await.status });
    }
    fake.posted(count).await;
    gate.open();
    let statuses = within("all answers", asked.join_all()).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert!(front.greetings().len() <= CONNECTIONS_MAX, "{:?}", front.greetings());
}

#[tokio::test]
async fn a_client_that_leaves_a_fleet_leaves_the_others_on_its_connection_alone() {
    let (fake, dir) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let (front, config) = front(&fake, &["h2"], dir.path()).await;
    let refrain = Refrain::start(&config).await;
    let gate = Gate::default();
    // Enough that some who leave share a connection with some who stay, whichever worker they come to.
    let (mut leave, mut stay) = (Vec::new(), Vec::new());
    for nth in 0..8 {
        fake.next(openai::chat_stream(&["first ", "second"], "stop").gate(3, &gate));
        let mut stream = refrain.open(&Ask::chat(&format!("question {nth}")).streamed()).await;
        stream.until("first ").await;
        if nth % 2 == 0 { &mut leave } else { &mut stay }.push(stream);
    }
    drop(leave);
    fake.abandoned(4).await;
    gate.open();
    for stream in stay {
        let rest = stream.whole().await.text();
        assert!(rest.contains("second") && rest.ends_with("data: [DONE]\n\n"), "{rest}");
    }
    assert!(front.greetings().len() <= CONNECTIONS_MAX, "{:?}", front.greetings());
}

#[tokio::test]
async fn an_authority_of_a_fleet_that_is_replaced_is_trusted_without_a_restart() {
    let (fake, dir) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let (_front, config) = front(&fake, &["h2"], dir.path()).await;
    let right = std::fs::read(dir.path().join("ca.pem")).unwrap();
    Authority::new().write_root(&dir.path().join("ca.pem"));
    let refrain = Refrain::start(&config).await;
    let ask = Ask::chat("trusted?");
    assert_eq!(refrain.send(&ask).await.status, 502);
    refrain.logged(0, "TLS failed").await;
    std::fs::write(dir.path().join("ca.pem"), right).unwrap();
    eventually("an answer", async || (refrain.send(&ask).await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn a_fleet_without_its_certificate_files_is_refused_at_the_start() {
    let (fake, dir) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let (_front, config) = front(&fake, &["h2"], dir.path()).await;
    std::fs::remove_file(dir.path().join("refrain.key")).unwrap();
    let (status, said) = Refrain::run_to_end(&config).await;
    assert!(!status.success());
    let file = dir.path().join("refrain.key");
    assert!(said.contains(&format!("{}: No such file", file.display())), "{said}");
}
