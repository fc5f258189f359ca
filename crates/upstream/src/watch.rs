//! Looks at every endpoint now and then: is it ready, and which models does it have?
//!
//! Ready means that it lists its models, not that a port is open: a server that still loads answers 503. Nothing is ever
//! generated for it. A server that doesn't know the question (404, 401 and the like) is there all the same.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};
use refrain_core::Drain;
use refrain_core::settings::{PoolKind, Timeouts};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::clock::Millis;
use crate::demand::Demand;
use crate::endpoint::EndpointState;
use crate::models::Models;
use crate::{Client, PoolState, UpstreamBody, UpstreamError, UpstreamRequest, Upstreams};

/// How soon pools are looked at whose turn it isn't yet, if somebody asks for an unknown model.
const INTERVAL_WANTED: Duration = Duration::from_secs(1);
/// How often models of an Ollama are read where health is not looked at.
const INTERVAL_IDENTITIES: Duration = Duration::from_secs(5);
/// How often it is seen whether anything is due.
const TICK: Duration = Duration::from_millis(250);
/// Looks under way at once.
const LOOKS_MAX: usize = 64;
/// Longest list of models that is read, in bytes.
const LIST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Time-outs of a look.
pub(crate) const LOOK_TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    first_byte: Duration::from_secs(5),
    idle: Duration::from_secs(5),
    total: Duration::from_secs(10),
};

/// Looks at all endpoints until the process drains. `current` gives the pools of the live configuration.
///
/// Belongs on the control runtime, with a client of that runtime.
///
/// # Cancel safety
/// Safe: what was learned so far stays.
pub async fn watch(current: impl Fn() -> Arc<Upstreams> + Send, client: Client, drain: Drain) {
    let mut looks = JoinSet::new();
    let (mut wanted, mut brought_forward) = (false, Instant::now());
    loop {
        let upstreams = current();
        let now = Instant::now();
        if wanted && now >= brought_forward + INTERVAL_WANTED {
            (wanted, brought_forward) = (false, now);
            upstreams.pools().for_each(|pool| pool.look_soon());
        }
        for (pool, endpoint) in due(&upstreams, now) {
            if looks.len() >= LOOKS_MAX {
                let _ = looks.join_next().await;
            }
            looks.spawn(look(client.clone(), pool, endpoint));
        }
        while looks.try_join_next().is_some() {}
        tokio::select! {
            () = drain.begun() => return,
            () = upstreams.model_wanted.notified(), if !wanted => wanted = true,
            () = sleep_until(now + TICK) => {}
        }
    }
}

/// Endpoints of pools whose turn it is.
fn due(upstreams: &Upstreams, now: Instant) -> Vec<(Arc<PoolState>, Arc<EndpointState>)> {
    let pools = upstreams
        .pools()
        .filter(|pool| interval(pool).is_some_and(|interval| pool.takes_look(now, interval)));
    pools
        .flat_map(|pool| {
            pool.endpoints().iter().map(|endpoint| (pool.clone(), endpoint.clone())).collect::<Vec<_>>()
        })
        .collect()
}

fn interval(pool: &PoolState) -> Option<Duration> {
    let config = pool.config();
    let identities = (config.kind == PoolKind::Ollama).then_some(INTERVAL_IDENTITIES);
    config.health.interval.or(identities)
}

impl Upstreams {
    /// Looks at every endpoint of every pool, at the same time. One that does not answer keeps what it said last.
    ///
    /// # Cancel safety
    /// Safe: looks under way are given up, what was learned so far stays.
    pub async fn look_at_all(&self, client: &Client) {
        let mut looks = JoinSet::new();
        for pool in self.pools().filter(|pool| interval(pool).is_some()) {
            // Else the next look would follow at once, and two failures count.
            pool.takes_look(Instant::now(), Duration::ZERO);
            for endpoint in pool.endpoints().iter() {
                looks.spawn(look(client.clone(), pool.clone(), endpoint.clone()));
            }
        }
        while looks.join_next().await.is_some() {}
    }
}

/// What a look found.
enum Found {
    Models(Models),
    /// It answers, but doesn't say what it has.
    Something,
    /// It says that it isn't ready.
    NotReady(StatusCode),
}

async fn look(client: Client, pool: Arc<PoolState>, endpoint: Arc<EndpointState>) {
    let found = match pool.config().kind {
        PoolKind::Generic => openai(&client, &pool, &endpoint).await,
        PoolKind::Ollama => ollama(&client, &pool, &endpoint).await,
    };
    let is_ready = match found {
        Ok(Found::Models(models)) => {
            endpoint.models.store(Some(Arc::new(models)));
            pool.note_models();
            true
        }
        Ok(Found::Something) => true,
        Ok(Found::NotReady(status)) => {
            endpoint.note_trouble(format!("not ready: {status} to a question for its models"));
            false
        }
        Err(error) => {
            debug!(pool = %pool.id(), %error, "an endpoint did not answer a look");
            endpoint.note_trouble(&error);
            false
        }
    };
    if pool.config().health.interval.is_some() {
        endpoint.health.note_look(is_ready, Millis::now());
    }
}

async fn openai(
    client: &Client,
    pool: &Arc<PoolState>,
    endpoint: &Arc<EndpointState>,
) -> Result<Found, UpstreamError> {
    let (status, body) = ask(client, pool, endpoint, "/v1/models").await?;
    Ok(found(status, Models::of_openai(&body)))
}

async fn ollama(
    client: &Client,
    pool: &Arc<PoolState>,
    endpoint: &Arc<EndpointState>,
) -> Result<Found, UpstreamError> {
    let (status, body) = ask(client, pool, endpoint, "/api/tags").await?;
    let found = found(status, Models::of_ollama(&body));
    let Found::Models(models) = found else { return Ok(found) };
    // Without it, nothing is known to be in memory.
    let resident = ask(client, pool, endpoint, "/api/ps").await;
    let resident = resident.ok().filter(|(status, _)| status.is_success());
    Ok(Found::Models(match resident {
        Some((_, body)) => models.with_resident(&body),
        None => models,
    }))
}

fn found(status: StatusCode, models: Option<Models>) -> Found {
    match models {
        Some(models) if status.is_success() => Found::Models(models),
        _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => Found::NotReady(status),
        _ => Found::Something,
    }
}

async fn ask(
    client: &Client,
    pool: &Arc<PoolState>,
    endpoint: &Arc<EndpointState>,
    path: &'static str,
) -> Result<(StatusCode, bytes::Bytes), UpstreamError> {
    let response = client.send_to(pool, endpoint, get(path)).await?;
    Ok((response.status, response.body.collect(LIST_BYTES_MAX).await?))
}

/// A small request of our own.
pub(crate) fn get(path: &'static str) -> UpstreamRequest {
    UpstreamRequest {
        method: Method::GET,
        path_and_query: PathAndQuery::from_static(path),
        headers: HeaderMap::new(),
        body: UpstreamBody::empty(),
        timeouts: LOOK_TIMEOUTS,
        demand: Demand::default(),
        charge: None,
    }
}
