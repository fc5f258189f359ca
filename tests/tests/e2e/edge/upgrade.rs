//! Another version takes over while clients ask: none of their requests fails, and what is stored goes along.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use refrain_tests::fake::{FakeUpstream, Gate, openai};
use refrain_tests::{Ask, Client, Config, Raw, Refrain, Reply, eventually, within_time};
use tokio::task::JoinSet;

use crate::start_with;

/// Clients at once, of each kind.
const CLIENTS: usize = 4;
/// A start on a busy machine takes long.
const UPGRADE_DEADLINE: Duration = Duration::from_secs(90);

/// Clients that ask all the time, some by kept connections and some by new ones.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    clients: JoinSet<Vec<String>>,
}

impl Load {
    fn begin(address: SocketAddr) -> Self {
        let (stop, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(ask_on_kept(address, stop.clone(), asked.clone()));
            clients.spawn(ask_anew(address, stop.clone(), asked.clone()));
        }
        Self { stop, asked, clients }
    }

    /// Waits until so many more requests were answered.
    async fn answered(&self, more: usize) {
        let least = self.asked.load(Ordering::Relaxed) + more;
        let look = async || (self.asked.load(Ordering::Relaxed) >= least).then_some(());
        eventually("more answers", look).await;
    }

    /// Every request that failed.
    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await.concat()
    }
}

fn question(nth: usize) -> Ask {
    Ask::chat(&format!("question {}", nth % 50))
}

fn note(failures: &mut Vec<String>, asked: &AtomicUsize, reply: Result<Reply, String>) -> Option<Reply> {
    match reply {
        Ok(reply) if reply.status == 200 => {
            asked.fetch_add(1, Ordering::Relaxed);
            Some(reply)
        }
        Ok(reply) => {
            failures.push(format!("{}: {}", reply.status, reply.text()));
            None
        }
        Err(error) => {
            failures.push(error);
            None
        }
    }
}

/// Connects anew only when it is told to.
async fn ask_on_kept(address: SocketAddr, stop: Arc<AtomicBool>, asked: Arc<AtomicUsize>) -> Vec<String> {
    let (mut failures, mut kept) = (Vec::new(), None);
    for nth in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => match Client::http(address).connect().await {
                Ok(connection) => connection,
                Err(error) => {
                    failures.push(error);
                    continue;
                }
            },
        };
        let reply = connection.send(&question(nth)).await;
        let reply = note(&mut failures, &asked, reply);
        kept = reply.filter(|reply| reply.header("connection") != "close").map(|_| connection);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    failures
}

async fn ask_anew(address: SocketAddr, stop: Arc<AtomicBool>, asked: Arc<AtomicUsize>) -> Vec<String> {
    let mut failures = Vec::new();
    for nth in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // Every other one by HTTP/2.
        let client = if nth % 2 == 0 { Client::http(address) } else { Client::h2(address) };
        let reply = match client.try_open(&question(nth)).await {
            Ok(stream) => {
                let (status, headers) = (stream.status, stream.headers.clone());
                let (body, end) = stream.rest().await;
                end.map(|()| Reply { status, headers, body })
            }
            Err(error) => Err(error),
        };
        note(&mut failures, &asked, reply);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    failures
}

#[tokio::test]
async fn the_next_version_takes_over_the_address_and_the_store_and_no_request_fails() {
    let (fake, store) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let config = Config::new(&fake.url())
        .runtime("shutdown_delay = \"500ms\"")
        .tables(&format!("[store]\ndir = {:?}\nwhen_locked = \"wait\"", store.path()));
    let mut old = Refrain::start(&config).await;
    let before = old.send(&Ask::chat("before the upgrade")).await.answer();
    let load = Load::begin(old.address());
    load.answered(50).await;

    let next = within_time(UPGRADE_DEADLINE, "the next version", old.successor(&config)).await;
    assert_eq!(next.readiness().await["store"]["waits_for_dir"], true);
    assert_eq!(next.readiness().await["degraded"][0], "store");
    load.answered(50).await;
    old.sigterm();
    assert!(old.ended().await.success(), "{}", old.logs());
    load.answered(100).await;
    assert_eq!(load.end().await, [""; 0]);

    let has_store = async || (next.readiness().await["store"]["waits_for_dir"] == false).then_some(());
    eventually("the store's hand-over", has_store).await;
    let after = next.send(&Ask::chat("before the upgrade")).await;
    assert!(after.is_hit(), "{}", after.cache_status());
    assert_eq!(after.answer(), before);
}

