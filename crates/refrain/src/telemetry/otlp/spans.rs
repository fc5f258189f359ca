//! Spans of finished requests: one for the request, one for each of its stages.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, SpanFlags, Status};
use refrain_core::{EndpointId, Fault, Usage};
use refrain_proxy::{RequestTrace, Stage, StageKind};

use super::value::{fraction, nanos, number, resource, scope, text, truth};
use crate::telemetry::gen_ai;

/// What became of the request at the cache: `hit_exact`, `miss`, `bypass`, ...
const OUTCOME: &str = "refrain.cache.outcome";

/// What a collector is sent.
pub(super) fn request(service_name: &str, batch: &[RequestTrace]) -> ExportTraceServiceRequest {
    let spans = batch.iter().flat_map(of).collect();
    let of_scope = ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource(service_name)),
            scope_spans: vec![of_scope],
            ..ResourceSpans::default()
        }],
    }
}

/// A request's spans, its own first.
fn of(trace: &RequestTrace) -> Vec<Span> {
    let begun = nanos(trace.begun);
    let own = Span {
        trace_id: trace.trace_id.to_vec(),
        span_id: trace.span_id.to_vec(),
        trace_state: trace.state.clone(),
        parent_span_id: trace.parent.map(Vec::from).unwrap_or_default(),
        name: name(trace),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: begun,
        end_time_unix_nano: begun + trace.took.as_nanos() as u64,
        attributes: attributes(trace),
        status: Some(status(is_failed(trace))),
        flags: flags(trace, trace.parent.is_some()),
        ..Span::default()
    };
    let stages = trace.stages.iter().map(|stage| of_stage(trace, *stage, begun));
    std::iter::once(own).chain(stages).collect()
}

/// `{operation} {model}`, as the conventions want it.
fn name(trace: &RequestTrace) -> String {
    match trace.api {
        Some(api) if trace.model.is_empty() => gen_ai::operation(api).to_owned(),
        Some(api) => format!("{} {}", gen_ai::operation(api), trace.model),
        None => "request".to_owned(),
    }
}

/// Whether it went wrong on our side. What a client did wrong is no error of a server's span: OpenTelemetry's conventions for
/// HTTP, "Status".
fn is_failed(trace: &RequestTrace) -> bool {
    trace.ended == "failed" || trace.status.is_some_and(|status| status.is_server_error())
}

/// Whether the model server failed.
fn is_upstream_failed(trace: &RequestTrace) -> bool {
    match trace.error {
        Some(code) => code.fault() == Fault::Upstream,
        None => trace.origin == "upstream" && is_failed(trace),
    }
}

fn status(is_failed: bool) -> Status {
    let code = if is_failed { StatusCode::Error } else { StatusCode::Unset };
    Status { code: code.into(), message: String::new() }
}

/// What a span says of its own place and of its parent's.
fn flags(trace: &RequestTrace, is_parent_remote: bool) -> u32 {
    let remote = if is_parent_remote { SpanFlags::ContextIsRemoteMask as u32 } else { 0 };
    u32::from(trace.is_sampled) | SpanFlags::ContextHasIsRemoteMask as u32 | remote
}

fn attributes(trace: &RequestTrace) -> Vec<KeyValue> {
    let mut all = vec![
        text(OUTCOME, trace.outcome),
        text("refrain.origin", trace.origin),
        text("refrain.ended", trace.ended),
    ];
    all.extend(asked(trace));
    all.extend(trace.api.map(|_| truth(gen_ai::REQUEST_STREAM, trace.stream)));
    all.extend(trace.route.as_ref().map(|route| text("refrain.route", route.as_str())));
    all.extend(
        Some(trace.detail).filter(|detail| !detail.is_empty()).map(|detail| text("refrain.detail", detail)),
    );
    all.extend(trace.status.map(|status| number(gen_ai::STATUS, status.as_u16().into())));
    all.extend(error(trace));
    all.extend(trace.first_byte.map(|time| fraction("refrain.first_byte_seconds", time.as_secs_f64())));
    all.extend(trace.usage.into_iter().flat_map(usage));
    all
}

/// What was asked of a model.
fn asked(trace: &RequestTrace) -> Vec<KeyValue> {
    let Some(api) = trace.api else { return Vec::new() };
    let mut all =
        vec![text(gen_ai::OPERATION, gen_ai::operation(api)), text(gen_ai::PROVIDER, gen_ai::provider(api))];
    all.extend((!trace.model.is_empty()).then(|| text(gen_ai::REQUEST_MODEL, trace.model.as_str())));
    all
}

