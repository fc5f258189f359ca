//! The way to the collector.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::{Counter, counter};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use refrain_core::settings::{Endpoint, Otlp, Pool, Timeouts};
use refrain_upstream::{
    Client, Demand, EndpointState, PoolState, UpstreamBody, UpstreamError, UpstreamRequest, Upstreams,
};
use tokio::time::sleep;

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// What of its words is logged, in bytes.
const MESSAGE_BYTES_MAX: usize = 200;
/// Waits before further tries; what comes meanwhile waits in its bounded queue.
const WAITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// The longest that a collector may ask for before the next try.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How long an answer may take.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    first_byte: Duration::from_secs(5),
    idle: Duration::from_secs(5),
    total: Duration::from_secs(10),
};

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Spans.
    Traces,
    /// Numbers.
    Metrics,
}

/// A collector.
pub(super) struct Collector {
    /// As config has it.
    pub(super) endpoint: Endpoint,
    client: Client,
    upstreams: Upstreams,
    pool: Arc<PoolState>,
    state: Arc<EndpointState>,
    /// Whether the last try failed: told once, not each time.
    is_away: bool,
}

impl Collector {
    /// The one that config names.
    pub(super) fn new(client: Client, otlp: &Otlp) -> Result<Self, UpstreamError> {
        let endpoint = otlp.endpoint.clone();
        let pool = Arc::new(Pool {
            timeouts: TIMEOUTS,
            idle_connections_max: 1,
            ..Pool::new("otlp".into(), vec![endpoint.clone()])
        });
        let upstreams = Upstreams::new(&BTreeMap::from([(pool.id.clone(), pool.clone())]))?;
        let found =
            upstreams.pool(&pool.id).and_then(|pool| Some((pool.clone(), pool.endpoint(&endpoint.id)?)));
        let (pool, state) = found.ok_or_else(|| UpstreamError::NoEndpoint { pool: pool.id.clone() })?;
        for signal in [Signal::Traces, Signal::Metrics] {
            ["done", "away", "refused"].into_iter().for_each(|result| exports(signal, result).increment(0));
        }
        Ok(Self { endpoint, client, upstreams, pool, state, is_away: false })
    }

    /// Sends, a few times if need be; then gives up.
    pub(super) async fn send(&mut self, signal: Signal, body: Bytes) {
        let mut waits = WAITS.into_iter();
        let result = loop {
            let sent = self.attempt(signal, body.clone()).await;
            match (sent, waits.next()) {
                (Sent::Later { after, .. }, Some(wait)) => {
                    sleep(pause(wait, after)).await;
                    self.renew();
                }
                (sent, _) => break sent,
            }
        };
        exports(signal, result.as_str()).increment(1);
        self.tell(signal, &result);
    }

    /// Has new connections use what certificate files hold by now.
    fn renew(&mut self) {
        let pools = BTreeMap::from([(self.pool.id().clone(), self.pool.config().clone())]);
        if let Ok(renewed) = self.upstreams.reload(&pools) {
            renewed.take_effect();
            self.upstreams = renewed;
        }
    }

    async fn attempt(&self, signal: Signal, body: Bytes) -> Sent {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let request = UpstreamRequest {
            method: Method::POST,
            path_and_query: PathAndQuery::from_static(signal.path()),
            headers,
            body: UpstreamBody::Full(body),
            timeouts: TIMEOUTS,
            demand: Demand::default(),
            charge: None,
        };
        match self.client.send_to(&self.pool, &self.state, request).await {
            Err(error) => Sent::Later { reason: error.to_string(), after: None },
            Ok(response) => {
                let (status, after) = (response.status, retry_after(&response.headers));
                // Read to its end, the connection can be used again.
                let answer = response.body.collect(ANSWER_BYTES_MAX).await.unwrap_or_default();
                match Sent::of(status, after) {
                    Sent::Done => signal.rejected(&answer).map_or(Sent::Done, Sent::Refused),
                    sent => sent,
                }
            }
        }
    }

