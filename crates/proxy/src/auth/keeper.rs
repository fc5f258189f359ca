//! Reads the key sets of issuers from their servers, now and then and when somebody wants a key that is not there.

use std::sync::Arc;
use std::time::Duration;

use refrain_core::Drain;
use refrain_core::settings::{Endpoint, SigningKeys};
use refrain_upstream::{Client, JsonApi};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::signing_keys::{self, KeySet, RemoteKeys};
use crate::snapshot::Snapshot;

/// How soon a reload and a set whose time has come are noticed.
const TICK: Duration = Duration::from_millis(250);

/// Longest read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps the key sets of the live configuration as their servers give them out, until the process drains.
///
/// Belongs on the control runtime, with a client of that runtime.
///
/// # Cancel safety
/// Safe: what was read stays.
pub async fn keep_signing_keys(current: impl Fn() -> Arc<Snapshot> + Send, client: Client, drain: Drain) {
    let mut reads = JoinSet::new();
    loop {
        let snapshot = current();
        let now = Instant::now();
        for (keys, refresh) in snapshot.auth.tokens.remote() {
            if keys.begin(now, refresh) {
                reads.spawn(read_into(client.clone(), keys.clone()));
            }
        }
        let wanted = snapshot.auth.tokens.wanted().clone();
        drop(snapshot);
        while reads.try_join_next().is_some() {}
        tokio::select! {
            () = drain.begun() => return,
            () = wanted.notified() => {}
            () = sleep(TICK) => {}
        }
    }
}

async fn read_into(client: Client, keys: Arc<RemoteKeys>) {
    keys.end(read_from(client, (&keys.endpoint, &keys.path)).await);
}

async fn read_from(client: Client, (endpoint, path): (&Endpoint, &str)) -> Result<KeySet, String> {
    let read = async {
        let api = JsonApi::new(client, endpoint).map_err(|error| error.to_string())?;
        let document = api.json(path, None).await.map_err(|error| error.to_string())?;
        KeySet::parse(document).map_err(str::to_owned)
    };
    let read = timeout(READ_TIMEOUT, read).await;
    read.unwrap_or_else(|_| Err(format!("no answer in {} s", READ_TIMEOUT.as_secs())))
}

/// Reads an issuer's keys once, as a proxy would: how many there are. Blocks on files.
///
/// # Errors
/// Why they can't be read.
///
/// # Cancel safety
/// Safe.
pub async fn read_signing_keys(keys: &SigningKeys, client: Client) -> Result<usize, String> {
    match keys {
        SigningKeys::Url(url) => read_from(client, (&url.endpoint, &url.path)).await.map(|keys| keys.len()),
        SigningKeys::File(file) => signing_keys::read(file).map(|keys| keys.len()),
        SigningKeys::Secret(_) => Ok(1),
    }
}
