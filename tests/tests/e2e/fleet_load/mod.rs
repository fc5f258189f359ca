//! Pools of several servers under load: real ones, fakes that break, and more clients than they have room for.

mod chaos;
mod overload;
#[expect(clippy::print_stdout, reason = "figures, for whoever runs it by hand")]
mod real_llm;

use std::net::SocketAddr;

use refrain_tests::fake::{Answer, Recorded, anthropic, ollama, openai};
use refrain_tests::{Ask, Metrics, Refrain};

/// The answer of a fake server, in the dialect of who asks.
fn answer(request: &Recorded, nth: u64) -> Answer {
    let body = request.json();
    match request.path.as_str() {
        "/v1/messages" => anthropic::message(&body, nth),
        "/api/chat" => ollama::chat(&body, nth),
        _ => openai::chat(&body, nth),
    }
}

/// Counters of one endpoint of the pool.
struct Endpoint<'m> {
    metrics: &'m Metrics,
    name: String,
}

impl<'m> Endpoint<'m> {
    fn at(metrics: &'m Metrics, address: SocketAddr) -> Self {
        Self { metrics, name: address.to_string() }
    }

    fn value(&self, metric: &str) -> f64 {
        self.metrics.sum(metric, &[("endpoint", &self.name)])
    }

    fn requests(&self) -> f64 {
        self.value("refrain_upstream_requests_total")
    }

    fn is_healthy(&self) -> bool {
        self.value("refrain_upstream_healthy") > 0.0
    }
}

/// Which of these endpoints answers a request: the one that is asked each of several times.
async fn who_answers(refrain: &Refrain, addresses: &[SocketAddr], ask: &Ask) -> SocketAddr {
    /// More than there are looks at an endpoint's health meanwhile.
    const TIMES: u32 = 12;
    let before = refrain.metrics().await;
    for _ in 0..TIMES {
        let reply = refrain.send(ask).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let after = refrain.metrics().await;
    let asked = |&&address: &&SocketAddr| {
        let new = Endpoint::at(&after, address).requests() - Endpoint::at(&before, address).requests();
        new >= TIMES.into()
    };
    let asked: Vec<_> = addresses.iter().filter(asked).collect();
    let [one] = asked[..] else { panic!("not one, but {asked:?}:\n{}", after.text()) };
    *one
}
