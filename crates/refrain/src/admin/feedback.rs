//! `POST /feedback`: an answer was wrong, or right. It is found, removed if it was wrong, and whom it was served to is told.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use refrain_cache::{
    Conditions, Purge, PurgeError, PurgeHow, PurgeMode, Select, Serving, answer_tag, unix_ms,
};
use refrain_core::{hex, settings};
use refrain_proxy::explain::{self, Explanation, Outcome};
use refrain_proxy::{AnswerCache, Snapshot};
use serde_json::json;

use super::body;
use super::pages::{json_page, text};
use super::why::{no_store, request_bytes_max};
use crate::control::Running;
use crate::why::{FeedbackAnswer, FeedbackRequest, Label, Labels, Named, ServedTo};

const EXAMPLE: &str = r#"{"id": "chatcmpl-7f3a", "dry_run": true}"#;
/// Of those who were served an answer, how many are told.
const SERVED_MAX: usize = 1000;

/// An answer that somebody means.
struct Meant {
    /// What finds it in the store.
    selects: Vec<Select>,
    /// The keys that it may be stored under, as far as they are known.
    keys: Vec<[u8; 32]>,
    /// What stands for its id, if that is known.
    id: Option<u64>,
    /// The question that it was named by.
    asked: Option<Asked>,
}

/// A question, and what answers it now.
struct Asked {
    question: u64,
    route: String,
    /// The answer is that of a similar question: its key, and how similar.
    similar: Option<([u8; 32], f32)>,
}

/// `POST /feedback`.
pub(super) async fn answer(running: &Running, body: Incoming) -> Response<Full<Bytes>> {
    let snapshot = running.live.load_full();
    let request = match read(&snapshot, body).await {
        Ok(request) => request,
        Err(problem) => return text(StatusCode::BAD_REQUEST, format!("{problem}\n")),
    };
    let Some(cache) = snapshot.cache.clone() else { return no_store() };
    let meant = match meant(&snapshot, &request).await {
        Ok(meant) => meant,
        Err(problem) => return text(StatusCode::BAD_REQUEST, format!("{problem}\n")),
    };
    let served = servings(&cache, &meant);
    let matched = match purged(&cache, &request, &meant).await {
        Ok(matched) => matched,
        Err(error) => return failed(&error),
    };
    let labels = if request.dry_run { Vec::new() } else { labels(&meant, &served, request.right) };
    if !request.dry_run {
        let what: Vec<String> = meant.selects.iter().map(ToString::to_string).collect();
        tracing::info!(
            what = what.join(" or "),
            right = request.right,
            entries = matched,
            served = served.len(),
            "feedback"
        );
    }
    let labels = written(&snapshot.settings.store, labels).await;
    json_page(StatusCode::OK, &json!(told(&request, &meant, (matched, labels), &served)))
}

async fn read(snapshot: &Snapshot, body: Incoming) -> Result<FeedbackRequest, String> {
    let text = body::whole(body, request_bytes_max(snapshot)).await?;
    serde_json::from_slice(&text)
        .map_err(|error| format!("the body is a JSON object such as {EXAMPLE}: {error}"))
}

/// Finds out what is meant.
///
/// # Errors
/// It can't be meant; why.
async fn meant(snapshot: &Snapshot, request: &FeedbackRequest) -> Result<Meant, String> {
    let of = |conditions| Select::of(conditions).map_err(|error| error.to_string());
    let of_key = |key| of(Conditions { key: Some(key), ..Conditions::default() });
    match request.named()? {
        Named::Id(id) => {
            let tag = answer_tag(id).ok_or("no answer has such an id: it is empty or too long")?;
            let select = of(Conditions { tag: Some(tag), ..Conditions::default() })?;
            Ok(Meant { selects: vec![select], keys: Vec::new(), id: Some(Serving::of_id(id)), asked: None })
        }
        Named::Key(key) => Ok(Meant { selects: vec![of_key(key)?], keys: vec![key], id: None, asked: None }),
        Named::Request(request) => {
            let request = request.clone().into_explained().map_err(|problem| format!("{problem:#}"))?;
            let (keys, asked) = asked(&explain::explain(snapshot, request).await)?;
            let selects = keys.iter().copied().map(of_key).collect::<Result<_, _>>()?;
            Ok(Meant { selects, keys, id: None, asked: Some(asked) })
        }
    }
}

