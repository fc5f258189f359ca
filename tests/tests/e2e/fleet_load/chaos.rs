//! Clients of every dialect ask a pool of fake servers that are late, reset connections, never answer, come and go: nothing is
//! lost, nobody waits for ever, and no server gets more than it takes.

use std::net::SocketAddr;
use std::time::Duration;

use refrain_tests::fake::{Answer, FakeUpstream, Gate, Recorded, ollama};
use refrain_tests::{Ask, Client, Config, Metrics, Random, Refrain, eventually, within_time};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::answer;

const SERVERS: usize = 4;
/// Requests that a server takes at once.
const CONCURRENCY: usize = 4;
const CLIENTS: usize = 24;
/// Of each client in each part.
const ASKS: usize = 6;

/// How a server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Well,
    /// Some of its answers are reset anywhere.
    Resets,
    /// Takes requests and never answers.
    BlackHole,
    /// Each piece takes long.
    Slow,
    /// Says that it can't now.
    Busy,
}

/// A server in the dialect of who asks.
fn answers(manner: Manner, mut random: Random) -> impl FnMut(&Recorded) -> Answer + Send + 'static {
    move |request| {
        let pause = Duration::from_millis(random.next() % 8);
        let well = answer(request, random.next() % 1_000).paced(pause);
        match manner {
            Manner::Well => well,
            Manner::Resets if random.below(2) == 0 => well.reset_after(random.below(1_500)),
            Manner::Resets => well,
            Manner::BlackHole => Answer::never(),
            Manner::Slow => well.paced(Duration::from_millis(60)),
            Manner::Busy if random.below(2) == 0 => well,
            Manner::Busy => busy(request),
        }
    }
}

/// What a server says that is full. It reaches the client where nobody else has room.
fn busy(request: &Recorded) -> Answer {
    let error = json!({"type": "overloaded_error", "message": "full"});
    match request.path.as_str() {
        "/api/chat" => ollama::busy(),
        _ => Answer::json(503, &json!({"type": "error", "error": error})),
    }
}

struct Chaos {
    refrain: Refrain,
    fakes: Vec<Option<FakeUpstream>>,
    addresses: Vec<SocketAddr>,
    random: Random,
}

impl Chaos {
    async fn start() -> Self {
        let mut fakes = Vec::new();
        for _ in 0..SERVERS {
            fakes.push(FakeUpstream::start().await);
        }
        let urls: Vec<String> = fakes.iter().map(FakeUpstream::url).collect();
        let limits = format!(
            "limits = {{ concurrency = {CONCURRENCY}, parallelism = 2, queue = 64, queue_timeout = \"3s\" }}\n\
             timeouts = {{ connect = \"500ms\", first_byte = \"1s\", idle = \"1s\", total = \"10s\" }}\n\
             health = {{ interval = \"200ms\", ejection = \"300ms\", slow_start = \"300ms\" }}"
        );
        let config = Config::new("").upstreams(&urls).pool(&limits).without_cache().route("cache = false");
        let refrain = Refrain::start(&config.quiet()).await;
        let addresses = fakes.iter().map(FakeUpstream::address).collect();
        let mut chaos =
            Self { refrain, fakes: fakes.into_iter().map(Some).collect(), addresses, random: Random(42) };
        chaos.all(Manner::Well).await;
        chaos
    }

    /// From now on, this server behaves so.
    async fn set(&mut self, nth: usize, manner: Manner) {
        if self.fakes[nth].is_none() {
            self.fakes[nth] = Some(FakeUpstream::start_at(self.addresses[nth]).await);
        }
        let random = Random(self.random.next());
        self.fakes[nth].as_ref().unwrap().always(answers(manner, random));
    }

    async fn all(&mut self, manner: Manner) {
        for nth in 0..SERVERS {
            self.set(nth, manner).await;
        }
    }

    /// It is gone: its connections break, and nobody listens.
    fn stop(&mut self, nth: usize) {
        if let Some(gone) = self.fakes[nth].take() {
            assert!(gone.peak_in_flight() <= CONCURRENCY, "{} at once", gone.peak_in_flight());
        }
    }

