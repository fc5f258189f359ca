//! What is sent to the admin listener: small JSON objects.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// A request is a few names.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// For the whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads one; `example` is what it should look like.
///
/// # Errors
/// What is wrong with it, for whoever asked.
pub(super) async fn read<T: DeserializeOwned>(body: Incoming, example: &str) -> Result<T, String> {
    let body = whole(body, BODY_BYTES_MAX).await?;
    serde_json::from_slice(&body)
        .map_err(|error| format!("the body is a JSON object such as {example}: {error}"))
}

/// Reads a body of at most so many bytes.
///
/// # Errors
/// What is wrong with it, for whoever asked.
pub(super) async fn whole(body: Incoming, bytes_max: usize) -> Result<Bytes, String> {
    let body = timeout(BODY_TIMEOUT, Limited::new(body, bytes_max).collect()).await;
    let body = body.map_err(|_| "the body did not come in time".to_owned())?;
    let body = body.map_err(|_| format!("the body is broken, or longer than {bytes_max} bytes"))?;
    Ok(body.to_bytes())
}
