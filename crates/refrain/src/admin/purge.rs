//! `POST /purge`: stored answers are removed, or expire, or are counted.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use metrics::counter;
use refrain_cache::{Purge, PurgeError, PurgeHow, PurgeMode, PurgeReport, unix_ms};

use super::body;
use super::pages::{json_page, text};
use crate::control::Running;
use crate::purge::{PurgeAnswer, PurgeRequest};

const EXAMPLE: &str = r#"{"tag": "price-list", "dry_run": true}"#;

/// Does what the body says.
pub(super) async fn answer(running: &Running, body: Incoming) -> Response<Full<Bytes>> {
    let (purge, mode) = match read(body).await {
        Ok(read) => read,
        Err(problem) => return text(StatusCode::BAD_REQUEST, format!("{problem}\n")),
    };
    let Some(cache) = running.live.load().cache.clone() else {
        return text(StatusCode::CONFLICT, "nothing is stored: this refrain runs without a store\n");
    };
    match cache.store.purge(&purge, mode).await {
        Ok(report) => done(&purge, mode, report),
        Err(error) => failed(&purge, error),
    }
}

async fn read(body: Incoming) -> Result<(Purge, PurgeMode), String> {
    let request: PurgeRequest = body::read(body, EXAMPLE).await?;
    request.purge(unix_ms())
}

fn done(purge: &Purge, mode: PurgeMode, report: PurgeReport) -> Response<Full<Bytes>> {
    let PurgeReport { matched, bytes, by_route } = report;
    let how = purge.how.as_str();
    if mode == PurgeMode::Real {
        count(purge.how, matched);
        tracing::info!(how, entries = matched, bytes, what = %purge.select, "purged");
    }
    let by_route = by_route.into_iter().map(|(route, count)| (route.as_str().to_owned(), count)).collect();
    let dry_run = mode == PurgeMode::DryRun;
    let answer = PurgeAnswer { matched, bytes, by_route, dry_run, how: how.to_owned() };
    json_page(StatusCode::OK, &serde_json::json!(answer))
}

/// Counts a purge, and what it removed.
pub(super) fn count(how: PurgeHow, entries: u64) {
    counter!("refrain_purges_total", "how" => how.as_str()).increment(1);
    counter!("refrain_purged_entries_total", "how" => how.as_str()).increment(entries);
}

fn failed(purge: &Purge, error: PurgeError) -> Response<Full<Bytes>> {
    tracing::error!(how = purge.how.as_str(), what = %purge.select, %error, "purge failed");
    let status = match error {
        PurgeError::Busy | PurgeError::Closed | PurgeError::Away | PurgeError::Waiting => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        PurgeError::Disk | PurgeError::Unswept => StatusCode::INTERNAL_SERVER_ERROR,
    };
    text(status, format!("{error}\n"))
}
