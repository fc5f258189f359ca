//! `/upstreams` and `/scaling`: how the pools do, for people and autoscalers; and drains of single endpoints.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use refrain_core::settings::Endpoint;
use refrain_upstream::{EndpointState, EndpointStats, Listed, PoolState, SourceStatus, Upstreams};
use serde_json::json;

use super::body;
use super::pages::{json_page, text};
use crate::control::Running;
use crate::upstreams::{
    DrainAnswer, DrainRequest, EndpointReport, ErrorReport, PoolReport, QueueReport, ScalingOfPool,
    ScalingReport, SourceReport, UpstreamsReport,
};

const EXAMPLE: &str = r#"{"pool": "gpu", "endpoint": "10.0.0.2:8000"}"#;

/// `GET /upstreams`.
pub(super) fn page(running: &Running) -> Response<Full<Bytes>> {
    let upstreams = running.live.load().upstreams.clone();
    let pools = upstreams.pools().map(|pool| pool_report(&upstreams, pool)).collect();
    json_page(StatusCode::OK, &json!(UpstreamsReport { proxies: upstreams.proxies(), pools }))
}

/// `GET /scaling`.
pub(super) fn scaling(running: &Running) -> Response<Full<Bytes>> {
    let upstreams = running.live.load().upstreams.clone();
    let of_pool = |pool: &PoolState| {
        let stats = pool.summary();
        ScalingOfPool {
            desired_replicas: stats.desired_replicas,
            in_service: in_service(pool),
            in_flight: stats.in_flight,
            capacity: stats.capacity,
            queue_depth: stats.queued,
            queue_waits: stats.waits,
            queue_wait_seconds: stats.waited.as_secs_f64(),
            output_tokens_per_second: stats.output_tokens_per_second,
        }
    };
    let pools = upstreams.pools().map(|pool| (pool.id().as_str().to_owned(), of_pool(pool))).collect();
    json_page(StatusCode::OK, &json!(ScalingReport { proxies: upstreams.proxies(), pools }))
}

/// What is to become of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// It gets no new requests.
    Drain,
    /// It gets its share.
    Undrain,
}

/// `POST /upstreams/drain` and `/upstreams/undrain`.
pub(super) async fn serve(running: &Running, service: Service, request: Incoming) -> Response<Full<Bytes>> {
    let request: DrainRequest = match body::read(request, EXAMPLE).await {
        Ok(request) => request,
        Err(problem) => return text(StatusCode::BAD_REQUEST, format!("{problem}\n")),
    };
    let upstreams = running.live.load().upstreams.clone();
    let (pool, endpoint) = match found(&upstreams, &request) {
        Ok(found) => found,
        Err(problem) => return text(StatusCode::NOT_FOUND, format!("{problem}\n")),
    };
    endpoint.set_draining(service == Service::Drain);
    let stats = pool.stats().into_iter().find(|stats| stats.endpoint == *endpoint.id());
    tracing::info!(pool = %pool.id(), endpoint = %endpoint.id(), ?service, "an operator's word");
    let answer = DrainAnswer {
        state: stats.as_ref().map_or("gone", |stats| stats.state.as_str()).to_owned(),
        in_flight: stats.map_or(0, |stats| stats.in_flight),
        in_service: in_service(pool),
        pool: request.pool,
        endpoint: request.endpoint,
    };
    json_page(StatusCode::OK, &json!(answer))
}

/// The endpoint that is meant, or who there is.
fn found<'u>(
    upstreams: &'u Upstreams,
    request: &DrainRequest,
) -> Result<(&'u PoolState, Arc<EndpointState>), String> {
    let DrainRequest { pool: pool_name, endpoint: name } = request;
    let Some(pool) = upstreams.pools().find(|pool| pool.id().as_str() == pool_name) else {
        let known = listed(upstreams.pools().map(|pool| pool.id().as_str().to_owned()));
        return Err(format!("unknown pool {pool_name:?}; known: {known}"));
    };
    let endpoints = pool.endpoints();
    match endpoints.iter().find(|endpoint| endpoint.id().as_str() == name) {
        Some(endpoint) => Ok((pool, endpoint.clone())),
        None => {
            let known = listed(endpoints.iter().map(|endpoint| endpoint.id().as_str().to_owned()));
            Err(format!("pool {pool_name:?} has no endpoint {name:?}; it has: {known}"))
        }
    }
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn in_service(pool: &PoolState) -> usize {
    pool.stats().iter().filter(|stats| stats.state.is_asked()).count()
}

fn pool_report(upstreams: &Upstreams, pool: &PoolState) -> PoolReport {
    let stats = pool.summary();
    let found = upstreams.discoveries().found(pool.id());
    let sources = upstreams.discoveries().statuses().into_iter().filter(|source| source.pool == *pool.id());
    PoolReport {
        in_flight: stats.in_flight,
        prompt_tokens: stats.tokens,
        limit: stats.limit,
        capacity: stats.capacity,
        queue: QueueReport {
            depth: stats.queued,
            waits: stats.waits,
            wait_seconds: stats.waited.as_secs_f64(),
            refused: stats.refused,
        },
        desired_replicas: stats.desired_replicas,
        endpoints: pool.stats().into_iter().map(|stats| endpoint_report(pool, &found, stats)).collect(),
        discovery: sources.map(source_report).collect(),
        pool: stats.pool.as_str().to_owned(),
    }
}

fn endpoint_report(pool: &PoolState, found: &[Listed], stats: EndpointStats) -> EndpointReport {
    let listed = found.iter().find(|listed| listed.endpoint.id == stats.endpoint);
    let last_error =
        stats.last_error.map(|(at, message)| ErrorReport { message, seconds_ago: seconds_since(at) });
    EndpointReport {
        url: pool.endpoint(&stats.endpoint).map(|endpoint| url(&endpoint.config)),
        endpoint: stats.endpoint.as_str().to_owned(),
        state: stats.state.as_str().to_owned(),
        share: stats.share,
        in_flight: stats.in_flight,
        prompt_tokens: stats.tokens,
        requests: stats.requests,
        failures: stats.failures,
        models: stats.models,
        price_per_hour: listed.and_then(|listed| listed.price_per_hour),
        uptime_seconds: listed.and_then(|listed| listed.started).map(seconds_since),
        gpu_utilization: stats.gpu_utilization,
        last_error,
    }
}

fn source_report(status: SourceStatus) -> SourceReport {
    SourceReport {
        source: status.source,
        kind: status.kind.to_owned(),
        members: status.members,
        held_back: status.held_back,
        unusable: status.unusable,
        last_success_seconds_ago: status.last_success.map(seconds_since),
        last_error: status.last_error.map(|error| error.to_string()),
    }
}

fn url(Endpoint { tls, host, port, base_path, .. }: &Endpoint) -> String {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    format!("{scheme}://{host}:{port}{base_path}")
}

/// 0 for what is to come: clocks are set.
fn seconds_since(time: SystemTime) -> u64 {
    SystemTime::now().duration_since(time).unwrap_or_default().as_secs()
}
