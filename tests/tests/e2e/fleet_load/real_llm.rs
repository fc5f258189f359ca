//! Three real llama.cpp servers behind one pool: how much of their prompt caches agents find, and what anybody notices of one
//! that dies and comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use refrain_tests::{Ask, Client, Config, RealLlm, Refrain, eventually, within_time};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Endpoint, who_answers};

const SERVERS: usize = 3;
/// Not a multiple of the servers: turns would give each agent a server of its own.
const AGENTS: usize = 4;
const TURNS: usize = 8;
const RULES: usize = 12;

async fn servers() -> Vec<RealLlm> {
    let mut servers = Vec::new();
    for _ in 0..SERVERS {
        servers.push(RealLlm::of_fleet(AGENTS).await);
    }
    servers
}

fn addresses(servers: &[RealLlm]) -> Vec<SocketAddr> {
    servers.iter().map(RealLlm::address).collect()
}

fn config(servers: &[RealLlm]) -> Config {
    let urls: Vec<String> = servers.iter().map(RealLlm::url).collect();
    Config::new("").upstreams(&urls).without_cache().route("cache = false")
}

/// The system prompt of all agents of a run.
fn rules(run: &str) -> String {
    let rule = |nth| format!("Rule {nth} of {run}: when tool {nth} fails, say so and try the next one. ");
    (1..=RULES).map(rule).collect()
}

fn ask(messages: &[Value], tokens: u32) -> Ask {
    let body = json!({"model": "gemma", "messages": messages, "max_tokens": tokens, "temperature": 0});
    Ask::post("/v1/chat/completions", body)
}

/// Runs all agents, a turn of each after another, as clients of one server or proxy. Sums up the tokens of prompts that the
/// servers say they had.
async fn agents(run: &str, address: SocketAddr, dress: impl Fn(Ask) -> Ask) -> u64 {
    let mut conversations: Vec<_> =
        (0..AGENTS).map(|_| vec![json!({"role": "system", "content": rules(run)})]).collect();
    let (mut cached, mut prompts) = (0, 0);
    for turn in 1..=TURNS {
        for (agent, messages) in conversations.iter_mut().enumerate() {
            let said = format!(
                "Agent {agent}, step {turn}: the tool found {} files, read {} lines of the first and {} of the \
                 last, and ended with status {turn}. What is the next step?",
                agent * 31 + turn,
                turn * 173,
                agent * 57 + 7
            );
            messages.push(json!({"role": "user", "content": said}));
            let reply = Client::http(address).send(&dress(ask(messages, 6))).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            let usage = &reply.json()["usage"];
            cached += usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
            prompts += usage["prompt_tokens"].as_u64().unwrap();
            messages.push(json!({"role": "assistant", "content": reply.answer()}));
        }
    }
    println!("{run}: {cached} of {prompts} tokens cached");
    cached
}

#[tokio::test]
async fn agents_find_what_one_server_alone_would_have_cached_and_turns_do_not() {
    let servers = servers().await;
    let urls: Vec<String> = servers.iter().map(RealLlm::url).collect();
    let in_turn = format!(
        "[pool.turns]\nbalance = \"round-robin\"\nendpoints = {urls:?}\n\
         [route.turns]\npool = \"turns\"\nheaders = {{ x-balance = \"turns\" }}\ncache = false\n"
    );
    let refrain = Refrain::start(&config(&servers).tables(&in_turn)).await;
    let alone = agents("one alone", servers[0].address(), |ask| ask).await;
    let fleet = agents("the fleet", refrain.address(), |ask| ask).await;
    let turns = agents("in turn", refrain.address(), |ask| ask.header("x-balance", "turns")).await;
    assert!(fleet * 100 >= alone * 95, "{fleet} of {alone}");
    assert!(turns * 100 <= alone * 80, "{turns} of {alone}");
    let metrics = refrain.metrics().await;
    let busy = addresses(&servers);
    let busy = busy.iter().filter(|&&address| Endpoint::at(&metrics, address).requests() > 20.0).count();
    assert!(busy >= 2, "all agents at one server:\n{}", metrics.text());
}

/// What a client saw of a streamed answer that began.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Whole,
    /// By the dialect's error event.
    WithError,
    Otherwise(String),
}

/// Clients of many sessions that ask one thing after another.
#[derive(Clone, Default)]
struct Load {
    done: Arc<AtomicUsize>,
    stops: Arc<AtomicBool>,
}

