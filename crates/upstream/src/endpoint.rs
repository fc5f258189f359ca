//! One upstream server as this process knows it: load, health and counters. Shared by all workers, without locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use refrain_core::settings::{Endpoint, HttpVersion, MicroDollars, Pool};
use refrain_core::{EndpointId, Fault};

use crate::UpstreamError;
use crate::balance::rendezvous;
use crate::busy::BusyTime;
use crate::clock::Millis;
use crate::connection::Told;
use crate::gpu::GpuReading;
use crate::health::{Failed, Health, Standing};
use crate::models::{Held, Models};
use crate::tls::TlsAccess;

/// Stands for a price that nobody told.
const NO_PRICE: u64 = u64::MAX;

/// An endpoint's live state. Kept over reloads that leave the endpoint as it is.
#[derive(Debug)]
pub struct EndpointState {
    /// Its settings.
    pub config: Endpoint,
    /// Unique in this process: names the endpoint's connections.
    pub(crate) key: u64,
    pub(crate) host: HeaderValue,
    /// The same for HTTP/2.
    pub(crate) authority: Authority,
    /// Sent in place of what a request has of these names.
    pub(crate) headers: HeaderMap,
    /// None: plain. Read anew by each reload.
    pub(crate) tls: ArcSwapOption<TlsAccess>,
    /// Whether the server last chose HTTP/1.1 where HTTP/2 was offered.
    pub(crate) chose_http1: AtomicBool,
    /// Stands for its name in rendezvous hashing.
    pub(crate) seed: u64,
    /// What it last said that it has; none until it has said so.
    pub(crate) models: ArcSwapOption<Models>,
    pub(crate) counters: Counters,
    pub(crate) health: Health,
    /// No new requests go there.
    drains: AtomicBool,
    /// Millionths of a dollar an hour; [`NO_PRICE`]: not known.
    price: AtomicU64,
    /// How busy its GPUs were last.
    gpu: Mutex<Option<GpuReading>>,
    /// Why it failed last.
    last_error: ArcSwapOption<(SystemTime, String)>,
}

/// Counters that only grow, but for `in_flight`.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) in_flight: AtomicU32,
    /// Of prompts that are being answered.
    pub(crate) tokens: AtomicU64,
    /// How it is shared.
    pub(crate) time: BusyTime,
    pub(crate) requests: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) reused: AtomicU64,
}

/// An endpoint's counters at one moment, for the metrics exporter.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointStats {
    /// Which endpoint.
    pub endpoint: EndpointId,
    /// Requests being answered now.
    pub in_flight: u32,
    /// Requests sent so far, each try counted.
    pub requests: u64,
    /// Tries that failed, before or within the answer.
    pub failures: u64,
    /// Connections opened.
    pub connections_opened: u64,
    /// Requests that took an idle connection.
    pub connections_reused: u64,
    /// Tokens of the prompts that are being answered, as far as known.
    pub tokens: u64,
    /// How long it had anything to do, up to the last request that came or went.
    pub busy: Duration,
    /// What an hour of it costs, if that is known.
    pub price: Option<MicroDollars>,
    /// Whether it may be asked now.
    pub state: EndpointCondition,
    /// Part of its share that it gets: less than 1 in a slow start.
    pub share: f64,
    /// What it says that it has; none: nothing yet.
    pub models: Option<Vec<String>>,
    /// How busy its host's GPUs are, from 0 to 1, if that is known.
    pub gpu_utilization: Option<f64>,
    /// Why it failed last, and when.
    pub last_error: Option<(SystemTime, String)>,
}

/// What is known of whether an endpoint can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointCondition {
    /// It gets requests.
    Healthy,
    /// One request at a time finds out whether it is back.
    OnTrial,
    /// It failed too often, or wants to be left alone for a while.
    Ejected,
    /// It can't be connected to, or doesn't answer looks.
    Down,
    /// It is new and has to show first that it is ready.
    Awaited,
    /// It gets no new requests, by an operator's word.
    Draining,
}

impl EndpointCondition {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Healthy, Self::OnTrial, Self::Ejected, Self::Down, Self::Awaited, Self::Draining];

    /// Whether new requests go there.
    pub fn is_asked(self) -> bool {
        matches!(self, Self::Healthy | Self::OnTrial)
    }

    /// The word in metrics and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::OnTrial => "on_trial",
            Self::Ejected => "ejected",
            Self::Down => "down",
            Self::Awaited => "awaited",
            Self::Draining => "draining",
        }
    }
}

