//! More requests than there is room for.

use std::sync::Arc;

use refrain_tests::fake::{Answer, FakeUpstream, Gate, openai};
use refrain_tests::{Ask, Config, Person, Refrain, Reply, eventually};
use serde_json::json;
use tokio::task::JoinHandle;

use super::{fakes, pool_of};

/// One server that does one thing at a time, and holds the first one back.
struct Busy {
    fakes: Vec<FakeUpstream>,
    refrain: Arc<Refrain>,
    gate: Gate,
}

impl Busy {
    async fn with(limits: &str, people: &[&Person]) -> Self {
        let fakes = fakes(1).await;
        let lines = format!("limits = {{ concurrency = 1, parallelism = 1, {limits} }}");
        let config = pool_of(&fakes, &lines);
        let config = if people.is_empty() { config } else { config.people(people) };
        let refrain = Refrain::start(&config).await;
        let gate = Gate::default();
        let message = json!({"role": "assistant", "content": "at last"});
        let answer = Answer::json(200, &openai::chat_whole(1, &message, "stop", 2));
        fakes[0].next(answer.gate(0, &gate));
        Self { fakes, refrain: Arc::new(refrain), gate }
    }

    /// Asks first, and waits until the server works at it.
    async fn first(&self, ask: Ask) -> JoinHandle<Reply> {
        let first = self.ask(ask);
        self.fakes[0].posted(1).await;
        first
    }

    #[expect(clippy::disallowed_methods, reason = "a client, which nothing drains")]
    fn ask(&self, ask: Ask) -> JoinHandle<Reply> {
        let refrain = self.refrain.clone();
        tokio::spawn(async move { refrain.send(&ask).await })
    }

    /// Waits until so many wait.
    async fn queued(&self, count: usize) {
        let look = async || {
            let metrics = self.refrain.metrics().await;
            let depth = metrics.sum("refrain_pool_queue_depth", &[("pool", "fleet")]);
            (depth == count as f64).then_some(())
        };
        eventually("requests in the queue", look).await;
    }
}

fn refused(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{}", reply.text());
    let wait: u64 = reply.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(reply.text().contains("busy"), "{}", reply.text());
}

#[tokio::test]
async fn requests_wait_for_room_and_one_too_many_is_told_when_to_come_back() {
    let busy = Busy::with("queue = 2", &[]).await;
    let first = busy.first(Ask::chat("first")).await;
    let waiting = [busy.ask(Ask::chat("second")), busy.ask(Ask::chat("third"))];
    busy.queued(2).await;
    refused(&busy.refrain.send(&Ask::chat("fourth")).await, 503);
    assert_eq!(busy.fakes[0].posts(), 1);
    busy.gate.open();
    for reply in [first].into_iter().chain(waiting) {
        assert_eq!(reply.await.unwrap().status, 200);
    }
    busy.queued(0).await;
}

#[tokio::test]
async fn nobody_waits_longer_than_the_pool_lets_them() {
    let busy = Busy::with("queue = 9, queue_timeout = \"300ms\"", &[]).await;
    let first = busy.first(Ask::chat("first")).await;
    refused(&busy.refrain.send(&Ask::chat("second")).await, 503);
    busy.gate.open();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(busy.refrain.send(&Ask::chat("third")).await.status, 200);
}

#[tokio::test]
async fn a_stale_answer_is_served_where_the_pool_is_full() {
    let fakes = fakes(1).await;
    let tables = format!(
        "[pool.fleet]\nendpoints = [{:?}]\nlimits = {{ concurrency = 1, parallelism = 1, queue = 0 }}\n\
         [route.fleet]\npool = \"fleet\"\npath = \"/v1\"\ncache.stale_if_error = \"10m\"\n",
        fakes[0].url()
    );
    let refrain = Arc::new(Refrain::start(&Config::new("http://127.0.0.1:1").tables(&tables)).await);
    let known = refrain.send(&Ask::chat("known")).await;
    let purge = Ask::post("/purge", json!({"everything": true, "soft": true}));
    assert_eq!(refrain.admin(&purge).await.status, 200);

    let gate = Gate::default();
    let message = json!({"role": "assistant", "content": "at last"});
    fakes[0].next(Answer::json(200, &openai::chat_whole(1, &message, "stop", 2)).gate(0, &gate));
    let busy = Busy { fakes, refrain, gate };
    let first = busy.ask(Ask::chat("first"));
    busy.fakes[0].posted(2).await;
    let stale = busy.refrain.send(&Ask::chat("known")).await;
    assert!(stale.cache_status().ends_with("detail=stale_if_error"), "{}", stale.cache_status());
    assert_eq!(stale.answer(), known.answer());
    refused(&busy.refrain.send(&Ask::chat("unknown")).await, 503);
    busy.gate.open();
    assert_eq!(first.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_is_never_asked_for() {
    let busy = Busy::with("queue = 2", &[]).await;
    let first = busy.first(Ask::chat("first")).await;
    let leaves = busy.ask(Ask::chat("second"));
    busy.queued(1).await;
    leaves.abort();
    busy.queued(0).await;
    busy.gate.open();
    first.await.unwrap();
    busy.refrain.send(&Ask::chat("third")).await;
    assert_eq!(busy.fakes[0].posts(), 2);
}

#[tokio::test]
async fn a_tenant_that_asks_for_much_waits_for_itself() {
    let (ann, bob) = (Person::new("ann", "acme"), Person::new("bob", "bolt"));
    let busy = Busy::with("queue = 4", &[&ann, &bob]).await;
    let first = busy.first(Ask::chat("first").by(&ann)).await;
    let mut many = Vec::new();
    for number in 0..4 {
        many.push(busy.ask(Ask::chat(&format!("of Ann {number}")).by(&ann)));
        busy.queued(number + 1).await;
    }
    // The queue is full of Ann's; Bob's takes the place of her last.
    let of_bob = busy.ask(Ask::chat("of Bob").by(&bob));
    refused(&many.pop().unwrap().await.unwrap(), 429);
    busy.gate.open();
    for reply in [first, of_bob].into_iter().chain(many) {
        assert_eq!(reply.await.unwrap().status, 200);
    }
    let sent = busy.fakes[0].requests("/v1/chat/completions");
    let at = sent.iter().position(|sent| sent.text().contains("of Bob")).unwrap();
    assert!(at <= 2, "Bob's is served in turn, not as the last: {at}");
}

#[tokio::test]
async fn who_is_refused_reads_so_in_its_own_dialect() {
    let busy = Busy::with("queue = 0", &[]).await;
    let first = busy.first(Ask::chat("first")).await;
    let reply = busy.refrain.send(&Ask::message("second")).await;
    refused(&reply, 503);
    assert_eq!(reply.json()["type"], "error");
    let reply = busy.refrain.send(&Ask::ollama_chat("third")).await;
    refused(&reply, 503);
    assert!(reply.json()["error"].is_string());
    busy.gate.open();
    first.await.unwrap();
}
