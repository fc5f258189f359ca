//! A policy asked through the proxy's rehearsal, in terms of what people write and read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use refrain_core::settings::Route;
use refrain_plugin::verdict::Candidate;
use refrain_plugin::{PluginHost, ResponseSummary};
use refrain_proxy::rehearsal::{
    self, Followed, RehearsalError, RehearsedCandidate, RehearsedRequest, RehearsedResponse,
};
use serde_json::{Map, Value};

use super::decision;
use super::request::{StoredAnswer, TrialRequest, UpstreamAnswer};

/// The model that answers here.
const MODEL: &str = "m";

/// A policy on its route.
pub(super) struct Rehearsal(rehearsal::Rehearsal);

/// What a policy said of a request, and what follows.
pub(super) struct Rehearsed {
    /// For people.
    pub(super) decision: Map<String, Value>,
    /// The cache key, in hex; none: not cached. Another one in each process.
    pub(super) key: Option<String>,
    /// The routing key, in hex; none: the pool's own rule.
    pub(super) routing_key: Option<String>,
    /// What the upstream would be sent.
    pub(super) upstream_body: Option<Bytes>,
    /// How long it took to decide.
    pub(super) took: Duration,
    inner: rehearsal::Rehearsed,
}

impl Rehearsal {
    /// Loads the route's policy.
    pub(super) async fn new(host: &Arc<PluginHost>, route: Route) -> Result<Self, RehearsalError> {
        rehearsal::Rehearsal::new(host, route).await.map(Self)
    }

    /// Asks it about a request.
    ///
    /// # Errors
    /// The request doesn't come so far; the caller has no right to what the policy chose.
    pub(super) async fn request(&self, request: &TrialRequest) -> anyhow::Result<Rehearsed> {
        let request = rehearsed(request)?;
        let inner = self.0.request(request).await?;
        let decision = decision::of(&inner.decision);
        let (key, routing_key, upstream_body) = match &inner.followed {
            None => (None, None, None),
            Some(Ok(Followed { key, routing_key, upstream_body, .. })) => {
                (key.map(digits), routing_key.map(digits), Some(upstream_body.clone()))
            }
            Some(Err(error)) => anyhow::bail!("what it decided can't be followed: {error}"),
        };
        Ok(Rehearsed { decision, key, routing_key, upstream_body, took: inner.took, inner })
    }
}

impl Rehearsed {
    /// Asks about stored answers, best first.
    pub(super) async fn candidates(&self, answers: &[StoredAnswer]) -> Option<Map<String, Value>> {
        let verdict = self.inner.candidates(answers.iter().map(candidate).collect()).await?;
        Some(decision::of_verdict(&verdict))
    }

    /// Asks about the upstream's answer.
    pub(super) async fn response(&self, answer: &UpstreamAnswer) -> Option<Map<String, Value>> {
        let outcome = self.inner.response(response(answer)).await?;
        Some(decision::of_outcome(&outcome))
    }
}

fn rehearsed(request: &TrialRequest) -> anyhow::Result<RehearsedRequest> {
    let TrialRequest { method, path, headers, identity, body } = request;
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let parsed = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()));
        let (Ok(parsed), Ok(value)) = parsed else { anyhow::bail!("not a header: {name:?}") };
        map.append(parsed, value);
    }
    Ok(RehearsedRequest {
        method: Method::from_bytes(method.as_bytes()).with_context(|| format!("not a method: {method:?}"))?,
        path: path.clone(),
        headers: map,
        identity: identity.clone(),
        body: Bytes::from(body.clone()),
    })
}

fn candidate(answer: &StoredAnswer) -> RehearsedCandidate {
    let StoredAnswer { similarity, exact, source_text, answer, age, stale, labels } = answer.clone();
    RehearsedCandidate {
        seen: Candidate {
            similarity,
            exact,
            age_s: age,
            stale,
            source_text,
            model: MODEL.to_owned(),
            labels: labels.into_iter().collect(),
        },
        answer,
    }
}

fn response(answer: &UpstreamAnswer) -> RehearsedResponse {
    let UpstreamAnswer { text, finish_reason, status, complete, tool_calls, headers } = answer.clone();
    RehearsedResponse {
        summary: ResponseSummary {
            status,
            finish_reason,
            complete,
            has_tool_calls: tool_calls,
            input_tokens: None,
            output_tokens: None,
            upstream: "upstream".to_owned(),
            latency_ms: 0,
            text_size: u32::try_from(text.len()).unwrap_or(u32::MAX),
        },
        headers: headers
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect::<BTreeMap<_, _>>(),
        text,
    }
}

fn digits(digest: [u8; 32]) -> String {
    refrain_core::hex(&digest)
}