#[tokio::test]
async fn what_is_stored_while_the_next_version_waits_for_the_store_is_kept() {
    let (fake, store) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let config = Config::new(&fake.url())
        .tables(&format!("[store]\ndir = {:?}\nwhen_locked = \"wait\"", store.path()));
    let holder = Refrain::start(&config).await;
    let next = Refrain::start(&config).await;
    let answer = next.send(&Ask::chat("while it waits")).await.answer();
    assert!(next.send(&Ask::chat("while it waits")).await.is_hit());
    // Nobody knows yet what is on disk, so nothing of it can be said to be gone.
    let purge = Ask::post("/purge", serde_json::json!({"everything": true}));
    assert_eq!(next.admin(&purge).await.status, 503);
    let mut holder = holder;
    holder.sigterm();
    holder.ended().await;
    next.logged(0, "what was stored while waiting is on disk").await;
    let next = next.restart().await;
    let reply = next.send(&Ask::chat("while it waits")).await;
    assert!(reply.is_hit(), "{}", reply.cache_status());
    assert_eq!(reply.answer(), answer);
}

#[tokio::test]
async fn what_the_version_before_purged_meanwhile_is_not_served_by_the_next() {
    let (fake, store) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let config = Config::new(&fake.url())
        .tables(&format!("[store]\ndir = {:?}\nwhen_locked = \"wait\"", store.path()));
    let mut holder = Refrain::start(&config).await;
    let next = Refrain::start(&config).await;
    next.send(&Ask::chat("to be purged")).await;
    assert!(next.send(&Ask::chat("to be purged")).await.is_hit());
    let purge = Ask::post("/purge", serde_json::json!({"everything": true}));
    assert_eq!(holder.admin(&purge).await.status, 200);
    holder.sigterm();
    holder.ended().await;
    next.logged(0, "is taken over").await;
    assert!(!next.send(&Ask::chat("to be purged")).await.is_hit());
    assert!(next.send(&Ask::chat("to be purged")).await.is_hit());
}

#[tokio::test]
async fn a_socket_of_the_service_manager_outlives_the_process_and_no_request_fails() {
    let fake = FakeUpstream::start().await;
    let config = Config::new(&fake.url()).runtime("shutdown_delay = \"300ms\"");
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut old = Refrain::start_with_socket(&config, &socket, "main").await;
    let load = Load::begin(old.address());
    load.answered(50).await;
    let next = within_time(
        UPGRADE_DEADLINE,
        "the next version",
        Refrain::start_with_socket(&config, &socket, "main"),
    )
    .await;
    old.sigterm();
    assert!(old.ended().await.success(), "{}", old.logs());
    load.answered(100).await;
    assert_eq!(load.end().await, [""; 0]);
    assert_eq!(next.send(&Ask::chat("still there?")).await.status, 200);
}

#[tokio::test]
async fn who_connects_between_two_processes_waits_for_the_next() {
    let fake = FakeUpstream::start().await;
    let config = Config::new(&fake.url());
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // By its address: systemd's default name is that of the unit.
    let mut old = Refrain::start_with_socket(&config, &socket, "refrain.socket").await;
    old.sigterm();
    assert!(old.ended().await.success());
    let mut early = Raw::connect(socket.local_addr().unwrap()).await;
    early.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let _next = Refrain::start_with_socket(&config, &socket, "refrain.socket").await;
    assert_eq!(early.response().await.0, 200);
}

