//! Which build of a model answers, as Ollamas tell it.

use refrain_core::settings::PoolKind;
use tokio::join;

use crate::server::{Fleet, Peer, SECOND, Server, within};

fn tags(models: &[(&str, &str)]) -> String {
    let models: Vec<_> = models
        .iter()
        .map(|(name, digest)| format!(r#"{{"name":"{name}","model":"{name}","digest":"{digest}","size":1}}"#))
        .collect();
    let json = format!(r#"{{"models":[{}]}}"#, models.join(","));
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{json}", json.len())
}

fn ollamas(servers: &[&Server]) -> Fleet {
    Fleet::with(servers, |pool| pool.kind = PoolKind::Ollama)
}

fn identity(fleet: &Fleet, model: &str) -> Option<String> {
    fleet.pool().model_identity(model).map(|identity| identity.to_string())
}

/// Answers a look: what there is, and that nothing is in memory.
async fn lists(server: &Server, said: &str) -> Peer {
    let mut peer = server.answers(said).await;
    peer.answers(tags(&[])).await;
    peer
}

/// Has both servers asked, and answers so.
async fn refresh(fleet: &Fleet, servers: [(&Server, &str); 2]) -> [Peer; 2] {
    let [(a, said_by_a), (b, said_by_b)] = servers;
    let ((), a, b) =
        join!(fleet.upstreams.look_at_all(&fleet.client), lists(a, said_by_a), lists(b, said_by_b));
    [a, b]
}

#[tokio::test]
async fn a_model_is_known_by_its_digest_with_and_without_latest() {
    let (a, b) = (Server::bind().await, Server::bind().await);
    let fleet = ollamas(&[&a, &b]);
    assert_eq!(identity(&fleet, "gemma"), None, "nobody was asked yet");
    let said = tags(&[("gemma:latest", "d1"), ("gemma:270m", "d2")]);
    let _peers = refresh(&fleet, [(&a, &said), (&b, &said)]).await;
    let known = ["gemma", "gemma:latest", "gemma:270m", "qwen"].map(|model| identity(&fleet, model));
    assert_eq!(known, [Some("d1".into()), Some("d1".into()), Some("d2".into()), None]);
}

#[tokio::test]
async fn endpoints_that_disagree_have_no_common_identity() {
    let (a, b) = (Server::bind().await, Server::bind().await);
    let fleet = ollamas(&[&a, &b]);
    let said = [tags(&[("gemma:latest", "d1")]), tags(&[("gemma:latest", "d2"), ("only-b:latest", "d3")])];
    let _peers = refresh(&fleet, [(&a, &said[0]), (&b, &said[1])]).await;
    assert_eq!(identity(&fleet, "gemma"), None);
    assert_eq!(identity(&fleet, "only-b").as_deref(), Some("d3"), "only one can answer for it");
    let at = fleet.pool().model_identity_at(&"b".into(), "gemma");
    assert_eq!(at.as_deref(), Some("d2"));
}

#[tokio::test]
async fn an_endpoint_that_fails_keeps_what_it_said_last() {
    let (a, b) = (Server::bind().await, Server::bind().await);
    let fleet = ollamas(&[&a, &b]);
    let said = tags(&[("gemma:latest", "d1")]);
    let [mut peer_a, mut peer_b] = refresh(&fleet, [(&a, &said), (&b, &said)]).await;
    let nonsense = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]";
    let error = "HTTP/1.1 500 Oops\r\ncontent-length: 13\r\n\r\n{\"models\":[]}";
    join!(fleet.upstreams.look_at_all(&fleet.client), peer_a.answers(nonsense), peer_b.answers(error));
    assert_eq!(identity(&fleet, "gemma").as_deref(), Some("d1"));
}

#[tokio::test]
async fn asking_for_an_unknown_model_brings_the_next_look_forward() {
    let server = Server::bind().await;
    let fleet = ollamas(&[&server]);
    let upstreams = fleet.upstreams.clone();
    let keeping =
        refrain_upstream::watch(move || upstreams.clone(), fleet.client.clone(), fleet.tasks.draining());
    let (drain, start) = (fleet.tasks.draining(), tokio::time::Instant::now());
    let ((), ()) = join!(within(keeping), async {
        let mut peer = lists(&server, &tags(&[])).await;
        assert_eq!(identity(&fleet, "gemma"), None);
        peer.answers(tags(&[("gemma:latest", "d1")])).await;
        peer.answers(tags(&[])).await;
        assert!(start.elapsed() < 4 * SECOND, "{:?}", start.elapsed());
        while identity(&fleet, "gemma").is_none() {
            tokio::task::yield_now().await;
        }
        drain.begin();
    });
}

#[tokio::test]
async fn a_ping_says_what_answered() {
    let server = Server::bind().await;
    let fleet = ollamas(&[&server]);
    let endpoint = &fleet.pool().endpoints()[0];
    let (ping, _peer) = join!(fleet.client.ping(fleet.pool(), endpoint), server.answers(tags(&[])));
    let ping = ping.unwrap();
    assert_eq!((ping.path, ping.status.as_u16()), ("/api/version", 200));
}
