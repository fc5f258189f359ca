//! How busy the GPUs of endpoints are, as exporters on their hosts tell. For people and dashboards alone: nothing of it
//! changes which endpoint is asked.
//!
//! An exporter is no endpoint: it is asked in plain HTTP, and sent none of its endpoints' credentials, headers and
//! certificates.

mod exposition;

use std::collections::HashMap;
use std::fmt;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode};
use refrain_core::settings::{Endpoint, GpuExporter, GpuUnit};
use refrain_core::{Drain, EndpointId};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use crate::discovery::Api;
use crate::endpoint::EndpointState;
use crate::watch::get;
use crate::{Client, UpstreamError, UpstreamRequest, Upstreams};

/// How often it is seen whether a reading is due.
const TICK: Duration = Duration::from_millis(250);
/// Readings under way at once.
const READINGS_MAX: usize = 32;
/// Longest page that is read, in bytes: one of eight GPUs in seven parts each has about one MiB.
const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Longest time that a reading may take; the interval, if that is shorter.
const READING_TIME_MAX: Duration = Duration::from_secs(5);
/// For how many intervals a reading holds.
const INTERVALS_KEPT: u32 = 3;
/// The text format, so that no exporter answers with another.
const TEXT_FORMAT: HeaderValue = HeaderValue::from_static("text/plain;version=0.0.4");

/// How busy the GPUs of an endpoint were.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GpuReading {
    /// From 0 to 1.
    ratio: f64,
    /// How long that is believed.
    until: Instant,
}

impl GpuReading {
    /// From 0 to 1; none if it is too old.
    pub(crate) fn ratio(self) -> Option<f64> {
        (Instant::now() < self.until).then_some(self.ratio)
    }
}

/// Reads the exporters of all pools that have one, until the process drains. `current` gives the pools of the live
/// configuration.
///
/// Belongs on the control runtime, with a client of that runtime.
///
/// # Cancel safety
/// Safe: what was read so far stays.
pub async fn keep_gpu_use(current: impl Fn() -> Arc<Upstreams> + Send, client: Client, drain: Drain) {
    let mut exporters = Exporters { client, known: HashMap::new() };
    let mut readings = JoinSet::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = drain.begun() => return,
            Some(Ok((place, read))) = readings.join_next() => exporters.note(&place, read),
            _ = ticks.tick() => {
                exporters.follow(&current());
                for (place, api) in exporters.due(READINGS_MAX.saturating_sub(readings.len())) {
                    readings.spawn(read(place, api));
                }
            }
        }
    }
}

/// Where an exporter is, and how it is read: where two endpoints agree in this, it is asked once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    /// A name or an address, without brackets.
    host: String,
    exporter: GpuExporter,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GpuExporter { port, path, .. } = &self.exporter;
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "http://{open}{}{close}:{port}{path}", self.host)
    }
}

/// The exporters of all pools.
struct Exporters {
    client: Client,
    known: HashMap<Place, Exporter>,
}

/// One of them.
struct Exporter {
    /// Where no request can be made for it, why.
    api: Result<Arc<Api>, UpstreamError>,
    /// Whom it speaks for.
    endpoints: Vec<Arc<EndpointState>>,
    /// When it was asked last.
    asked: Option<Instant>,
    /// What went wrong last; none: nothing.
    trouble: Option<Discriminant<GpuError>>,
}

/// Why an exporter told nothing.
#[derive(Debug, thiserror::Error)]
enum GpuError {
    #[error("{0}")]
    Unreachable(#[from] UpstreamError),
    #[error("no page within {0:?}")]
    Slow(Duration),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("its page has no number from 0 to {} for {metric}", unit.full())]
    NoSample { metric: String, unit: GpuUnit },
}