/// The keys under which what answers a request may be stored: what would be served, its own, and the one that policies may
/// have narrowed it to.
fn asked(explanation: &Explanation) -> Result<(Vec<[u8; 32]>, Asked), String> {
    let Some(key) = &explanation.key else { return Err(without_key(&explanation.outcome)) };
    let answer = explanation.answer.as_ref();
    let similar = answer.and_then(|answer| Some((answer.key, answer.similarity?)));
    let mut keys: Vec<[u8; 32]> = vec![key.key];
    keys.extend(key.narrow.into_iter().chain(answer.map(|answer| answer.key)));
    keys.sort_unstable();
    keys.dedup();
    let route = explanation.routes.last().map(|(route, _)| route.as_str().to_owned()).unwrap_or_default();
    Ok((keys, Asked { question: key.question, route, similar }))
}

fn without_key(outcome: &Outcome) -> String {
    let why = match outcome {
        Outcome::Refused { code, message } => format!("it is refused ({}: {message})", code.as_str()),
        Outcome::Answered { bypass: Some(reason), .. } => {
            format!("it goes past the cache ({})", reason.as_str())
        }
        Outcome::Answered { .. } | Outcome::Unknown => "no cache is concerned".to_owned(),
    };
    format!("nothing is ever stored for this request: {why}; refrain explain says more")
}

/// All that is remembered of the answer, the oldest first.
fn servings(cache: &AnswerCache, meant: &Meant) -> Vec<Arc<Serving>> {
    let all = cache.insight.servings.read();
    let Meant { keys, id, .. } = meant;
    // Those who joined a generation did so before its id was known.
    let of_id = all.iter().filter(|serving| id.is_some() && serving.id == *id).map(|serving| serving.key);
    let keys: HashSet<[u8; 32]> = of_id.chain(keys.iter().copied()).collect();
    let is_meant = |serving: &Arc<Serving>| {
        keys.contains(&serving.key) && (id.is_none() || serving.id.is_none() || serving.id == *id)
    };
    all.into_iter().filter(is_meant).collect()
}

/// Removes it, if that is wanted; how many stored answers are meant.
async fn purged(cache: &AnswerCache, request: &FeedbackRequest, meant: &Meant) -> Result<u64, PurgeError> {
    let is_removed = !request.right && !request.dry_run;
    let mode = if is_removed { PurgeMode::Real } else { PurgeMode::DryRun };
    let mut matched = 0;
    for select in &meant.selects {
        let purge = Purge { select: select.clone(), how: PurgeHow::Hard, at_ms: unix_ms() };
        matched += cache.store.purge(&purge, mode).await?.matched;
    }
    if is_removed {
        super::purge::count(PurgeHow::Hard, matched);
    }
    Ok(matched)
}

/// What was said of each similar question that the answer was served to; where one question was named, of that alone: an
/// answer that is wrong there may be right for others.
fn labels(meant: &Meant, served: &[Arc<Serving>], is_right: bool) -> Vec<Label> {
    let label = |(route, key, question): (&str, &[u8; 32], Option<u64>), similarity: f32| Label {
        at_ms: unix_ms(),
        route: route.to_owned(),
        key: hex(key),
        question: question.map(|question| format!("{question:016x}")),
        similarity: Some(similarity),
        same: is_right,
    };
    let is_of_it =
        |serving: &Serving| meant.asked.as_ref().is_none_or(|asked| serving.question == Some(asked.question));
    let remembered = served.iter().filter(|serving| is_of_it(serving)).filter_map(|serving| {
        let of = (serving.route.as_str(), &serving.key, serving.question);
        Some(label(of, serving.similarity?))
    });
    let mut labels: Vec<Label> = remembered.collect();
    if let Some(Asked { question, route, similar: Some((key, similarity)) }) = &meant.asked {
        labels.push(label((route, key, Some(*question)), *similarity));
    }
    // Whoever asked ten times is one label.
    let mut seen = HashSet::new();
    labels.retain(|label| seen.insert((label.key.clone(), label.question.clone())));
    labels
}

/// Writes labels down; how many that were.
async fn written(store: &settings::Store, labels: Vec<Label>) -> usize {
    let Some(file) = Labels::beside(store).filter(|_| !labels.is_empty()) else { return 0 };
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

fn told(
    request: &FeedbackRequest,
    meant: &Meant,
    (matched, labels): (u64, usize),
    served: &[Arc<Serving>],
) -> FeedbackAnswer {
    let keys: HashSet<[u8; 32]> =
        served.iter().map(|serving| serving.key).chain(meant.keys.iter().copied()).collect();
    let mut keys: Vec<String> = keys.iter().map(|key| hex(key)).collect();
    keys.sort_unstable();
    FeedbackAnswer {
        matched,
        keys,
        similarity: meant.asked.as_ref().and_then(|asked| Some(asked.similar?.1)),
        served: served.iter().rev().take(SERVED_MAX).map(|serving| served_to(serving)).collect(),
        served_in_all: served.len(),
        labels,
        dry_run: request.dry_run,
        right: request.right,
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
