//! Five times as many clients as a pool has room for: those that are served are as many as ever, the others are told so and
//! when to come back, nobody starves, and memory stays what it was.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use refrain_tests::fake::FakeUpstream;
use refrain_tests::{Ask, Client, Config, Person, Refrain, within_time};
use tokio::task::JoinSet;

use super::answer;

const SERVERS: usize = 2;
/// Requests that a server takes at once.
const CONCURRENCY: usize = 4;
const CAPACITY: usize = SERVERS * CONCURRENCY;
/// How long an answer takes.
const SERVICE: Duration = Duration::from_millis(150);
/// For how long answers are counted.
const WHILE: Duration = Duration::from_secs(4);
/// How soon a client that was refused comes back: it is told a second.
const PATIENCE: Duration = Duration::from_millis(200);

/// What clients of one tenant saw.
#[derive(Clone, Default)]
struct Clients {
    served: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

/// A pool of slow servers, and clients that ask it over and over.
struct Stage {
    refrain: Refrain,
    fakes: Vec<FakeUpstream>,
    stops: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Stage {
    async fn start(people: &[&Person]) -> Self {
        let mut fakes = Vec::new();
        for _ in 0..SERVERS {
            let fake = FakeUpstream::start().await;
            let mut nth = 0;
            fake.always(move |request| {
                nth += 1;
                answer(request, nth).pause(0, SERVICE)
            });
            fakes.push(fake);
        }
        let urls: Vec<String> = fakes.iter().map(FakeUpstream::url).collect();
        let limits = format!(
            "limits = {{ concurrency = {CONCURRENCY}, parallelism = 2, queue = {CAPACITY}, queue_timeout = \"5s\" }}\n\
             tenancy = \"shared\""
        );
        let config = Config::new("").upstreams(&urls).pool(&limits).without_cache().route("cache = false");
        let refrain = Refrain::start(&config.people(people).quiet()).await;
        Self { refrain, fakes, stops: Arc::default(), clients: JoinSet::new() }
    }

    /// So many clients of this person.
    fn ask_as(&mut self, person: &Person, count: usize) -> Clients {
        let clients = Clients::default();
        for nth in 0..count {
            let (address, stops, seen) = (self.refrain.address(), self.stops.clone(), clients.clone());
            let person = person.clone();
            self.clients.spawn(async move {
                for turn in 0.. {
                    if stops.load(Relaxed) {
                        return;
                    }
                    one(address, &person, &format!("client {nth}, turn {turn}"), turn + nth, &seen).await;
                }
            });
        }
        clients
    }

    /// How many of them are served while answers are counted.
    async fn served<const N: usize>(&self, clients: [&Clients; N]) -> [usize; N] {
        let before = clients.map(|clients| clients.served.load(Relaxed));
        tokio::time::sleep(WHILE).await;
        std::array::from_fn(|nth| clients[nth].served.load(Relaxed) - before[nth])
    }

    /// Resident memory in MiB.
    async fn resident(&self) -> f64 {
        self.refrain.metrics().await.sum("refrain_process_resident_memory_bytes", &[]) / 1024.0 / 1024.0
    }

    async fn stop(self) {
        self.stops.store(true, Relaxed);
        within_time(Duration::from_secs(30), "the clients' end", self.clients.join_all()).await;
        for fake in &self.fakes {
            assert!(fake.peak_in_flight() <= CONCURRENCY, "{} at once", fake.peak_in_flight());
        }
    }
}

/// Asks once, in a dialect by turns.
async fn one(address: SocketAddr, person: &Person, text: &str, turn: usize, seen: &Clients) {
    let asks = Ask::each_dialect(text);
    let ask = asks[turn % asks.len()].clone().by(person);
    let reply = Client::http(address).send(&ask).await;
    if reply.status == 200 {
        seen.served.fetch_add(1, Relaxed);
        return;
    }
    assert!([429, 503].contains(&reply.status), "{} {}", reply.status, reply.text());
    let wait: u64 = reply.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    let error = &reply.json()["error"];
    let is_in_dialect = match ask.path() {
        "/api/chat" => error.is_string(),
        "/v1/messages" => reply.json()["type"] == "error" && error["message"].is_string(),
        _ => error["message"].is_string() && error["type"].is_string(),
    };
    assert!(is_in_dialect, "{}", reply.text());
    seen.refused.fetch_add(1, Relaxed);
    tokio::time::sleep(PATIENCE).await;
}

#[tokio::test]
async fn overload_costs_neither_goodput_nor_memory() {
    let ann = Person::new("ann", "acme");
    let mut stage = Stage::start(&[&ann]).await;
    let few = stage.ask_as(&ann, CAPACITY);
    let [peak] = stage.served([&few]).await;
    let many = stage.ask_as(&ann, 4 * CAPACITY);
    stage.served([&many]).await;
    let resident = stage.resident().await;
    let [before, after] = stage.served([&few, &many]).await;
    let grown = stage.resident().await - resident;
    let refused = few.refused.load(Relaxed) + many.refused.load(Relaxed);
    println!(
        "{peak} served at capacity, {} at five times as many clients; {refused} refused",
        before + after
    );
    println!("{resident:.1} MiB, then {grown:.1} more");
    assert!((before + after) * 10 >= peak * 9, "{} of {peak}", before + after);
    assert!(refused > CAPACITY, "{refused}: that is no overload");
    assert!(grown < 8.0, "{grown} MiB");
    stage.stop().await;
}

#[tokio::test]
async fn a_tenant_with_ten_times_the_clients_does_not_starve_another() {
    const FEW: usize = CAPACITY / 2;
    let (ann, bob) = (Person::new("ann", "acme"), Person::new("bob", "zenith"));
    let mut stage = Stage::start(&[&ann, &bob]).await;
    let crowd = stage.ask_as(&ann, 10 * FEW);
    stage.served([&crowd]).await;
    let few = stage.ask_as(&bob, FEW);
    let [crowd_served, few_served] = stage.served([&crowd, &few]).await;
    let refused = few.refused.load(Relaxed);
    println!("{crowd_served} of the crowd served, {few_served} of the few and {refused} refused");
    // Fair is what both want, or a half each: what the few want is less, since they ask again only when served.
    assert!(few_served * 3 >= crowd_served, "{few_served} beside {crowd_served}");
    assert_eq!(refused, 0);
    stage.stop().await;
}
