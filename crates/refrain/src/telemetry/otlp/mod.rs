//! Traces and metrics for an OpenTelemetry collector: OTLP over HTTP in Protocol Buffers.
//!
//! One task of the control side sends both. What waits is bounded, and a collector that is away costs what it was meant to be
//! told, never a request. Source: <https://opentelemetry.io/docs/specs/otlp/>.

mod collector;
mod metrics;
mod spans;
mod value;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prost::Message as _;
use refrain_core::Drain;
use refrain_core::settings::Otlp;
use refrain_proxy::{Live, RequestTrace};
use refrain_upstream::Client;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use self::collector::{Collector, Signal};
use crate::control::Control;

/// Requests whose spans are sent together.
const BATCH_MAX: usize = 256;
/// How long spans wait for others to be sent with.
const BATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How long the last spans and numbers may take once the process stops.
const LAST_TIMEOUT: Duration = Duration::from_millis(800);

/// Sends what there is until the process has drained.
pub(crate) struct Exporter {
    /// The configuration in force: read before each sending, so that a reload needs nothing else.
    pub(crate) live: Live,
    /// The numbers.
    pub(crate) control: Arc<Control>,
    /// Connections.
    pub(crate) client: Client,
    /// Finished requests.
    pub(crate) traces: mpsc::Receiver<Box<RequestTrace>>,
}

/// What the task remembers between sendings.
struct Sending {
    exporter: Exporter,
    collector: Option<Collector>,
    is_unusable: bool,
    batch: Vec<RequestTrace>,
    batch_due: Option<Instant>,
    metrics_due: Instant,
    started: SystemTime,
}

impl Exporter {
    /// Runs until the process stops, and sends what is left then.
    pub(crate) async fn run(self, drain: Drain) {
        let mut sending = Sending {
            exporter: self,
            collector: None,
            is_unusable: false,
            batch: Vec::new(),
            batch_due: None,
            metrics_due: Instant::now(),
            started: SystemTime::now(),
        };
        tokio::select! {
            () = drain.begun() => {}
            () = sending.keep() => {}
        }
        let _ = timeout(LAST_TIMEOUT, sending.last()).await;
    }
}

impl Sending {
    async fn keep(&mut self) {
        loop {
            let due = self.batch_due.map_or(self.metrics_due, |due| due.min(self.metrics_due));
            tokio::select! {
                trace = self.exporter.traces.recv() => match trace {
                    Some(trace) => self.gather(trace),
                    None => return,
                },
                () = sleep_until(due) => {}
            }
            let now = Instant::now();
            if self.batch.len() >= BATCH_MAX || self.batch_due.is_some_and(|due| due <= now) {
                self.send_spans().await;
            }
            if self.metrics_due <= now {
                self.send_metrics(now).await;
            }
        }
    }

    fn gather(&mut self, trace: Box<RequestTrace>) {
        self.batch.push(*trace);
        self.batch_due.get_or_insert_with(|| Instant::now() + BATCH_INTERVAL);
    }

    /// What came since the last sending, and what was being sent.
    async fn last(&mut self) {
        while let Ok(trace) = self.exporter.traces.try_recv() {
            self.batch.push(*trace);
        }
        self.send_spans().await;
        self.send_metrics(Instant::now()).await;
    }

    /// # Cancel safety
    /// What was not sent stays to be sent.
    async fn send_spans(&mut self) {
        let otlp = self.settings().filter(|otlp| otlp.traces.is_some() && !self.batch.is_empty());
        if let Some(otlp) = otlp {
            let body = spans::request(&otlp.service_name, &self.batch).encode_to_vec();
            self.send(&otlp, Signal::Traces, body).await;
        }
        self.batch.clear();
        self.batch_due = None;
    }

    async fn send_metrics(&mut self, now: Instant) {
        let settings = self.settings();
        let interval = settings.as_ref().and_then(|otlp| otlp.metrics_interval);
        self.metrics_due = now + interval.unwrap_or(Otlp::METRICS_INTERVAL);
        let (Some(otlp), Some(_)) = (settings, interval) else { return };
        let text = super::scrape(&self.exporter.control);
        let body = metrics::request(&otlp.service_name, &text, self.started).encode_to_vec();
        self.send(&otlp, Signal::Metrics, body).await;
    }

    async fn send(&mut self, otlp: &Otlp, signal: Signal, body: Vec<u8>) {
        if self.collector.as_ref().is_none_or(|collector| collector.endpoint != otlp.endpoint) {
            self.collector = self.made(otlp);
        }
        match &mut self.collector {
            Some(collector) => collector.send(signal, body.into()).await,
            None => collector::count_unusable(signal),
        }
    }

    /// The collector that config names now. Why it can't be used is told once, not with each sending.
    fn made(&mut self, otlp: &Otlp) -> Option<Collector> {
        let made = Collector::new(self.exporter.client.clone(), otlp);
        let was_unusable = std::mem::replace(&mut self.is_unusable, made.is_err());
        made.inspect_err(|error| {
            if !was_unusable {
                tracing::warn!(%error, "the collector can't be used");
            }
        })
        .ok()
    }

    fn settings(&self) -> Option<Otlp> {
        self.exporter.live.load().settings.otlp.clone()
    }
}