fn session(name: &str) -> impl Fn(Ask) -> Ask {
    let name = name.to_owned();
    move |ask| ask.header("x-session-id", &name)
}

fn question(text: &str, tokens: u32) -> Ask {
    ask(&[json!({"role": "user", "content": text})], tokens)
}

/// Reads a stream to its end.
async fn ended(address: SocketAddr, ask: &Ask) -> Ended {
    let stream = match Client::http(address).try_open(ask).await {
        Ok(stream) if stream.status == 200 => stream,
        Ok(stream) => return Ended::Otherwise(format!("status {}", stream.status)),
        Err(error) => return Ended::Otherwise(error),
    };
    let (body, end) = stream.rest().await;
    let text = String::from_utf8_lossy(&body).into_owned();
    match end {
        Ok(()) if text.ends_with("data: [DONE]\n\n") => Ended::Whole,
        _ if is_error_event(text.trim_end().lines().last()) => Ended::WithError,
        end => Ended::Otherwise(format!("{end:?} after {text:?}")),
    }
}

fn is_error_event(line: Option<&str>) -> bool {
    let data = line.and_then(|line| line.strip_prefix("data: "));
    let event: Option<Value> = data.and_then(|data| serde_json::from_str(data).ok());
    event.is_some_and(|event| event["error"]["message"].is_string())
}

impl Load {
    async fn run(self, address: SocketAddr, name: String) -> Vec<Ended> {
        let mut all = Vec::new();
        while !self.stops.load(Relaxed) {
            let ask = session(&name)(question(&format!("{name} counts to {}:", all.len()), 8)).streamed();
            all.push(ended(address, &ask).await);
            self.done.fetch_add(1, Relaxed);
        }
        all
    }

    /// Waits for so many more answers.
    async fn goes_on(&self, count: usize) {
        let least = self.done.load(Relaxed) + count;
        eventually("more answers", async || (self.done.load(Relaxed) >= least).then_some(())).await;
    }
}

#[tokio::test]
async fn a_server_that_is_killed_breaks_only_streams_that_had_begun_and_gets_its_keys_back() {
    const CLIENTS: usize = 4;
    let mut servers = servers().await;
    let health = "health = { interval = \"500ms\", ejection = \"2s\", slow_start = \"1s\" }";
    let refrain = Refrain::start(&config(&servers).pool(health)).await;
    let addresses = addresses(&servers);
    let probe = session("ann")(question("Say yes.", 1));
    let home = who_answers(&refrain, &addresses, &probe).await;
    let victim = servers.iter_mut().find(|server| server.address() == home).unwrap();

    let (load, mut clients) = (Load::default(), JoinSet::new());
    for nth in 0..CLIENTS {
        clients.spawn(load.clone().run(refrain.address(), format!("client-{nth}")));
    }
    load.goes_on(CLIENTS).await;
    let long = session("ann")(question("A long story about rivers:", 1_500)).streamed();
    let mut begun = refrain.open(&long.field("ignore_eos", json!(true))).await;
    begun.until("\"content\":").await;
    victim.kill9().await;
    let (rest, _) = begun.rest().await;
    let rest = String::from_utf8_lossy(&rest);
    assert!(is_error_event(rest.trim_end().lines().last()), "{rest}");
    assert!(!rest.contains("[DONE]"), "{rest}");

    load.goes_on(4 * CLIENTS).await;
    assert_eq!(refrain.send(&probe).await.status, 200);
    victim.start_again().await;
    eventually("the server's return", async || {
        Endpoint::at(&refrain.metrics().await, home).is_healthy().then_some(())
    })
    .await;
    load.goes_on(2 * CLIENTS).await;
    load.stops.store(true, Relaxed);
    let all = within_time(std::time::Duration::from_secs(60), "the clients' end", clients.join_all()).await;
    let all: Vec<Ended> = all.into_iter().flatten().collect();
    let broken = all.iter().filter(|ended| **ended == Ended::WithError).count();
    println!("{} answers, {broken} of them broken off", all.len());
    assert!(broken <= CLIENTS, "{broken}");
    assert!(all.iter().all(|ended| !matches!(ended, Ended::Otherwise(_))), "{all:?}");
    assert_eq!(who_answers(&refrain, &addresses, &probe).await, home);
}