/// Refrain's own code, or the status that an upstream answered with.
fn error(trace: &RequestTrace) -> Option<KeyValue> {
    let of_status = || trace.status.filter(|status| status.is_server_error());
    match trace.error {
        Some(code) => Some(text(gen_ai::ERROR, code.as_str())),
        None => of_status().map(|status| text(gen_ai::ERROR, status.as_str())),
    }
}

fn usage(usage: Usage) -> impl Iterator<Item = KeyValue> {
    let Usage { input_tokens, output_tokens, cached_tokens } = usage;
    let all = [
        (gen_ai::INPUT_TOKENS, input_tokens),
        (gen_ai::OUTPUT_TOKENS, output_tokens),
        (gen_ai::CACHED_TOKENS, cached_tokens),
    ];
    all.into_iter().filter_map(|(key, tokens)| Some(number(key, tokens?)))
}

fn of_stage(trace: &RequestTrace, stage: Stage, request_begun: u64) -> Span {
    let begun = request_begun + stage.begun.as_nanos() as u64;
    let (name, kind, span_id, attributes) = match stage.kind {
        StageKind::Policy => ("policy".to_owned(), SpanKind::Internal, child_id(trace, 1), Vec::new()),
        StageKind::Lookup => {
            ("cache lookup".to_owned(), SpanKind::Internal, child_id(trace, 2), lookup(trace))
        }
        StageKind::Dispatch if !is_asked(trace) => (
            "wait for another request".to_owned(),
            SpanKind::Internal,
            trace.dispatch_id.to_vec(),
            dispatch(trace),
        ),
        StageKind::Dispatch => (name(trace), SpanKind::Client, trace.dispatch_id.to_vec(), dispatch(trace)),
    };
    let is_failed = stage.kind == StageKind::Dispatch && is_upstream_failed(trace);
    Span {
        trace_id: trace.trace_id.to_vec(),
        span_id,
        status: Some(status(is_failed)),
        flags: flags(trace, false),
        trace_state: trace.state.clone(),
        parent_span_id: trace.span_id.to_vec(),
        name,
        kind: kind.into(),
        start_time_unix_nano: begun,
        end_time_unix_nano: begun + stage.took.as_nanos() as u64,
        attributes,
        ..Span::default()
    }
}

/// Whether a server was asked for it. Whoever collapses into another's generation asks nobody, nor does who finds its answer
/// stored meanwhile; a stale answer is there because a server was asked in vain.
fn is_asked(trace: &RequestTrace) -> bool {
    !matches!(trace.outcome, "collapsed" | "hit_exact" | "hit_semantic")
}

fn lookup(trace: &RequestTrace) -> Vec<KeyValue> {
    let mut all =
        vec![truth("refrain.cache.hit", trace.outcome.starts_with("hit_")), text(OUTCOME, trace.outcome)];
    all.extend(trace.similarity.map(|similarity| fraction("refrain.cache.similarity", similarity.into())));
    all
}

fn dispatch(trace: &RequestTrace) -> Vec<KeyValue> {
    let mut all = if is_asked(trace) { asked(trace) } else { Vec::new() };
    if is_upstream_failed(trace) {
        all.extend(error(trace));
    }
    all.extend(trace.pool.as_ref().map(|pool| text("refrain.pool", pool.as_str())));
    all.extend(trace.endpoint.iter().flat_map(server));
    all.extend((trace.attempts > 0).then(|| number("refrain.upstream.attempts", trace.attempts.into())));
    all
}

/// Who answered; its address, where that is its name.
fn server(endpoint: &EndpointId) -> Vec<KeyValue> {
    let mut all = vec![text("refrain.endpoint", endpoint.as_str())];
    let address =
        endpoint.as_str().rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    if let Some((host, port)) = address {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        all.extend([text(gen_ai::SERVER, host), number(gen_ai::SERVER_PORT, port.into())]);
    }
    all
}

/// Ids of spans that nobody outside refers to: the request's own, with another last byte.
fn child_id(trace: &RequestTrace, nth: u8) -> Vec<u8> {
    let mut id = trace.span_id;
    id[7] ^= nth;
    id.to_vec()
}