#[tokio::test]
async fn a_stream_under_way_is_finished_by_the_version_that_began_it() {
    let fake = FakeUpstream::start().await;
    let config = Config::new(&fake.url());
    let mut old = Refrain::start(&config).await;
    let gate = Gate::default();
    fake.next(openai::chat_stream(&["first ", "second"], "stop").gate(3, &gate));
    let mut stream = old.open(&Ask::chat("long story").streamed()).await;
    stream.until("first ").await;
    let next = within_time(UPGRADE_DEADLINE, "the next version", old.successor(&config)).await;
    old.sigterm();
    old.logged(0, "draining").await;
    assert_eq!(next.send(&Ask::chat("meanwhile")).await.status, 200);
    gate.open();
    assert!(stream.whole().await.text().ends_with("data: [DONE]\n\n"));
    assert!(old.ended().await.success());
}

#[tokio::test]
async fn before_the_end_balancers_see_it_and_clients_are_told_while_requests_are_still_taken() {
    let (_fake, mut refrain) = start_with(|config| config.runtime("shutdown_delay = \"3s\"")).await;
    let mut kept = Client::http(refrain.address()).connect().await.unwrap();
    assert_eq!(kept.send(&Ask::chat("first")).await.unwrap().header("connection"), "");
    refrain.sigterm();
    refrain.logged(0, "draining").await;
    assert_eq!(refrain.admin(&Ask::get("/readyz")).await.status, 503);
    let last = kept.send(&Ask::chat("second")).await.unwrap();
    assert_eq!((last.status, last.header("connection").as_str()), (200, "close"));
    assert_eq!(refrain.send(&Ask::chat("by a new connection")).await.status, 200);
    assert!(refrain.ended().await.success());
}

/// What the process has told the service manager, as far as it has come.
struct Manager {
    socket: UnixDatagram,
    told: Vec<String>,
}

impl Manager {
    fn new(path: &std::path::Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, told: Vec::new() }
    }

    /// Waits for a message that begins so, and gives it.
    async fn hears(&mut self, message: &str) -> String {
        eventually(message, async || {
            let mut buffer = [0; 1000];
            while let Ok(length) = self.socket.recv(&mut buffer) {
                self.told.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
            let at = self.told.iter().position(|told| told.starts_with(message))?;
            self.told.drain(..=at).next_back()
        })
        .await
    }
}

#[tokio::test]
async fn the_service_manager_is_told_how_far_the_process_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let mut manager = Manager::new(&path);
    let (_fake, mut refrain) = start_with(|config| {
        config.env("NOTIFY_SOCKET", path.to_str().unwrap()).env("WATCHDOG_USEC", "3000000")
    })
    .await;
    manager.hears("READY=1").await;
    manager.hears("WATCHDOG=1").await;
    refrain.reload().await;
    manager.hears("RELOADING=1").await;
    manager.hears("READY=1").await;
    refrain.sigterm();
    manager.hears("STOPPING=1").await;
    assert!(refrain.ended().await.success());
}

/// The clock that systemd compares with, in microseconds.
fn monotonic_micros() -> u128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.try_into().unwrap(), now.tv_nsec.try_into().unwrap()).as_micros()
}

#[tokio::test]
async fn a_service_manager_that_asks_for_a_reload_hears_when_it_began_and_how_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let mut manager = Manager::new(&path);
    let (_fake, refrain) = start_with(|config| config.env("NOTIFY_SOCKET", path.to_str().unwrap())).await;
    manager.hears("READY=1").await;
    for _ in 0..2 {
        // systemd ignores a reload that began before it asked for one.
        let asked = monotonic_micros();
        refrain.sighup();
        let told = manager.hears("RELOADING=1").await;
        let began: u128 =
            told.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap().parse().unwrap();
        assert!((asked..=monotonic_micros()).contains(&began), "{began}, asked at {asked}");
        manager.hears("READY=1\nSTATUS=serving").await;
    }
    refrain.write_config_text("nonsense");
    refrain.sighup();
    let told = manager.hears("READY=1\nSTATUS=serving by the former configuration").await;
    assert!(told.contains("refused"), "{told}");
    assert_eq!(refrain.send(&Ask::chat("still served?")).await.status, 200);
}

#[tokio::test]
async fn a_reload_that_is_asked_for_before_it_is_ready_ends_nobody_and_is_done_then() {
    // It accepts and never answers: the start waits for it, a while.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut refrain = Refrain::start_alive(&Config::new(&url)).await;
    refrain.sighup();
    refrain.ready().await;
    refrain.logged(0, "configuration reloaded").await;
}
