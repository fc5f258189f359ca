//! How many connections one address may have.

use refrain_tests::{Ask, Raw, eventually};

use crate::start_with;

const FEW: &str = "[limits]\nconnections_per_address = 3\n";

/// Whether a new connection is served.
async fn is_served(address: std::net::SocketAddr) -> (Raw, bool) {
    let mut raw = Raw::connect(address).await;
    raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let (status, _) = raw.response().await;
    (raw, status == 200)
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_gets_them_back() {
    let (_fake, refrain) = start_with(|config| config.tables(&format!("{FEW}trusted_proxies = []"))).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        let (raw, served) = is_served(refrain.address()).await;
        assert!(served);
        kept.push(raw);
    }
    for _ in 0..5 {
        assert!(!is_served(refrain.address()).await.1);
    }
    refrain.counted("refrain_connections_ended_total", &[("reason", "address")], 5.0).await;
    kept.pop();
    eventually("room for another", async || is_served(refrain.address()).await.1.then_some(())).await;
}

#[tokio::test]
async fn balancers_that_are_listed_may_have_more() {
    for trusted in ["", "trusted_proxies = [\"127.0.0.0/8\"]"] {
        let (_fake, refrain) = start_with(|config| config.tables(&format!("{FEW}{trusted}"))).await;
        let mut kept = Vec::new();
        for _ in 0..10 {
            let (raw, served) = is_served(refrain.address()).await;
            assert!(served, "{trusted:?}");
            kept.push(raw);
        }
    }
}

#[tokio::test]
async fn what_a_client_says_of_its_address_counts_for_nothing() {
    let (fake, refrain) = start_with(|config| config.tables(&format!("{FEW}trusted_proxies = []"))).await;
    let _kept = [is_served(refrain.address()).await, is_served(refrain.address()).await];
    let ask = Ask::chat("from elsewhere").header("x-forwarded-for", "203.0.113.9");
    assert_eq!(refrain.send(&ask).await.status, 200);
    // The place of the connection before is given back in a moment.
    let third = async || Some(is_served(refrain.address()).await).filter(|(_, served)| *served);
    let _third = eventually("a third connection", third).await;
    let mut raw = Raw::connect(refrain.address()).await;
    raw.send("GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n").await;
    assert_eq!(raw.response().await.0, 0);
    assert_eq!(fake.posts(), 1);
}
