//! `POST /explain`, `GET /misses`, `POST /feedback`: why requests hit or not, and what to do about a wrong answer.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use refrain_cache::{
    Conditions, Purge, PurgeError, PurgeHow, PurgeMode, Select, Serving, answer_tag, unix_ms,
};
use refrain_core::hex;
use refrain_proxy::{AnswerCache, Snapshot, explain};
use serde_json::json;

use super::body;
use super::pages::{json_page, text};
use crate::control::Running;
use crate::why::{
    ExplainAnswer, ExplainRequest, FeedbackAnswer, FeedbackRequest, Label, Labels, MissesAnswer, ServedTo,
};

const EXAMPLE: &str = r#"{"id": "chatcmpl-7f3a", "dry_run": true}"#;
/// Of those who were served an answer, how many are told.
const SERVED_MAX: usize = 1000;

/// `POST /explain`.
pub(super) async fn explain(running: &Running, body: Incoming) -> Response<Full<Bytes>> {
    let snapshot = running.live.load_full();
    // A body that stands within another is escaped; what is around it is small.
    let bytes_max = snapshot.settings.limits.body_bytes_max.saturating_mul(2).saturating_add(64 * 1024);
    let explained = match body::whole(body, bytes_max).await {
        Ok(text) => ExplainRequest::of_text(&text).and_then(ExplainRequest::into_explained),
        Err(problem) => return text(StatusCode::BAD_REQUEST, format!("{problem}\n")),
    };
    match explained {
        Ok(request) => {
            let answer = ExplainAnswer::from(explain::explain(&snapshot, request).await);
            json_page(StatusCode::OK, &json!(answer))
        }
        Err(problem) => text(StatusCode::BAD_REQUEST, format!("{problem:#}\n")),
    }
}

/// `GET /misses`.
pub(super) async fn misses(running: &Running) -> Response<Full<Bytes>> {
    let Some(cache) = running.live.load().cache.clone() else { return no_store() };
    // Every miss is held against hundreds of others.
    let told = tokio::task::spawn_blocking(move || {
        let misses = cache.insight.misses.read();
        MissesAnswer::of(misses.iter().map(Arc::as_ref))
    });
    match told.await {
        Ok(answer) => json_page(StatusCode::OK, &json!(answer)),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the misses could not be compared\n"),
    }
}

/// `GET /shadow`: what shadow mode saw, a JSON object a line.
pub(super) fn shadow(running: &Running) -> Response<Full<Bytes>> {
    let Some(cache) = running.live.load().cache.clone() else { return no_store() };
    let mut lines = String::new();
    for seen in cache.insight.shadowed.read() {
        let line = json!({
            "at_ms": seen.at_ms,
            "route": seen.route.as_str(),
            "key": hex(&seen.key),
            "question": format!("{:016x}", seen.question),
            "similarity": seen.similarity,
            "threshold": seen.threshold,
            "would_serve": seen.would_serve(),
            "answers_alike": seen.answers_alike,
        });
        lines.push_str(&format!("{line}\n"));
    }
    text(StatusCode::OK, lines)
}