impl EndpointState {
    /// Fresh state for an endpoint; fails if its name or credentials can't be headers, or its
    /// certificates can't be used.
    pub(crate) fn new(config: &Endpoint) -> Result<Self, UpstreamError> {
        static NEXT_KEY: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            key: NEXT_KEY.fetch_add(1, Relaxed),
            host: header(config, &host_text(config))?,
            authority: host_text(config)
                .parse()
                .map_err(|_| UpstreamError::Settings { endpoint: config.id.clone() })?,
            headers: headers(config)?,
            tls: ArcSwapOption::new(TlsAccess::read(config)?),
            chose_http1: AtomicBool::new(false),
            seed: rendezvous::seed(config.id.as_str()),
            models: ArcSwapOption::empty(),
            counters: Counters::default(),
            health: Health::default(),
            drains: AtomicBool::new(false),
            price: AtomicU64::new(NO_PRICE),
            gpu: Mutex::new(None),
            last_error: ArcSwapOption::empty(),
            config: config.clone(),
        })
    }

    /// The same for one that was discovered: it is asked once a look has found it ready.
    pub(crate) fn discovered(config: &Endpoint) -> Result<Self, UpstreamError> {
        Ok(Self { health: Health::awaited(), ..Self::new(config)? })
    }

    /// Its name.
    pub fn id(&self) -> &EndpointId {
        &self.config.id
    }

    /// Counters now, in this pool.
    pub(crate) fn stats(&self, pool: &Pool) -> EndpointStats {
        let now = Millis::now();
        let counters = &self.counters;
        EndpointStats {
            endpoint: self.config.id.clone(),
            in_flight: counters.in_flight.load(Relaxed),
            requests: counters.requests.load(Relaxed),
            failures: counters.failures.load(Relaxed),
            connections_opened: counters.opened.load(Relaxed),
            connections_reused: counters.reused.load(Relaxed),
            tokens: counters.tokens.load(Relaxed),
            busy: counters.time.busy(),
            price: self.price(),
            state: self.condition(now),
            share: self.health.share(now, pool.health.slow_start),
            models: self.models.load().as_ref().map(|models| models.names()),
            // What was read by a table that is gone is not told any more.
            gpu_utilization: self.gpu.lock().filter(|_| pool.gpu.is_some()).and_then(GpuReading::ratio),
            last_error: self.last_error.load().as_deref().cloned(),
        }
    }

    /// Notes how busy its host's GPUs are.
    pub(crate) fn note_gpu(&self, reading: GpuReading) {
        *self.gpu.lock() = Some(reading);
    }

    /// Whether new requests may go there: an operator's word, kept until it is taken back or the endpoint's settings change.
    pub fn set_draining(&self, drains: bool) {
        self.drains.store(drains, Relaxed);
    }

    /// What an hour of it costs, if that is known.
    pub fn price(&self) -> Option<MicroDollars> {
        Some(self.price.load(Relaxed)).filter(|&price| price != NO_PRICE).map(MicroDollars)
    }

    pub(crate) fn set_price(&self, per_hour: Option<MicroDollars>) {
        self.price.store(per_hour.map_or(NO_PRICE, |price| price.0), Relaxed);
    }

    /// Whether it may be asked.
    pub(crate) fn standing(&self, now: Millis) -> Standing {
        if self.drains.load(Relaxed) { Standing::Awaited } else { self.health.standing(now) }
    }

    /// What it says of a model, by [`crate::models::hash`].
    pub(crate) fn held(&self, model: u64) -> Held {
        self.models.load().as_ref().map_or(Held::Unknown, |models| models.held(model))
    }

    /// Whether a connection that is opened now is likely to be one that requests share.
    pub(crate) fn is_likely_shared(&self) -> bool {
        match self.config.http {
            HttpVersion::Http1 => false,
            HttpVersion::Http2 => true,
            HttpVersion::Auto => self.config.tls.is_some() && !self.chose_http1.load(Relaxed),
        }
    }

    /// What a request is told that waited in vain for one of its connections.
    pub(crate) fn at_limit(&self) -> UpstreamError {
        UpstreamError::ConnectionLimit { endpoint: self.config.id.clone() }
    }

    /// Notes what an answer tells of it. `ejection`: how long its first ejection would last.
    pub(crate) fn note_answer(&self, status: StatusCode, headers: &HeaderMap, ejection: Duration) {
        let now = Millis::now();
        self.health.note_heard();
        let is_failure = matches!(
            status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        );
        // Under a client's own credentials, 429 is about that client alone.
        let is_about_all = status == StatusCode::SERVICE_UNAVAILABLE
            || (status == StatusCode::TOO_MANY_REQUESTS && !self.headers.is_empty());
        if is_about_all && let Some(wait) = retry_after(headers) {
            // It is well, and says when it has room again.
            self.note_trouble(format!("busy for {} s: {status}", wait.as_secs()));
            self.health.note_busy(now, wait);
        } else if is_failure {
            self.note_failed(Failed::Answer, format!("answered {status}"), ejection);
        } else {
            self.health.note_good(now);
        }
    }

    /// Notes what a failed try tells of it: nothing, if the client's request or its patience is to blame, or another try told it.
    pub(crate) fn note_error(&self, error: &UpstreamError, told: Told, ejection: Duration) {
        match error {
            _ if told == Told::Before => {
                self.counters.failures.fetch_add(1, Relaxed);
            }
            UpstreamError::Connect { .. }
            | UpstreamError::ConnectTimeout { .. }
            | UpstreamError::Tls { .. } => {
                self.note_failed(Failed::Unreachable, error, ejection);
            }
            UpstreamError::Reset { .. }
            | UpstreamError::Cut { .. }
            | UpstreamError::Malformed { .. }
            | UpstreamError::IdleTimeout { .. } => self.note_failed(Failed::Answer, error, ejection),
            UpstreamError::FirstByteTimeout { .. } => self.note_failed(Failed::Silent, error, ejection),
            // A long generation is none of its faults.
            _ if error.fault() == Fault::Upstream => {
                self.counters.failures.fetch_add(1, Relaxed);
                self.note_trouble(error);
            }
            _ => {}
        }
    }

    fn note_failed(&self, failed: Failed, why: impl ToString, ejection: Duration) {
        self.counters.failures.fetch_add(1, Relaxed);
        self.note_trouble(why);
        self.health.note_failed(failed, Millis::now(), ejection);
    }

    /// Notes why it isn't as it should be, without holding it against it.
    pub(crate) fn note_trouble(&self, why: impl ToString) {
        self.last_error.store(Some(Arc::new((SystemTime::now(), why.to_string()))));
    }

    pub(crate) fn condition(&self, now: Millis) -> EndpointCondition {
        if self.drains.load(Relaxed) {
            return EndpointCondition::Draining;
        }
        match self.health.standing(now) {
            Standing::Good => EndpointCondition::Healthy,
            Standing::OnTrial => EndpointCondition::OnTrial,
            Standing::Ejected | Standing::Busy => EndpointCondition::Ejected,
            Standing::Down => EndpointCondition::Down,
            Standing::Awaited => EndpointCondition::Awaited,
        }
    }
}

