//! An OpenTelemetry collector, as far as a test needs one: takes OTLP over HTTP and reads what it was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;
use serde_json::json;

use crate::eventually;
use crate::fake::{Answer, FakeUpstream, Recorded};

pub use opentelemetry_proto::tonic::metrics::v1::Metric;
pub use opentelemetry_proto::tonic::metrics::v1::metric::Data;
pub use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as NumberValue;
pub use opentelemetry_proto::tonic::trace::v1::Span;

/// Requests that are taken.
const TAKEN: usize = 200;

/// A collector that ends with the test.
pub struct Collector(FakeUpstream);

impl Collector {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        let server = FakeUpstream::start().await;
        for _ in 0..TAKEN {
            server.next(Answer::json(200, &json!({})));
        }
        Self(server)
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// Who has sent metrics, by `service.instance.id`.
    pub fn instances(&self) -> BTreeSet<String> {
        let requests = self.0.requests("/v1/metrics");
        let decoded = requests.iter().map(|sent| ExportMetricsServiceRequest::decode(&*sent.body).unwrap());
        let resources =
            decoded.flat_map(|request| request.resource_metrics).filter_map(|metrics| metrics.resource);
        resources.filter_map(|resource| texts(&resource.attributes).remove("service.instance.id")).collect()
    }

    /// Requests as they came.
    pub fn requests(&self, path: &str) -> Vec<Recorded> {
        self.0.requests(path)
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        let requests = self.0.requests("/v1/traces");
        let decoded = requests.iter().map(|sent| ExportTraceServiceRequest::decode(&*sent.body).unwrap());
        let of_scopes =
            decoded.flat_map(|request| request.resource_spans).flat_map(|spans| spans.scope_spans);
        of_scopes.flat_map(|spans| spans.spans).collect()
    }

    /// The spans of a request, its own first, once there is one with this attribute. Children have the same trace.
    pub async fn request_with(&self, key: &str, value: &str) -> Vec<Span> {
        eventually(&format!("a span with {key}={value}"), async || {
            let spans = self.spans();
            let is_it = |span: &&Span| {
                span.kind == SERVER && attributes(span).get(key).is_some_and(|own| own == value)
            };
            let own = spans.iter().find(is_it)?.clone();
            let children = spans.into_iter().filter(|span| span.parent_span_id == own.span_id);
            Some(std::iter::once(own.clone()).chain(children).collect())
        })
        .await
    }

    /// The last word on all metrics, once there was one with this name.
    pub async fn metrics_with(&self, name: &str) -> Vec<Metric> {
        eventually(&format!("a metric {name}"), async || {
            let requests = self.0.requests("/v1/metrics");
            let last = ExportMetricsServiceRequest::decode(&*requests.last()?.body).unwrap();
            let of_scopes = last.resource_metrics.into_iter().flat_map(|metrics| metrics.scope_metrics);
            let all: Vec<Metric> = of_scopes.flat_map(|metrics| metrics.metrics).collect();
            all.iter().any(|metric| metric.name == name).then_some(all)
        })
        .await
    }
}

/// The kind of a request's own span.
const SERVER: i32 = 2;

/// Attributes as text.
pub fn attributes(span: &Span) -> BTreeMap<String, String> {
    texts(&span.attributes)
}

/// The same of any list.
pub fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::DoubleValue(number) => Some(number.to_string()),
        Value::BoolValue(truth) => Some(truth.to_string()),
        _ => None,
    };
    attributes.iter().filter_map(|attribute| Some((attribute.key.clone(), text(attribute)?))).collect()
}
