//! `[otlp]`, and `[route.NAME.log]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{SecretSource, UpstreamTls};
use crate::text::{NonEmpty, TimeSpan, UpstreamUrl};

/// An OpenTelemetry collector that takes OTLP over HTTP in Protocol Buffers. Spans never hold prompts or answers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Otlp {
    /// Its base URL, mostly with port 4318: `/v1/traces` and `/v1/metrics` are added.
    #[schemars(required)]
    pub(crate) url: Option<UpstreamUrl>,
    /// TLS, for an https URL.
    pub(crate) tls: Option<UpstreamTls>,
    /// The `Authorization` to send. Default: none.
    pub(crate) authorization: Option<SecretSource>,
    /// Other headers to send. Default: none.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, SecretSource>,
    /// The resource's `service.name`. Default "refrain".
    pub(crate) service_name: Option<NonEmpty>,
    /// Send spans. Default true.
    pub(crate) traces: Option<bool>,
    /// Share of requests that have spans, where their own trace context doesn't say; errors always do. Default 0.01.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) sample: Option<f64>,
    /// Continue the trace that a request's `traceparent` names, and follow its word on sampling. Default true.
    pub(crate) trust_parent: Option<bool>,
    /// Send metrics. Default true.
    pub(crate) metrics: Option<bool>,
    /// How often metrics are sent. Default "1m".
    pub(crate) metrics_interval: Option<TimeSpan>,
}

/// What a route's access lines say beside the usual.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RouteLog {
    /// **Write what people ask into the log**: the beginning of the last message, without mail addresses, long numbers and
    /// keys. Default false.
    pub(crate) prompts: Option<bool>,
    /// Regular expressions of what else is left out. Default: none.
    pub(crate) redact: Vec<String>,
}
