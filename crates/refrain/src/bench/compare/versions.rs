//! What the servers of a comparison say they are. Asked before anything is measured, so that one that is away is told at once.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{HOST, SERVER};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use refrain_cache::{Counting, StoreUpkeep};
use refrain_config::Source;
use refrain_core::settings::Store;
use tokio::time::timeout;

use crate::bench::connect::Connector;

/// For one question.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Longest version that is told on.
const TOLD_CHARS_MAX: usize = 80;
/// Where servers tell their version: Ollama, vLLM and SGLang.
const PATHS: [&str; 2] = ["/api/version", "/version"];

/// An upstream's version, or its `Server` header.
///
/// # Errors
/// It can't be reached.
pub(super) async fn of_upstream(url: &Uri, ca: Option<&Path>) -> anyhow::Result<String> {
    let connector = Connector::new(std::slice::from_ref(url), ca)?;
    let reached = connector.connect(url).await;
    reached.with_context(|| format!("can't reach {url}; is it running?"))?;
    let mut header = None;
    for path in PATHS {
        match timeout(PATIENCE, ask(&connector, url, path)).await {
            Ok(Some((Some(version), _))) => return Ok(version),
            Ok(Some((None, server))) => header = header.or(server),
            _ => {}
        }
    }
    Ok(header.unwrap_or_else(|| "version not told".to_owned()))
}

/// What a server says of itself, for a line of a report.
fn line(told: &str) -> String {
    told.chars().filter(|letter| !letter.is_control() && *letter != '`').take(TOLD_CHARS_MAX).collect()
}

async fn ask(connector: &Connector, url: &Uri, path: &str) -> Option<(Option<String>, Option<String>)> {
    let mut sender = connector.connect(url).await.ok()?;
    let request = Request::get(path).header(HOST, url.authority()?.as_str()).body(Full::<Bytes>::default());
    let response = sender.send_request(request.ok()?).await.ok()?;
    let server = response.headers().get(SERVER).and_then(|value| value.to_str().ok()).map(line);
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.ok()?.to_bytes();
    let told: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let version = told.and_then(|told| Some(format!("version {}", line(told.get("version")?.as_str()?))));
    Some((version, server))
}

/// The version of the Redis that a config file names.
///
/// # Errors
/// It can't be used.
pub(super) async fn of_redis(config: &Path) -> anyhow::Result<String> {
    let loaded = refrain_config::load(&Source::read(config, Vec::new())?)?;
    let Store::Redis(store) = &loaded.settings.store else { anyhow::bail!("the config names no Redis") };
    let found = StoreUpkeep::new(store, None).examine(None, Counting::None).await;
    let found = found.map_err(|trouble| anyhow::anyhow!("{trouble}")).context("can't use Redis")?;
    Ok(found.version.map_or_else(|| "version not told".to_owned(), |version| format!("version {version}")))
}
