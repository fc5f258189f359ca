//! Client certificates, over both HTTP versions.

use refrain_tests::fake::FakeUpstream;
use refrain_tests::{Ask, Authority, Client, Config, Person, Refrain, eventually};

struct Bench {
    _fake: FakeUpstream,
    dir: tempfile::TempDir,
    server: Authority,
    refrain: Refrain,
}

const RULES: &str = "\
[certificate.batch]
san = \"spiffe://acme/batch\"
tenant = \"acme\"
kind = \"personal\"
user = \"batch\"

[certificate.ann]
common_name = \"ann\"
tenant = \"acme\"
kind = \"personal\"
";

/// A listener whose clients `authorities` vouch for.
async fn start(authority: &Authority, need: &str) -> Bench {
    let (server, dir, fake) = (Authority::new(), tempfile::tempdir().unwrap(), FakeUpstream::start().await);
    server.issue(dir.path(), "server", &["llm.test"]);
    authority.write_root(&dir.path().join("clients.pem"));
    let path = |name: &str| dir.path().join(name);
    let tls = format!(
        "tls = {{ certificates = [{{ chain = {:?}, key = {:?} }}], client_ca = {:?}, client_auth = {need:?} }}",
        path("server.pem"),
        path("server.key"),
        path("clients.pem"),
    );
    let key = Person::new("keyholder", "umbrella");
    let config = Config::new(&fake.url()).people(&[&key]).listener(&tls).tables(RULES);
    let refrain = Refrain::start(&config).await;
    Bench { _fake: fake, dir, server, refrain }
}

impl Bench {
    fn client(&self, stem: &str, alpn: &[&str]) -> Client {
        let config = self.server.client_offering(self.dir.path(), stem, alpn);
        Client::tls(self.refrain.address(), config, "llm.test")
    }

    fn nameless(&self) -> Client {
        let config = self.server.client(&["http/1.1"], rustls::ALL_VERSIONS);
        Client::tls(self.refrain.address(), config, "llm.test")
    }
}

#[tokio::test]
async fn a_certificate_is_its_owner_over_both_http_versions() {
    let clients = Authority::new();
    let bench = start(&clients, "optional").await;
    let dir = bench.dir.path();
    clients.issue_client(dir, "batch", "whatever", Some("spiffe://acme/batch"));
    clients.issue_client(dir, "ann", "ann", None);
    clients.issue_client(dir, "unknown", "mallory", Some("spiffe://acme/other"));
    for alpn in ["http/1.1", "h2"] {
        let text = format!("who am I over {alpn}?");
        let batch = bench.client("batch", &[alpn]);
        assert_eq!(batch.send(&Ask::chat(&text)).await.cache_status(), "refrain; fwd=miss");
        assert!(batch.send(&Ask::chat(&text)).await.is_hit());
        assert_eq!(
            bench.client("ann", &[alpn]).send(&Ask::chat(&text)).await.cache_status(),
            "refrain; fwd=miss"
        );
        assert_eq!(bench.client("unknown", &[alpn]).send(&Ask::chat(&text)).await.status, 401);
    }
    // Without one, a key does; a wrong key is not made right by a certificate.
    let key = Person::new("keyholder", "umbrella");
    assert_eq!(bench.nameless().send(&Ask::chat("hello")).await.status, 401);
    assert_eq!(bench.nameless().send(&Ask::chat("hello").by(&key)).await.status, 200);
    let wrong = Ask::chat("hello").header("authorization", "Bearer rfn_wrong");
    assert_eq!(bench.client("ann", &[]).send(&wrong).await.status, 401);
}

#[tokio::test]
async fn a_certificate_of_another_authority_opens_no_connection() {
    let (clients, others) = (Authority::new(), Authority::new());
    let bench = start(&clients, "required").await;
    others.issue_client(bench.dir.path(), "forged", "ann", Some("spiffe://acme/batch"));
    clients.issue_client(bench.dir.path(), "ann", "ann", None);
    assert!(bench.client("forged", &[]).try_open(&Ask::chat("hello")).await.is_err());
    assert!(bench.nameless().try_open(&Ask::chat("hello")).await.is_err());
    assert_eq!(bench.client("ann", &[]).send(&Ask::chat("hello")).await.status, 200);
}

#[tokio::test]
async fn authorities_are_followed_while_it_runs() {
    let (old, new) = (Authority::new(), Authority::new());
    let bench = start(&old, "required").await;
    old.issue_client(bench.dir.path(), "old", "ann", None);
    new.issue_client(bench.dir.path(), "new", "ann", None);
    assert_eq!(bench.client("old", &[]).send(&Ask::chat("hello")).await.status, 200);
    new.write_root(&bench.dir.path().join("clients.pem"));
    let turned =
        async || bench.client("new", &[]).try_open(&Ask::chat("hello")).await.ok().map(|reply| reply.status);
    assert_eq!(eventually("the new authority", turned).await, 200);
    assert!(bench.client("old", &[]).try_open(&Ask::chat("hello")).await.is_err());
}
