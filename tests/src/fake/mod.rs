//! A fake upstream, called one: it speaks OpenAI's, Anthropic's and Ollama's APIs faithfully, numbers its answers so that
//! two generations are never equal, records what it is sent, waits where a test says, and misbehaves on demand.

mod answer;
pub mod anthropic;
pub mod ollama;
pub mod openai;
mod request;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use answer::{Answer, Gate};
pub use request::Recorded;

use crate::within;
use answer::Step;

/// A server that ends with the test.
pub struct FakeUpstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

/// Makes the answer to a request.
type Responder = Box<dyn FnMut(&Recorded) -> Answer + Send>;

#[derive(Default)]
struct State {
    requests: Vec<Recorded>,
    next: VecDeque<Answer>,
    always: Option<Responder>,
    gets: Option<Responder>,
    generations: u64,
    abandoned: usize,
    connections: usize,
    /// Models that `/v1/models` lists; empty: one.
    offered: Vec<String>,
    in_flight: usize,
    peak_in_flight: usize,
    ollama: ollama::Models,
}

impl FakeUpstream {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        Self::on(listener)
    }

    /// Starts one on an address that was free a moment ago.
    pub async fn start_at(address: SocketAddr) -> Self {
        Self::on(TcpListener::bind(address).await.unwrap())
    }

    fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { state: Mutex::default(), changed: watch::channel(()).0 });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared.clone()));
        Self { address, shared, _tasks: tasks }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers the next `POST` so, instead of by itself. Several queue up.
    pub fn next(&self, answer: Answer) {
        self.shared.state.lock().next.push_back(answer);
    }

    /// Answers every `POST` so from now on, but for those of [`next`](Self::next), and remembers no requests: for very many.
    pub fn always(&self, answer: impl FnMut(&Recorded) -> Answer + Send + 'static) {
        self.shared.state.lock().always = Some(Box::new(answer));
    }

    /// Answers every `GET` so from now on: to stand for an API that is no LLM's.
    pub fn answers_gets(&self, answer: impl FnMut(&Recorded) -> Answer + Send + 'static) {
        self.shared.state.lock().gets = Some(Box::new(answer));
    }

    /// What it was sent on a path so far.
    pub fn requests(&self, path: &str) -> Vec<Recorded> {
        self.shared.state.lock().requests.iter().filter(|request| request.path == path).cloned().collect()
    }

    /// How many `POST`s it was sent so far.
    pub fn posts(&self) -> usize {
        self.shared.state.lock().posts()
    }

    /// The last `POST`.
    pub fn last_post(&self) -> Recorded {
        let state = self.shared.state.lock();
        state.requests.iter().rfind(|request| request.method == "POST").cloned().expect("a POST came")
    }

    /// Waits until it was sent so many `POST`s.
    pub async fn posted(&self, count: usize) {
        self.until(&format!("{count} POSTs at the fake upstream"), |state| state.posts() >= count).await;
    }

    /// Waits until so many answers were broken off by a client that left in the middle.
    pub async fn abandoned(&self, count: usize) {
        self.until(&format!("{count} abandoned answers"), |state| state.abandoned >= count).await;
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.state.lock().connections
    }

    /// Lists these models from now on, and answers for every name all the same, as llama.cpp does.
    pub fn offer(&self, models: &[&str]) {
        self.shared.state.lock().offered = models.iter().map(ToString::to_string).collect();
    }

    /// `POST`s that are being answered.
    pub fn in_flight(&self) -> usize {
        self.shared.state.lock().in_flight
    }

    /// Most of them at once so far.
    pub fn peak_in_flight(&self) -> usize {
        self.shared.state.lock().peak_in_flight
    }

    /// Waits until it answers so many `POST`s at once.
    pub async fn answers_at_once(&self, count: usize) {
        self.until(&format!("{count} POSTs at once"), |state| state.in_flight >= count).await;
    }

    /// Changes what stands behind an Ollama model, as `ollama pull` does.
    pub fn pull(&self, model: &str) {
        self.shared.state.lock().ollama.pull(model);
    }

    async fn until(&self, what: &str, reached: impl Fn(&State) -> bool) {
        let mut changes = self.shared.changed.subscribe();
        within(what, async {
            while !reached(&self.shared.state.lock()) {
                changes.changed().await.unwrap();
            }
        })
        .await;
    }
}

impl State {
    fn posts(&self) -> usize {
        self.requests.iter().filter(|request| request.method == "POST").count()
    }