    /// All clients ask so often as they do in a part; gives what they saw.
    fn clients(&mut self) -> JoinSet<Vec<Seen>> {
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(client(self.refrain.address(), Random(self.random.next())));
        }
        clients
    }

    async fn asked(&mut self) -> Tally {
        ended(self.clients()).await
    }

    /// Nothing is left of what was: no load, nobody who waits.
    async fn is_at_rest(&self) {
        let look = async || is_at_rest(&self.refrain.metrics().await).then_some(());
        eventually("no load and an empty queue", look).await;
        let crowded = self.fakes.iter().flatten().map(FakeUpstream::peak_in_flight).max();
        assert!(crowded <= Some(CONCURRENCY), "{crowded:?} at once");
    }

    /// As many requests at once as all servers take, all at once, and one more that waits.
    async fn takes_a_full_burst(&mut self) {
        let gate = Gate::default();
        eventually("every server's return", async || {
            let metrics = self.refrain.metrics().await;
            (metrics.sum("refrain_upstream_healthy", &[]) >= SERVERS as f64).then_some(())
        })
        .await;
        for fake in self.fakes.iter().flatten() {
            let gate = gate.clone();
            fake.always(move |request| answer(request, 1).gate(0, &gate));
        }
        let mut clients = JoinSet::new();
        for nth in 0..=SERVERS * CONCURRENCY {
            let (address, ask) = (self.refrain.address(), Ask::chat(&format!("burst {nth}")));
            clients.spawn(async move { Client::http(address).send(&ask).await.status });
        }
        for fake in self.fakes.iter().flatten() {
            fake.answers_at_once(CONCURRENCY).await;
        }
        gate.open();
        let statuses = within_time(Duration::from_secs(20), "the burst's answers", clients.join_all()).await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    }
}

fn is_at_rest(metrics: &Metrics) -> bool {
    let gauges = [
        "refrain_upstream_in_flight_requests",
        "refrain_pool_in_flight_prompt_tokens",
        "refrain_pool_queue_depth",
    ];
    gauges.iter().all(|gauge| metrics.has(gauge) && metrics.sum(gauge, &[]) == 0.0)
}

/// What a client saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Whole,
    /// An answer that broke off, and said so: a stream by an error event, a whole one by its length.
    BrokenOff,
    /// An error in the client's dialect.
    Refused(u16),
    /// It left by itself.
    Left,
}

#[derive(Debug, Default)]
struct Tally {
    whole: usize,
    broken_off: usize,
    refused: usize,
}

async fn ended(clients: JoinSet<Vec<Seen>>) -> Tally {
    let all = within_time(Duration::from_secs(90), "the clients' end", clients.join_all()).await;
    let all: Vec<Seen> = all.into_iter().flatten().collect();
    let count = |wanted: fn(&Seen) -> bool| all.iter().filter(|seen| wanted(seen)).count();
    let tally = Tally {
        whole: count(|seen| *seen == Seen::Whole),
        broken_off: count(|seen| *seen == Seen::BrokenOff),
        refused: count(|seen| matches!(seen, Seen::Refused(_))),
    };
    assert_eq!(all.len(), CLIENTS * ASKS);
    tally
}

async fn client(address: SocketAddr, mut random: Random) -> Vec<Seen> {
    let mut seen = Vec::new();
    for _ in 0..ASKS {
        let (long, pieces) = ("long-".repeat(random.below(400)), "piece ".repeat(random.below(8)));
        let [chat, ollama, message] = Ask::each_dialect(&format!("{pieces}{long}{}", random.next() % 50));
        let ask = match random.below(3) {
            0 => chat,
            1 => ollama,
            _ => message,
        };
        let is_streamed = random.below(3) > 0;
        let ask = if is_streamed { ask.streamed() } else { ask };
        seen.push(one(address, &ask, is_streamed, random.below(8) == 0).await);
    }
    seen
}

