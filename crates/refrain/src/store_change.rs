//! A new configuration may name another store. It is opened and tried before the old one is left; requests under way end on
//! the old one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use refrain_cache::RemoteStats;
use refrain_core::Settings;
use refrain_core::settings::Store;
use refrain_proxy::{AnswerCache, Snapshot};
use tokio::time::sleep;

/// How often it is looked whether the last request has left the old store.
const RETIRE_LOOK: Duration = Duration::from_millis(500);

/// What takes the place of the cache that runs; none: nothing is cached from now on.
pub(crate) type NewCache = Option<Arc<AnswerCache>>;

/// Whether one store can follow another while the process runs: not in the same directory, which has room for one.
pub(crate) fn can_follow(old: &Store, new: &Store) -> bool {
    let dir = |store: &Store| match store {
        Store::Embedded(store) => store.dir.clone(),
        Store::Redis(_) | Store::Off => None,
    };
    dir(old).is_none() || dir(old) != dir(new)
}

/// Opens and tries the store of a new configuration; none if it is the one that runs, or must wait for a restart.
///
/// # Errors
/// It can't be opened, or does not do what it should.
///
/// # Cancel safety
/// Safe: what was opened is closed.
pub(crate) async fn prepare(running: &Snapshot, new: &Settings) -> anyhow::Result<Option<NewCache>> {
    if running.settings.store == new.store || !can_follow(&running.settings.store, &new.store) {
        return Ok(None);
    }
    // The model that runs stays: another one needs a restart.
    let embedder = running.cache.as_ref().and_then(|cache| cache.embedder.clone());
    let settings = new.clone();
    let opened = tokio::task::spawn_blocking(move || AnswerCache::open_with(&settings, embedder)).await;
    let Some(cache) = opened.context("the store's opening was interrupted")?? else { return Ok(Some(None)) };
    let test = cache.self_test(None).await;
    if let Some(RemoteStats { trouble: Some(trouble), .. }) = cache.store.stats().remote {
        return Err(anyhow::Error::new(trouble).context("the new store can't be used"));
    }
    if !test.passed() {
        bail!("the new store failed its self-test ({test:?})");
    }
    Ok(Some(Some(Arc::new(cache))))
}

/// Closes a cache once the last request has left it.
pub(crate) async fn retire(cache: Arc<AnswerCache>) {
    while Arc::strong_count(&cache) > 1 {
        sleep(RETIRE_LOOK).await;
    }
    // A panic was reported where it happened.
    let _ = tokio::task::spawn_blocking(move || cache.store.close()).await;
    tracing::info!("the former store is closed");
}

#[cfg(test)]
mod tests {
    use refrain_core::settings::EmbeddedStore;

    use super::*;

    fn embedded(dir: Option<&str>, memory_bytes_max: usize) -> Store {
        Store::Embedded(EmbeddedStore {
            dir: dir.map(Into::into),
            memory_bytes_max,
            ..EmbeddedStore::default()
        })
    }

    #[test]
    fn only_a_store_in_the_same_directory_waits_for_a_restart() {
        assert!(!can_follow(&embedded(Some("/a"), 1), &embedded(Some("/a"), 2)));
        assert!(can_follow(&embedded(Some("/a"), 1), &embedded(Some("/b"), 1)));
        assert!(can_follow(&embedded(None, 1), &embedded(None, 2)));
        assert!(can_follow(&embedded(Some("/a"), 1), &Store::Off));
    }
}