    /// Notes a request and decides its answer.
    fn take(&mut self, request: Recorded) -> Answer {
        let is_post = request.method == "POST";
        let scripted = if is_post { self.next.pop_front() } else { None };
        if let (None, true, Some(always)) = (&scripted, is_post, &mut self.always) {
            return always(&request);
        }
        let answer = match (scripted, &mut self.gets) {
            (Some(scripted), _) => scripted,
            (None, Some(gets)) if request.method == "GET" => gets(&request),
            (None, _) => self.answer(&request),
        };
        self.requests.push(request);
        answer
    }

    fn answer(&mut self, request: &Recorded) -> Answer {
        if request.path == "/" {
            return Answer::whole(200, "text/plain; charset=utf-8", "Ollama is running");
        }
        if request.path.starts_with("/api/") {
            return ollama::answer(&mut self.ollama, request, &mut self.generations);
        }
        let body = request.json();
        self.generations += u64::from(request.method == "POST");
        match request.path.as_str() {
            _ if body["model"] == "missing" => Answer::json(404, &openai::model_missing()),
            "/v1/chat/completions" => openai::chat(&body, self.generations),
            "/v1/completions" => openai::completion(&body, self.generations),
            "/v1/embeddings" => openai::embeddings(&body, self.generations),
            "/v1/responses" => openai::response(&body, self.generations),
            "/v1/messages" => anthropic::message(&body, self.generations),
            "/v1/models" => openai::models(&self.offered),
            _ => Answer::json(200, &json!({"echo": request.path})),
        }
    }
}

/// The last user text of a request, in any dialect.
fn question(body: &Value) -> String {
    let last = body["messages"].as_array().and_then(|messages| messages.last());
    let text = last.map_or_else(|| body["prompt"].clone(), |message| message["content"].clone());
    text.as_str().map_or_else(|| text.to_string(), str::to_owned)
}

/// The text of an answer, as the pieces it is streamed in.
fn pieces(body: &Value, nth: u64) -> Vec<String> {
    let text = format!("answer {nth} to {}", question(body));
    text.split_inclusive(' ').map(str::to_owned).collect()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        stream.set_nodelay(true).unwrap();
        shared.state.lock().connections += 1;
        connections.spawn(serve(stream, shared.clone()));
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut buffer = Vec::new();
    while let Some(request) = request::read(&mut stream, &mut buffer).await {
        let _in_flight = InFlight::of(&request, &shared).await;
        let answer = shared.state.lock().take(request);
        shared.changed.send_replace(());
        for step in answer.steps {
            match perform(&mut stream, &mut buffer, step).await {
                Outcome::Done => {}
                Outcome::Closed => return,
                Outcome::ClientLeft => {
                    shared.state.lock().abandoned += 1;
                    shared.changed.send_replace(());
                    return;
                }
            }
        }
    }
}

/// A `POST` that is being answered.
struct InFlight(Arc<Shared>);

impl InFlight {
    async fn of(request: &Recorded, shared: &Arc<Shared>) -> Option<Self> {
        if request.method != "POST" {
            return None;
        }
        // Clients that left just before are noticed first.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        let state = &mut *shared.state.lock();
        state.in_flight += 1;
        state.peak_in_flight = state.peak_in_flight.max(state.in_flight);
        Some(Self(shared.clone()))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.state.lock().in_flight -= 1;
    }
}

enum Outcome {
    Done,
    Closed,
    ClientLeft,
}

async fn perform(stream: &mut TcpStream, buffer: &mut Vec<u8>, step: Step) -> Outcome {
    match step {
        Step::Send(bytes) => match stream.write_all(&bytes).await {
            Ok(()) => Outcome::Done,
            Err(_) => Outcome::ClientLeft,
        },
        Step::Wait(gate) => tokio::select! {
            () = gate.opened() => Outcome::Done,
            () = client_left(stream, buffer) => Outcome::ClientLeft,
        },
        Step::Pause(pause) => tokio::select! {
            () = tokio::time::sleep(pause) => Outcome::Done,
            () = client_left(stream, buffer) => Outcome::ClientLeft,
        },
        Step::Hang => {
            client_left(stream, buffer).await;
            Outcome::ClientLeft
        }
        Step::Close => Outcome::Closed,
        Step::Reset => {
            stream.set_zero_linger().unwrap();
            Outcome::Closed
        }
    }
}

/// Waits for the client's end of the connection.
async fn client_left(stream: &mut TcpStream, buffer: &mut Vec<u8>) {
    while !matches!(stream.read_buf(buffer).await, Ok(0) | Err(_)) {}
}
