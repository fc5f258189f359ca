//! What stands behind a model name of an Ollama: the digests of `GET /api/tags`, looked at every few seconds.
//!
//! Source: Ollama's `api/types.go` (`ListResponse`) and `server/routes.go`. A name without a tag means `:latest`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use refrain_core::Drain;
use refrain_core::settings::{PoolKind, Timeouts};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::endpoint::EndpointState;
use crate::{Client, PoolState, UpstreamBody, UpstreamError, UpstreamRequest, Upstreams};

/// How often every Ollama is asked.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// How soon again if somebody asks for an unknown model.
const REFRESH_INTERVAL_WANTED: Duration = Duration::from_secs(1);

/// Longest list of models that is read, in bytes.
const TAGS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Time-outs of a look.
pub(crate) const LOOK_TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    first_byte: Duration::from_secs(5),
    idle: Duration::from_secs(5),
    total: Duration::from_secs(10),
};

/// Digests by model name, as one endpoint listed them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Digests(HashMap<String, Arc<str>>);

/// Whether a pool's endpoints were seen to disagree: logged once a pool.
#[derive(Debug, Default)]
pub(crate) struct Disagreement(AtomicBool);

#[derive(Deserialize)]
struct Tags {
    models: Vec<Tag>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
    digest: String,
}

impl Digests {
    fn parse(json: &[u8]) -> Option<Self> {
        let tags: Tags = serde_json::from_slice(json).ok()?;
        let known = tags.models.into_iter().filter(|tag| !tag.digest.is_empty());
        Some(Self(known.map(|tag| (bare(&tag.name).to_owned(), tag.digest.into())).collect()))
    }

    fn of(&self, model: &str) -> Option<&Arc<str>> {
        self.0.get(bare(model))
    }
}

/// The name by which `gemma` and `gemma:latest` are the same.
fn bare(model: &str) -> &str {
    model.strip_suffix(":latest").unwrap_or(model)
}

/// The digest at one endpoint, as last seen.
pub(crate) fn at(endpoint: &EndpointState, model: &str) -> Option<Arc<str>> {
    endpoint.digests.load().as_ref()?.of(model).cloned()
}

/// The digest that all endpoints which hold the model agree on.
///
/// An endpoint that never told its models does not count: it would switch the cache off for as long as it is down.
pub(crate) fn agreed(pool: &PoolState, model: &str) -> Option<Arc<str>> {
    let mut held = pool.endpoints().iter().filter_map(|endpoint| at(endpoint, model));
    let first = held.next()?;
    let agree = held.all(|other| other == first);
    pool.disagreement.note(pool, agree);
    agree.then_some(first)
}

impl Disagreement {
    fn note(&self, pool: &PoolState, agree: bool) {
        if !agree && !self.0.swap(true, Relaxed) {
            warn!(pool = %pool.id(), "endpoints hold different builds of a model: it is not cached until they agree");
        }
    }
}

/// Keeps the model identities of Ollama pools fresh until the process drains: every few seconds, and soon after
/// somebody asked for an unknown model. `current` gives the pools of the live configuration.
///
/// Belongs on the control runtime, with a client of that runtime.
///
/// # Cancel safety
/// Safe: what was learned so far stays.
pub async fn keep_identities(current: impl Fn() -> Arc<Upstreams> + Send, client: Client, drain: Drain) {
    loop {
        let upstreams = current();
        let looked = Instant::now();
        tokio::select! {
            () = drain.begun() => return,
            () = upstreams.refresh_identities(&client) => {}
        }
        let wanted = async {
            upstreams.model_wanted.notified().await;
            sleep_until(looked + REFRESH_INTERVAL_WANTED).await;
        };
        tokio::select! {
            () = drain.begun() => return,
            () = wanted => {}
            () = sleep_until(looked + REFRESH_INTERVAL) => {}
        }
    }
}

impl Upstreams {
    /// Asks every endpoint of every Ollama pool for its models, at the same time. One that does not answer keeps what it
    /// said last.
    ///
    /// # Cancel safety
    /// Safe: looks under way are given up, what was learned so far stays.
    pub async fn refresh_identities(&self, client: &Client) {
        let mut looks = tokio::task::JoinSet::new();
        for pool in self.pools().filter(|pool| pool.config().kind == PoolKind::Ollama) {
            for endpoint in pool.endpoints() {
                looks.spawn(look(client.clone(), pool.clone(), endpoint.clone()));
            }
        }
        while looks.join_next().await.is_some() {}
    }
}

async fn look(client: Client, pool: Arc<PoolState>, endpoint: Arc<EndpointState>) {
    match tags(&client, &pool, &endpoint).await {
        Ok(digests) => endpoint.digests.store(Some(Arc::new(digests))),
        Err(error) => debug!(pool = %pool.id(), %error, "model list not refreshed"),
    }
}

async fn tags(
    client: &Client,
    pool: &PoolState,
    endpoint: &Arc<EndpointState>,
) -> Result<Digests, UpstreamError> {
    let response = client.send_to(pool, endpoint, get("/api/tags")).await?;
    let status = response.status;
    let body = response.body.collect(TAGS_BYTES_MAX).await?;
    Digests::parse(&body).filter(|_| status.is_success()).ok_or_else(|| UpstreamError::Malformed {
        endpoint: endpoint.id().clone(),
        detail: "it is not a list of models",
    })
}

/// A small request of our own.
pub(crate) fn get(path: &'static str) -> UpstreamRequest {
    UpstreamRequest {
        method: Method::GET,
        path_and_query: PathAndQuery::from_static(path),
        headers: HeaderMap::new(),
        body: UpstreamBody::empty(),
        timeouts: LOOK_TIMEOUTS,
        routing_key: None,
    }
}