impl Exporters {
    /// Knows those of these pools from now on, and no others.
    fn follow(&mut self, upstreams: &Upstreams) {
        let mut wanted: HashMap<Place, Vec<_>> = HashMap::new();
        for pool in upstreams.pools() {
            let Some(exporter) = &pool.config().gpu else { continue };
            for endpoint in pool.endpoints().iter() {
                let place = Place { host: endpoint.config.host.clone(), exporter: exporter.clone() };
                wanted.entry(place).or_default().push(endpoint.clone());
            }
        }
        self.known.retain(|place, _| wanted.contains_key(place));
        for (place, endpoints) in wanted {
            let new = |place: &Place| Exporter::new(place, &self.client);
            self.known.entry(place).or_insert_with_key(new).endpoints = endpoints;
        }
    }

    /// Some whose turn it is, those that waited longest first. Takes their turn.
    fn due(&mut self, count_max: usize) -> Vec<(Place, Result<Arc<Api>, UpstreamError>)> {
        let now = Instant::now();
        let is_due = |place: &Place, asked: Instant| now >= asked + place.exporter.interval;
        let mut due: Vec<_> = self
            .known
            .iter_mut()
            .filter(|(place, exporter)| exporter.asked.is_none_or(|asked| is_due(place, asked)))
            .collect();
        due.sort_by_key(|(_, exporter)| exporter.asked);
        let taken = due.into_iter().take(count_max).map(|(place, exporter)| {
            exporter.asked = Some(now);
            (place.clone(), exporter.api.clone())
        });
        taken.collect()
    }

    /// Tells the endpoints what was read. Trouble is told once, and when it is another.
    fn note(&mut self, place: &Place, read: Result<f64, GpuError>) {
        let Some(exporter) = self.known.get_mut(place) else { return };
        match read {
            Ok(ratio) => {
                if exporter.trouble.take().is_some() {
                    info!(exporter = %place, "GPU use is told again");
                }
                let until = Instant::now() + place.exporter.interval * INTERVALS_KEPT;
                exporter.endpoints.iter().for_each(|endpoint| endpoint.note_gpu(GpuReading { ratio, until }));
            }
            Err(error) => {
                let trouble = Some(discriminant(&error));
                if exporter.trouble != trouble {
                    warn!(exporter = %place, %error, "GPU use is not told; requests go on as before");
                }
                exporter.trouble = trouble;
            }
        }
    }
}

impl Exporter {
    fn new(place: &Place, client: &Client) -> Self {
        let Place { host, exporter } = place;
        let id = EndpointId::new(format!("{host}:{}", exporter.port));
        // Nothing of the endpoints' own settings but the host.
        let api = Api::new(client.clone(), &Endpoint::plain(id, host, exporter.port));
        Self { api: api.map(Arc::new), endpoints: Vec::new(), asked: None, trouble: None }
    }
}

async fn read(place: Place, api: Result<Arc<Api>, UpstreamError>) -> (Place, Result<f64, GpuError>) {
    let GpuExporter { path, metric, unit, interval, .. } = &place.exporter;
    let time_max = READING_TIME_MAX.min(*interval);
    let reading = async {
        let response = api?.send(request(path)?).await?;
        if response.status != StatusCode::OK {
            return Err(GpuError::Status(response.status));
        }
        let page = response.body.collect(PAGE_BYTES_MAX).await?;
        let ratio = exposition::mean_ratio(&page, (metric, *unit));
        ratio.ok_or_else(|| GpuError::NoSample { metric: metric.clone(), unit: *unit })
    };
    let read = timeout(time_max, reading).await.unwrap_or(Err(GpuError::Slow(time_max)));
    (place, read)
}

fn request(path: &str) -> Result<UpstreamRequest, UpstreamError> {
    let path_and_query = PathAndQuery::try_from(path)
        .map_err(|_| UpstreamError::Settings { endpoint: EndpointId::new(path) })?;
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, TEXT_FORMAT);
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("refrain/", env!("CARGO_PKG_VERSION"))));
    Ok(UpstreamRequest { path_and_query, headers, ..get("/") })
}
