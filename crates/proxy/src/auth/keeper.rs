//! Reads the key sets of issuers from their servers, now and then and when somebody wants a key that is not there.

use std::sync::Arc;
use std::time::Duration;

use refrain_core::Drain;
use refrain_upstream::{Client, JsonApi};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::signing_keys::{KeySet, RemoteKeys};
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
        for keys in snapshot.auth.tokens.remote().filter(|keys| keys.begin(now)) {
            reads.spawn(read_into(client.clone(), keys.clone()));
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
    let read = timeout(READ_TIMEOUT, read(client, &keys)).await;
    keys.end(read.unwrap_or_else(|_| Err(format!("no answer in {} s", READ_TIMEOUT.as_secs()))));
}

async fn read(client: Client, keys: &RemoteKeys) -> Result<KeySet, String> {
    let api = JsonApi::new(client, &keys.place.endpoint).map_err(|error| error.to_string())?;
    let document = api.json(&keys.place.path, None).await.map_err(|error| error.to_string())?;
    KeySet::parse(document).map_err(str::to_owned)
}
