//! Certificates are renewed while the process runs; a bad one changes nothing.

use std::path::Path;

use refrain_tests::fake::FakeUpstream;
use refrain_tests::{Ask, Authority, Client, Config, Refrain, eventually};
use rustls::version::TLS13;

/// A listener with the certificate `site` of a folder.
async fn with_certificate(dir: &Path) -> (FakeUpstream, Refrain) {
    let file = |end: &str| dir.join(format!("site.{end}"));
    let tls = format!("tls.certificates = [{{ chain = {:?}, key = {:?} }}]", file("pem"), file("key"));
    let fake = FakeUpstream::start().await;
    let refrain = Refrain::start(&Config::new(&fake.url()).listener(&tls)).await;
    (fake, refrain)
}

#[tokio::test]
async fn a_bad_new_certificate_keeps_the_old_one_and_is_told() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let first = authority.issue(dir.path(), "site", &["llm.example"]);
    let (_fake, refrain) = with_certificate(dir.path()).await;
    let client = Client::tls(refrain.address(), authority.client(&["h2"], &[&TLS13]), "llm.example");
    let served = async || client.open(&Ask::get("/api/version")).await.certificate;
    assert_eq!(served().await.as_ref(), Some(&first));

    authority.issue(dir.path(), "other", &["llm.example"]);
    let others_key = std::fs::read(dir.path().join("other.key")).unwrap();
    let own_key = std::fs::read(dir.path().join("site.key")).unwrap();
    let bad: [(&str, &[u8]); 4] =
        [("site.key", &others_key), ("site.key", b""), ("site.pem", b"no certificate"), ("site.pem", b"")];
    for (file, content) in bad {
        let path = dir.path().join(file);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, content).unwrap();
        let reply = refrain.reload().await;
        assert_eq!(reply.status, 422, "{file}: {}", reply.text());
        assert!(reply.text().contains("site."), "{}", reply.text());
        assert_eq!(served().await.as_ref(), Some(&first), "{file}");
        std::fs::write(&path, good).unwrap();
    }
    let told = std::str::from_utf8(&own_key).unwrap().lines().nth(1).unwrap();
    assert!(!refrain.logs().contains(told), "the key is in the log");

    let second = authority.issue(dir.path(), "site", &["llm.example"]);
    assert_eq!(refrain.reload().await.status, 200);
    assert_eq!(served().await, Some(second));
}

#[tokio::test]
async fn connections_that_are_open_outlive_their_certificate() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.issue(dir.path(), "site", &["llm.example"]);
    let (fake, refrain) = with_certificate(dir.path()).await;
    let gate = refrain_tests::fake::Gate::default();
    fake.next(refrain_tests::fake::openai::chat_stream(&["first ", "second"], "stop").gate(3, &gate));
    let client = Client::tls(refrain.address(), authority.client(&["h2"], &[&TLS13]), "llm.example");
    let mut stream = client.open(&Ask::chat("long story").streamed()).await;
    stream.until("first ").await;
    let second = authority.issue(dir.path(), "site", &["llm.example"]);
    let served = async || client.open(&Ask::get("/api/version")).await.certificate;
    eventually("the new certificate", async || (served().await.as_ref() == Some(&second)).then_some(()))
        .await;
    gate.open();
    assert!(stream.whole().await.text().ends_with("data: [DONE]\n\n"));
}
