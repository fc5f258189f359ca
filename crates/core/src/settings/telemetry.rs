//! Traces and metrics for an OpenTelemetry collector, and prompts in the log.

use std::time::Duration;

use super::Endpoint;

/// An OTLP collector, and what it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Otlp {
    /// The collector: OTLP over HTTP, in Protocol Buffers.
    pub endpoint: Endpoint,
    /// The resource's `service.name`.
    pub service_name: String,
    /// Spans; none: they are not sent.
    pub traces: Option<Traces>,
    /// How often metrics are sent; none: they are not.
    pub metrics_interval: Option<Duration>,
}

/// Which requests have spans.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traces {
    /// Share of requests without a trace of their own that have one, 0 to 1. Errors always have one.
    pub sample: f64,
    /// What a request's own trace context counts for.
    pub parent: ParentContext,
}

/// What the trace context (`traceparent`) of a request counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ParentContext {
    /// It is continued, and its word on sampling is followed.
    #[default]
    Followed,
    /// Nothing: each request begins a trace.
    Ignored,
}

/// A route whose prompts are in its access lines, redacted and cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptLog {
    /// Regular expressions of what is left out beside addresses, numbers and keys; they are valid.
    pub redact: Vec<String>,
}

impl Otlp {
    /// The name, if config doesn't say.
    pub const SERVICE_NAME: &'static str = "refrain";
    /// How often metrics are sent, if config doesn't say.
    pub const METRICS_INTERVAL: Duration = Duration::from_secs(60);
}

impl Default for Traces {
    fn default() -> Self {
        Self { sample: 0.01, parent: ParentContext::default() }
    }
}
