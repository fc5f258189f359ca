//! One upstream server as this process knows it: load, health and counters. Shared by all workers, without locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use refrain_core::EndpointId;
use refrain_core::settings::Endpoint;

use crate::UpstreamError;
use crate::identity::Digests;
use crate::tls::TlsAccess;

/// How long an endpoint that refused a connection is asked last.
pub(crate) const COOL_DOWN: Duration = Duration::from_secs(3);

/// An endpoint's live state. Kept over reloads that leave the endpoint as it is.
#[derive(Debug)]
pub struct EndpointState {
    /// Its settings.
    pub config: Endpoint,
    /// Unique in this process: names the endpoint's idle connections.
    pub(crate) key: u64,
    pub(crate) host: HeaderValue,
    /// Sent in place of what a request has of these names.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// None: plain. Read anew by each reload.
    pub(crate) tls: ArcSwapOption<TlsAccess>,
    /// What models an Ollama holds; none until it has said so.
    pub(crate) digests: ArcSwapOption<Digests>,
    pub(crate) counters: Counters,
    born: Instant,
    /// Milliseconds after `born`, plus one, of the last failure to connect; 0: the last attempt went well.
    failed_at: AtomicU64,
}

/// Counters that only grow, but for `in_flight`.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) in_flight: AtomicU32,
    pub(crate) requests: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) reused: AtomicU64,
}

/// An endpoint's counters at one moment, for the metrics exporter.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Whether it lately refused a connection and is asked last.
    pub cooling: bool,
}

impl EndpointState {
    /// Fresh state for an endpoint; fails if its name or credentials can't be headers, or its
    /// certificates can't be used.
    pub(crate) fn new(config: &Endpoint) -> Result<Self, UpstreamError> {
        static NEXT_KEY: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            key: NEXT_KEY.fetch_add(1, Relaxed),
            host: header(config, &host_text(config))?,
            headers: headers(config)?,
            tls: ArcSwapOption::new(TlsAccess::read(config)?),
            digests: ArcSwapOption::empty(),
            counters: Counters::default(),
            born: Instant::now(),
            failed_at: AtomicU64::new(0),
            config: config.clone(),
        })
    }

    /// Its name.
    pub fn id(&self) -> &EndpointId {
        &self.config.id
    }

    /// Counters now.
    pub fn stats(&self) -> EndpointStats {
        EndpointStats {
            endpoint: self.config.id.clone(),
            in_flight: self.counters.in_flight.load(Relaxed),
            requests: self.counters.requests.load(Relaxed),
            failures: self.counters.failures.load(Relaxed),
            connections_opened: self.counters.opened.load(Relaxed),
            connections_reused: self.counters.reused.load(Relaxed),
            cooling: self.is_cooling(Instant::now()),
        }
    }

    /// Whether the last attempt to connect failed, whenever that was.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.failed_at.load(Relaxed) != 0
    }

    /// Whether it failed to connect within the last [`COOL_DOWN`].
    pub(crate) fn is_cooling(&self, now: Instant) -> bool {
        self.is_recent(self.failed_at.load(Relaxed), now)
    }

    /// Whether a request may go there first. After a cool-down one may, as a probe; the others wait for another
    /// cool-down, or until the probe got through.
    pub(crate) fn admits(&self, now: Instant) -> bool {
        let failed_at = self.failed_at.load(Relaxed);
        if failed_at == 0 || self.is_recent(failed_at, now) {
            return failed_at == 0;
        }
        self.failed_at.compare_exchange(failed_at, self.millis(now), Relaxed, Relaxed).is_ok()
    }

    /// Notes that connecting failed.
    pub(crate) fn note_unreachable(&self, now: Instant) {
        self.failed_at.store(self.millis(now), Relaxed);
    }

    /// Notes that it answered, or accepted a connection.
    pub(crate) fn note_reachable(&self) {
        if self.failed_at.load(Relaxed) != 0 {
            self.failed_at.store(0, Relaxed);
        }
    }

    fn is_recent(&self, failed_at: u64, now: Instant) -> bool {
        failed_at != 0 && self.millis(now).saturating_sub(failed_at) < COOL_DOWN.as_millis() as u64
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_millis() as u64 + 1
    }
}

fn host_text(config: &Endpoint) -> String {
    let host = if config.host.contains(':') { format!("[{}]", config.host) } else { config.host.clone() };
    let default_port = if config.tls.is_some() { 443 } else { 80 };
    if config.port == default_port { host } else { format!("{host}:{}", config.port) }
}

/// Credentials: marked, so that nothing prints them.
fn headers(config: &Endpoint) -> Result<Vec<(HeaderName, HeaderValue)>, UpstreamError> {
    let named = config.headers.iter().map(|(name, secret)| {
        let name = HeaderName::try_from(name.as_str())
            .map_err(|_| UpstreamError::Settings { endpoint: config.id.clone() });
        (name, secret)
    });
    let authorization = config.authorization.iter().map(|secret| (Ok(AUTHORIZATION), secret));
    named
        .chain(authorization)
        .map(|(name, secret)| {
            let mut value = header(config, &secret.0)?;
            value.set_sensitive(true);
            Ok((name?, value))
        })
        .collect()
}

fn header(config: &Endpoint, text: &str) -> Result<HeaderValue, UpstreamError> {
    HeaderValue::from_str(text).map_err(|_| UpstreamError::Settings { endpoint: config.id.clone() })
}

/// One request in flight at an endpoint: counted from here until dropped.
#[derive(Debug)]
pub(crate) struct LoadGuard(Arc<EndpointState>);

impl LoadGuard {
    pub(crate) fn new(endpoint: &Arc<EndpointState>) -> Self {
        endpoint.counters.in_flight.fetch_add(1, Relaxed);
        endpoint.counters.requests.fetch_add(1, Relaxed);
        Self(endpoint.clone())
    }

    pub(crate) fn endpoint(&self) -> &Arc<EndpointState> {
        &self.0
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.0.counters.in_flight.fetch_sub(1, Relaxed);
    }
}