    fn tell(&mut self, signal: Signal, result: &Sent) {
        let was_away = std::mem::replace(&mut self.is_away, !matches!(result, Sent::Done));
        match result {
            Sent::Done if was_away => tracing::info!("the collector is back"),
            Sent::Done => {}
            Sent::Later { reason, .. } | Sent::Refused(reason) if !was_away => {
                tracing::warn!(
                    signal = signal.as_str(),
                    reason,
                    "the collector takes nothing; requests go on"
                );
            }
            Sent::Later { .. } | Sent::Refused(_) => {}
        }
    }
}

/// How long to wait at least, and at most as long as the collector asks for.
fn pause(wait: Duration, after: Option<Duration>) -> Duration {
    after.unwrap_or_default().min(WAIT_MAX).max(wait)
}

/// Seconds that the collector wants to be left alone for. A date, which nobody sends, is as if absent.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What could not even be tried.
pub(super) fn count_unusable(signal: Signal) {
    exports(signal, "refused").increment(1);
}

fn exports(signal: Signal, result: &'static str) -> Counter {
    counter!("refrain_otlp_exports_total", "signal" => signal.as_str(), "result" => result)
}

/// What became of a try.
enum Sent {
    Done,
    /// It may go well later: not before this time, if the collector says so.
    Later {
        reason: String,
        after: Option<Duration>,
    },
    /// It never will.
    Refused(String),
}

impl Sent {
    /// Which answers allow another try, and when: OTLP specification, "Retryable Response Codes" and "OTLP/HTTP Throttling".
    fn of(status: StatusCode, after: Option<Duration>) -> Self {
        match status.as_u16() {
            200..=299 => Self::Done,
            429 | 502..=504 => Self::Later { reason: status.to_string(), after },
            _ => Self::Refused(status.to_string()),
        }
    }

    fn as_str(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Later { .. } => "away",
            Self::Refused(_) => "refused",
        }
    }
}

impl Signal {
    fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        }
    }

    /// What a collector that took the rest says of what it did not take (OTLP specification, "Partial Success").
    fn rejected(self, answer: &[u8]) -> Option<String> {
        let (count, message) = match self {
            Self::Traces => {
                let partial = ExportTraceServiceResponse::decode(answer).ok()?.partial_success?;
                (partial.rejected_spans, partial.error_message)
            }
            Self::Metrics => {
                let partial = ExportMetricsServiceResponse::decode(answer).ok()?.partial_success?;
                (partial.rejected_data_points, partial.error_message)
            }
        };
        let message = &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)];
        (count > 0).then(|| format!("{count} refused: {message}"))
    }

    fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    #[test]
    fn a_collector_is_left_alone_for_as_long_as_it_asks_within_bounds() {
        let asked =
            |value| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]));
        let [second, four] = WAITS;
        assert_eq!(pause(second, retry_after(&HeaderMap::new())), second);
        assert_eq!(pause(second, asked("7")), Duration::from_secs(7));
        assert_eq!(pause(four, asked("0")), four);
        assert_eq!(pause(four, asked("86400")), WAIT_MAX);
        assert_eq!(pause(four, asked("Sun, 22 Nov 2026 21:00:00 GMT")), four);
    }

    #[test]
    fn what_a_collector_refuses_of_a_batch_is_told() {
        let answer = |rejected_spans| {
            let partial = ExportTracePartialSuccess { rejected_spans, error_message: "too old".into() };
            ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec()
        };
        assert_eq!(Signal::Traces.rejected(&answer(3)).as_deref(), Some("3 refused: too old"));
        // A warning, and answers of those that say nothing in Protocol Buffers.
        for fine in [&answer(0)[..], b"", b"{}"] {
            assert_eq!(Signal::Traces.rejected(fine), None);
        }
    }
}
