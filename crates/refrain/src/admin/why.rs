//! `POST /explain`, `GET /misses`, `GET /shadow`: why requests hit or not.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use refrain_core::hex;
use refrain_proxy::{Snapshot, explain};
use serde_json::json;

use super::body;
use super::pages::{json_page, text};
use crate::control::Running;
use crate::why::{ExplainAnswer, ExplainRequest, MissesAnswer};

/// `POST /explain`.
pub(super) async fn explain(running: &Running, body: Incoming) -> Response<Full<Bytes>> {
    let snapshot = running.live.load_full();
    let explained = match body::whole(body, request_bytes_max(&snapshot)).await {
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

/// Longest description of a request: a body that stands within another is escaped; what is around it is small.
pub(super) fn request_bytes_max(snapshot: &Snapshot) -> usize {
    snapshot.settings.limits.body_bytes_max.saturating_mul(2).saturating_add(64 * 1024)
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

/// What is said where nothing is stored.
pub(super) fn no_store() -> Response<Full<Bytes>> {
    text(StatusCode::CONFLICT, "nothing is stored: this refrain runs without a store\n")
}
