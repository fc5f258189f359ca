//! Several proxies in front of the same servers share their limits: through Redis, each knows how many there are.

use refrain_tests::fake::{FakeUpstream, Gate, openai};
use refrain_tests::redis::{Flavour, RedisServer};
use refrain_tests::{Ask, Client, Config, Refrain, eventually};
use tempfile::TempDir;
use tokio::task::JoinSet;

const PROXIES: &str = "refrain_fleet_proxies";

/// What proxies have in common.
struct Site {
    fake: FakeUpstream,
    redis: RedisServer,
    dir: TempDir,
}

impl Site {
    async fn start() -> Self {
        let (fake, redis) = (FakeUpstream::start().await, RedisServer::start(Flavour::Plain).await);
        Self { fake, redis, dir: tempfile::tempdir().unwrap() }
    }

    /// A proxy with room for four requests at the server.
    async fn proxy(&self) -> Refrain {
        let lines = format!("url = {:?}\ntimeout = \"2s\"\nconnect_timeout = \"5s\"", self.redis.url());
        let config = Config::new(&self.fake.url())
            .pool("limits = { concurrency = 4, queue = 16 }")
            .redis(&self.dir.path().join("cache.secret"), &lines);
        Refrain::start(&config).await
    }

    /// Answers wait from now on until the gate is opened.
    fn hold(&self) -> Gate {
        let gate = Gate::default();
        let held = gate.clone();
        self.fake.always(move |request| openai::chat(&request.json(), 1).gate(1, &held));
        gate
    }
}

async fn counts(refrain: &Refrain, proxies: u32) {
    let found = async || {
        let counted = refrain.metrics().await.sum(PROXIES, &[]);
        ((counted - f64::from(proxies)).abs() < 0.5).then_some(())
    };
    eventually(&format!("{proxies} proxies"), found).await;
}

/// Sends six questions, and waits until this many of them are at the server and the others wait.
async fn crowd(refrain: &Refrain, name: &str, in_flight: u32) -> JoinSet<u16> {
    let client = Client::http(refrain.address());
    let mut asks = JoinSet::new();
    for nth in 0..6 {
        let (client, ask) = (client.clone(), Ask::chat(&format!("{name} {nth}")));
        asks.spawn(async move { client.send(&ask).await.status });
    }
    settled(refrain, in_flight).await;
    asks
}

/// Waits until so many of six are in flight: the others wait, so it isn't on its way to more.
async fn settled(refrain: &Refrain, in_flight: u32) {
    eventually(&format!("{in_flight} of 6 in flight"), async || {
        let scaling = refrain.admin(&Ask::get("/scaling")).await.json();
        let pool = &scaling["pools"]["llm"];
        (pool["in_flight"] == in_flight && pool["queue_depth"] == 6 - in_flight).then_some(())
    })
    .await;
}

async fn done(mut asks: JoinSet<u16>) {
    while let Some(status) = asks.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
}

#[tokio::test]
async fn fleet_of_two_proxies_sends_no_more_than_the_limit_and_one_that_stays_has_it_all() {
    let site = Site::start().await;
    let a = site.proxy().await;
    counts(&a, 1).await;
    let mut b = site.proxy().await;
    for proxy in [&a, &b] {
        counts(proxy, 2).await;
    }
    let gate = site.hold();
    let (of_a, of_b) = (crowd(&a, "a", 2).await, crowd(&b, "b", 2).await);
    gate.open();
    done(of_a).await;
    done(of_b).await;

    let gate = site.hold();
    let of_a = crowd(&a, "again", 2).await;
    b.sigterm();
    assert!(b.ended().await.success(), "{}", b.logs());
    settled(&a, 4).await;
    assert_eq!(a.admin(&Ask::get("/upstreams")).await.json()["proxies"], 1);
    gate.open();
    done(of_a).await;
}

#[tokio::test]
async fn fleet_count_survives_a_lost_redis_and_forgets_a_proxy_that_was_killed() {
    let mut site = Site::start().await;
    let a = site.proxy().await;
    let b = site.proxy().await;
    counts(&a, 2).await;
    site.redis.kill9();
    eventually("a proxy without Redis", async || {
        (a.metrics().await.sum("refrain_store_redis_up", &[]) < 0.5).then_some(())
    })
    .await;
    counts(&a, 2).await;
    site.redis.start_again().await;
    eventually("a proxy with Redis", async || {
        (a.metrics().await.sum("refrain_store_redis_up", &[]) > 0.5).then_some(())
    })
    .await;
    assert!(
        (a.metrics().await.sum(PROXIES, &[]) - 2.0).abs() < 0.5,
        "Redis has forgotten, and nobody has left"
    );
    let b = b.kill9_and_restart().await;
    counts(&a, 2).await;
    drop(b);
    counts(&a, 1).await;
}