/// `POST /feedback`.
pub(super) async fn feedback(running: &Running, body: Incoming) -> Response<Full<Bytes>> {
    let request: FeedbackRequest = match body::read(body, EXAMPLE).await {
        Ok(request) => request,
        Err(problem) => return text(StatusCode::BAD_REQUEST, format!("{problem}\n")),
    };
    let key = match request.named() {
        Ok(key) => key,
        Err(problem) => return text(StatusCode::BAD_REQUEST, format!("{problem}\n")),
    };
    let snapshot = running.live.load_full();
    let Some(cache) = snapshot.cache.clone() else { return no_store() };
    let Some(select) = selected(&request, key) else {
        return text(StatusCode::BAD_REQUEST, "no answer has such an id: it is empty or too long\n");
    };
    let served = servings(&cache, &request, key);
    let is_removed = !request.right && !request.dry_run;
    let mode = if is_removed { PurgeMode::Real } else { PurgeMode::DryRun };
    let purge = Purge { select, how: PurgeHow::Hard, at_ms: unix_ms() };
    let matched = match cache.store.purge(&purge, mode).await {
        Ok(report) => report.matched,
        Err(error) => return failed(&error),
    };
    if !request.dry_run {
        tracing::info!(what = %purge.select, right = request.right, entries = matched, served = served.len(), "feedback");
    }
    let labels = if request.dry_run { 0 } else { labelled(&snapshot, &request, &served).await };
    let mut keys: Vec<String> = served.iter().map(|serving| hex(&serving.key)).collect();
    keys.extend(key.map(|key| hex(&key)));
    keys.sort_unstable();
    keys.dedup();
    let FeedbackRequest { right, dry_run, .. } = request;
    let served = served.iter().rev().take(SERVED_MAX).map(|serving| served_to(serving)).collect();
    json_page(StatusCode::OK, &json!(FeedbackAnswer { matched, keys, served, labels, dry_run, right }))
}

fn selected(request: &FeedbackRequest, key: Option<[u8; 32]>) -> Option<Select> {
    let tag = match &request.id {
        Some(id) => Some(answer_tag(id)?),
        None => None,
    };
    Select::of(Conditions { key, tag, ..Conditions::default() }).ok()
}

/// All that is remembered of the answer, the oldest first.
fn servings(cache: &AnswerCache, request: &FeedbackRequest, key: Option<[u8; 32]>) -> Vec<Arc<Serving>> {
    let all = cache.insight.servings.read();
    let id = request.id.as_deref().map(Serving::of_id);
    // Those who joined a generation did so before its id was known.
    let of_id = all.iter().filter(|serving| id.is_some() && serving.id == id).map(|serving| serving.key);
    let keys: Vec<[u8; 32]> = of_id.chain(key).collect();
    all.into_iter()
        .filter(|serving| {
            keys.contains(&serving.key) && (id.is_none() || serving.id.is_none() || serving.id == id)
        })
        .collect()
}

/// Writes what was said down, for each similar question that the answer was served to; how many that were.
async fn labelled(snapshot: &Snapshot, request: &FeedbackRequest, served: &[Arc<Serving>]) -> usize {
    let label = |serving: &Arc<Serving>| {
        let similarity = serving.similarity?;
        Some(Label {
            at_ms: unix_ms(),
            route: serving.route.as_str().to_owned(),
            key: hex(&serving.key),
            question: serving.question.map(|question| format!("{question:016x}")),
            similarity: Some(similarity),
            same: request.right,
        })
    };
    let labels: Vec<Label> = served.iter().filter_map(label).collect();
    let Some(file) = Labels::beside(&snapshot.settings.store).filter(|_| !labels.is_empty()) else {
        return 0;
    };
    let count = labels.len();
    match tokio::task::spawn_blocking(move || file.append(&labels)).await {
        Ok(Ok(())) => count,
        Ok(Err(error)) => {
            tracing::error!(%error, "labels can't be written");
            0
        }
        Err(_) => 0,
    }
}

fn served_to(serving: &Serving) -> ServedTo {
    ServedTo {
        ago_s: unix_ms().saturating_sub(serving.at_ms) / 1000,
        route: serving.route.as_str().to_owned(),
        tenant: serving.tenant.as_str().to_owned(),
        user: serving.user.as_ref().map(|user| user.as_str().to_owned()),
        served_as: serving.served_as.as_str().to_owned(),
        similarity: serving.similarity,
        question: serving.question.map(|question| format!("{question:016x}")),
        key: hex(&serving.key),
    }
}

fn failed(error: &PurgeError) -> Response<Full<Bytes>> {
    tracing::error!(%error, "feedback could not be followed");
    text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))
}

fn no_store() -> Response<Full<Bytes>> {
    text(StatusCode::CONFLICT, "nothing is stored: this refrain runs without a store\n")
}
