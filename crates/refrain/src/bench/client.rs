//! The measuring client: sends one request, reads its answer as it comes, and notes when what came.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use refrain_core::Api;
use refrain_llm::answer::{AnswerReader, Form};
use tokio::time::{Instant, timeout};

use super::cache_status::CacheStatus;
use super::connect::{Connector, Sender};
use super::drive::Asker;
use super::outcome::{Answered, Failure, Finish, Outcome, TEXT_CHARS_MAX};
use super::workload::Ask;
use crate::cli::AskingArguments;

/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How much of a failure's body is read.
const FAILURE_BYTES_MAX: usize = 64 << 10;
/// Gaps of one answer that are kept.
const GAPS_MAX: usize = 1 << 16;

/// Asks servers in turns. Clones share connections.
#[derive(Clone)]
pub(crate) struct Client(Arc<Parts>);

struct Parts {
    servers: Vec<Server>,
    next: AtomicUsize,
    connector: Connector,
    api: Api,
    form: Form,
    headers: HeaderMap,
    patience: Duration,
}

struct Server {
    url: Uri,
    host: HeaderValue,
    /// Connections without a request; no more than were ever used at once.
    idle: Mutex<Vec<Sender>>,
}

/// What is known of an answer while it comes.
#[derive(Default)]
struct Arrivals {
    first: Option<Instant>,
    last: Option<Instant>,
    gaps: Vec<Duration>,
}

impl Client {
    /// A client of these servers; `key` goes into every request.
    ///
    /// # Errors
    /// The key can't be sent, or the certificates can't be read.
    pub(crate) fn new(urls: &[Uri], asking: &AskingArguments, key: Option<&str>) -> anyhow::Result<Self> {
        let server = |url: &Uri| {
            let host = HeaderValue::from_str(url.authority().map_or("", |authority| authority.as_str()))?;
            anyhow::Ok(Server { url: url.clone(), host, idle: Mutex::default() })
        };
        Ok(Self(Arc::new(Parts {
            servers: urls.iter().map(server).collect::<Result<_, _>>()?,
            next: AtomicUsize::new(0),
            connector: Connector::new(urls, asking.ca.as_deref())?,
            api: asking.api.api(),
            form: if asking.whole { Form::Whole } else { Form::Stream },
            headers: headers(asking, key)?,
            patience: asking.timeout,
        })))
    }

    /// Connects to every server once, so that one that is away is told before anything is measured.
    ///
    /// # Errors
    /// Which one, and why.
    pub(crate) async fn reach(&self) -> anyhow::Result<()> {
        for server in &self.0.servers {
            let connected = self.0.connector.connect(&server.url).await;
            let sender = connected.with_context(|| format!("can't reach {}; is it running?", server.url))?;
            server.idle.lock().push(sender);
        }
        Ok(())
    }

    async fn exchange(&self, ask: &Ask) -> (Option<Instant>, CacheStatus, Result<Answered, Failure>) {
        let (mut arrivals, mut cache) = (Arrivals::default(), CacheStatus::default());
        let asked = timeout(self.0.patience, self.ask_one(ask, &mut arrivals, &mut cache)).await;
        let result = asked.unwrap_or(Err(Failure::Timeout));
        let first = arrivals.first;
        let gaps = arrivals.gaps;
        (first, cache, result.map(|answered| Answered { gaps, ..answered }))
    }

    async fn ask_one(
        &self,
        ask: &Ask,
        arrivals: &mut Arrivals,
        cache: &mut CacheStatus,
    ) -> Result<Answered, Failure> {
        let turn = self.0.next.fetch_add(1, Ordering::Relaxed) % self.0.servers.len();
        let server = &self.0.servers[turn];
        let (sender, response) = self.send(server, ask).await?;
        *cache = CacheStatus::of(response.headers());
        if response.status() != StatusCode::OK {
            let (refusal, is_whole) = refusal(response).await;
            if is_whole {
                server.keep(sender);
            }
            return Err(refusal);
        }
        let answered = self.read(response.into_body(), arrivals).await?;
        server.keep(sender);
        Ok(answered)
    }

    /// On an idle connection, or on a new one if that turns out to have been closed meanwhile.
    async fn send(&self, server: &Server, ask: &Ask) -> Result<(Sender, Response<Incoming>), Failure> {
        while let Some(mut idle) = server.pop() {
            if idle.ready().await.is_err() {
                continue;
            }
            match idle.try_send_request(self.request(server, ask)).await {
                Ok(response) => return Ok((idle, response)),
                Err(mut error) => {
                    // What was not sent, since the server had closed, is sent on another one.
                    if error.take_message().is_none() {
                        return Err(Failure::Broken(error.into_error().to_string()));
                    }
                }
            }
        }
        let connected = self.0.connector.connect(&server.url).await;
        let mut sender = connected.map_err(|error: io::Error| Failure::Connect(error.to_string()))?;
        let response = sender.send_request(self.request(server, ask)).await;
        Ok((sender, response.map_err(|error| Failure::Broken(error.to_string()))?))
    }

    fn request(&self, server: &Server, ask: &Ask) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = Uri::from_static(ask.path);
        *request.headers_mut() = self.0.headers.clone();
        request.headers_mut().insert(HOST, server.host.clone());
        request
    }

    async fn read(&self, mut body: Incoming, arrivals: &mut Arrivals) -> Result<Answered, Failure> {
        let mut reader = AnswerReader::new(self.0.api, self.0.form, ANSWER_BYTES_MAX);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::Broken(error.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            let before = reader.text_chunks();
            reader.feed(&data)?;
            if reader.text_chunks() > before {
                arrivals.note(Instant::now());
            }
        }
        let chunks = reader.text_chunks();
        let answer = reader.finish()?;
        let finish = Finish::of(answer.finish_reason(), answer.has_tool_calls());
        Ok(Answered { gaps: Vec::new(), chunks, usage: answer.usage(), finish })
    }
}

impl Asker for Client {
    async fn ask(&self, ask: Ask) -> Outcome {
        let sent = Instant::now();
        let (first_text, cache, result) = self.exchange(&ask).await;
        Outcome { sent, first_text, ended: Instant::now(), cache, result }
    }
}

impl Server {
    fn pop(&self) -> Option<Sender> {
        self.idle.lock().pop()
    }

    /// For the next request, after an answer that was read to its end.
    fn keep(&self, sender: Sender) {
        if !sender.is_closed() {
            self.idle.lock().push(sender);
        }
    }
}

impl Arrivals {
    fn note(&mut self, now: Instant) {
        if let Some(last) = self.last.filter(|_| self.gaps.len() < GAPS_MAX) {
            self.gaps.push(now.duration_since(last));
        }
        self.first.get_or_insert(now);
        self.last = Some(now);
    }
}

fn headers(asking: &AskingArguments, key: Option<&str>) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers
        .insert(USER_AGENT, HeaderValue::from_static(concat!("refrain-bench/", env!("CARGO_PKG_VERSION"))));
    if asking.no_cache {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
    }
    if let Some(key) = key {
        let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
            .context("the API key has letters that no header may have")?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    if asking.api.api() == Api::Messages {
        headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
    }
    Ok(headers)
}

/// What was answered instead, and whether all of it was read.
async fn refusal(response: Response<Incoming>) -> (Failure, bool) {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), FAILURE_BYTES_MAX).collect().await;
    let is_whole = body.is_ok();
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&body).chars().take(TEXT_CHARS_MAX).collect();
    (Failure::Status { status, text }, is_whole)
}