/// Asks once.
async fn one(address: SocketAddr, ask: &Ask, is_streamed: bool, leaves: bool) -> Seen {
    let mut stream = match Client::http(address).try_open(ask).await {
        Ok(stream) => stream,
        // A whole answer that breaks off at once may take its head with it.
        Err(_) if !is_streamed => return Seen::BrokenOff,
        Err(error) => panic!("no head of a stream: {error}"),
    };
    if leaves {
        // Whatever comes first.
        let _ = stream.try_chunk().await;
        return Seen::Left;
    }
    let (status, headers) = (stream.status, stream.headers.clone());
    let (body, end) = stream.rest().await;
    let text = String::from_utf8_lossy(&body).into_owned();
    if status != 200 {
        assert_eq!(end, Ok(()), "{status} {text}");
        assert!([429, 502, 503, 504].contains(&status), "{status} {text}");
        assert!(error_message(ask, &text), "{status} {text}");
        return Seen::Refused(status);
    }
    let kind = headers["content-type"].to_str().unwrap();
    let is_stream = kind.starts_with("text/event-stream") || kind.starts_with("application/x-ndjson");
    if !is_stream {
        let is_whole = end.is_ok() && serde_json::from_slice::<Value>(&body).is_ok();
        assert!(is_whole || end.is_err(), "{end:?} after {text}");
        return if is_whole { Seen::Whole } else { Seen::BrokenOff };
    }
    let is_terminated = [openai_end, anthropic_end, ollama_end].iter().any(|is_end| is_end(&text));
    let has_error = last_event(&text).is_some_and(|event| is_error(&event));
    assert!(is_terminated != has_error, "{end:?} after {text}");
    assert!(end.is_ok() || has_error, "{end:?} after {text}");
    if is_terminated { Seen::Whole } else { Seen::BrokenOff }
}

fn openai_end(text: &str) -> bool {
    text.ends_with("data: [DONE]\n\n")
}

fn anthropic_end(text: &str) -> bool {
    last_event(text).is_some_and(|event| event["type"] == "message_stop")
}

fn ollama_end(text: &str) -> bool {
    last_event(text).is_some_and(|event| event["done"] == true)
}

/// The JSON of the last line.
fn last_event(text: &str) -> Option<Value> {
    let line = text.trim_end().lines().last()?;
    serde_json::from_str(line.strip_prefix("data:").unwrap_or(line)).ok()
}

fn is_error(event: &Value) -> bool {
    event["error"].is_string() || event["error"]["message"].is_string()
}

/// Whether an error has the shape of the dialect.
fn error_message(ask: &Ask, text: &str) -> bool {
    let Ok(body) = serde_json::from_str::<Value>(text) else { return false };
    match ask.path() {
        "/api/chat" => body["error"].is_string(),
        "/v1/messages" => body["type"] == "error" && body["error"]["message"].is_string(),
        _ => body["error"]["message"].is_string(),
    }
}

#[tokio::test]
async fn nothing_is_lost_whatever_the_servers_do() {
    let mut chaos = Chaos::start().await;

    let well = chaos.asked().await;
    assert_eq!((well.broken_off, well.refused), (0, 0), "{well:?}");
    chaos.is_at_rest().await;

    chaos.set(0, Manner::Resets).await;
    chaos.set(1, Manner::Slow).await;
    chaos.set(2, Manner::Busy).await;
    let resets = chaos.asked().await;
    chaos.is_at_rest().await;

    chaos.all(Manner::Well).await;
    chaos.set(2, Manner::BlackHole).await;
    let black_hole = chaos.asked().await;
    chaos.is_at_rest().await;

    let flaps = chaos.flaps().await;
    chaos.is_at_rest().await;

    for nth in 0..SERVERS {
        chaos.stop(nth);
    }
    let down = chaos.asked().await;
    assert_eq!((down.whole, down.broken_off), (0, 0), "{down:?}");
    chaos.is_at_rest().await;

    chaos.all(Manner::Well).await;
    chaos.takes_a_full_burst().await;
    chaos.is_at_rest().await;
    println!("well {well:?}\nresets {resets:?}\nblack hole {black_hole:?}\nflaps {flaps:?}\ndown {down:?}");
    for (part, tally) in [("resets", resets), ("black hole", black_hole), ("flaps", flaps)] {
        assert!(tally.whole > CLIENTS * ASKS / 4, "{part}: {tally:?}");
    }
}

impl Chaos {
    /// Servers go and come back, one after another, while clients ask.
    async fn flaps(&mut self) -> Tally {
        self.all(Manner::Well).await;
        let mut clients = self.clients();
        let mut all = Vec::new();
        let mut turns = tokio::time::interval(Duration::from_millis(120));
        for turn in 0.. {
            let nth = turn / 2 % SERVERS;
            tokio::select! {
                seen = clients.join_next() => match seen {
                    Some(seen) => all.push(seen.unwrap()),
                    None => break,
                },
                _ = turns.tick() => {
                    if self.fakes[nth].is_some() { self.stop(nth) } else { self.set(nth, Manner::Well).await }
                }
            }
        }
        let mut done = JoinSet::new();
        for seen in all {
            done.spawn(async move { seen });
        }
        let tally = ended(done).await;
        self.all(Manner::Well).await;
        tally
    }
}