fn host_text(config: &Endpoint) -> String {
    let host = if config.host.contains(':') { format!("[{}]", config.host) } else { config.host.clone() };
    let default_port = if config.tls.is_some() { 443 } else { 80 };
    if config.port == default_port { host } else { format!("{host}:{}", config.port) }
}

/// Credentials: marked, so that nothing prints them. `authorization` has the last word.
fn headers(config: &Endpoint) -> Result<HeaderMap, UpstreamError> {
    let named = config.headers.iter().map(|(name, secret)| {
        let name = HeaderName::try_from(name.as_str())
            .map_err(|_| UpstreamError::Settings { endpoint: config.id.clone() });
        (name, secret)
    });
    let authorization = config.authorization.iter().map(|secret| (Ok(AUTHORIZATION), secret));
    let mut headers = HeaderMap::new();
    for (name, secret) in named.chain(authorization) {
        let mut value = header(config, &secret.0)?;
        value.set_sensitive(true);
        headers.insert(name?, value);
    }
    Ok(headers)
}

fn header(config: &Endpoint, text: &str) -> Result<HeaderValue, UpstreamError> {
    HeaderValue::from_str(text).map_err(|_| UpstreamError::Settings { endpoint: config.id.clone() })
}

/// The seconds of a `Retry-After`; a date is taken for unknown.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
