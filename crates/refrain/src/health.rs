//! Whether the cache does what it should, as found at start: what the readiness page and the log tell.
//!
//! A missing embedder costs semantic hits, never a request: it is reported and the rest goes on. A store that can't be
//! opened is a mistake in the configuration or on the disk, and ends the start.

use std::sync::Arc;

use anyhow::Context as _;
use refrain_cache::{CacheError, SelfTest};
use refrain_core::Settings;
use refrain_core::settings::Store;
use refrain_proxy::AnswerCache;

/// What was found at start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    /// The store's self-test; none if it was not run.
    pub(crate) store: Option<SelfTest>,
    /// The embedder.
    pub(crate) embedder: EmbedderHealth,
}

/// How the embedder came up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum EmbedderHealth {
    /// None is configured, or nothing is cached.
    #[default]
    Off,
    /// It embeds.
    Loaded,
    /// It could not be loaded: why, and what to do.
    Failed(String),
}

/// Opens the cache.
///
/// # Errors
/// The store can't be opened.
pub(crate) async fn open(settings: &Settings) -> anyhow::Result<(Option<Arc<AnswerCache>>, Health)> {
    let for_opening = settings.clone();
    let opened = tokio::task::spawn_blocking(move || open_blocking(for_opening)).await;
    let (cache, embedder) = opened.context("the cache's start was interrupted")??;
    let health = Health { store: None, embedder };
    health.log(settings);
    Ok((cache.map(Arc::new), health))
}

fn open_blocking(mut settings: Settings) -> anyhow::Result<(Option<AnswerCache>, EmbedderHealth)> {
    let embedder = match AnswerCache::open(&settings) {
        Ok(None) => return Ok((None, EmbedderHealth::Off)),
        Ok(Some(cache)) => {
            let embedder =
                if cache.embedder.is_some() { EmbedderHealth::Loaded } else { EmbedderHealth::Off };
            return Ok((Some(cache), embedder));
        }
        Err(CacheError::Embedder(error)) => EmbedderHealth::Failed(error.to_string()),
        Err(error) => return Err(error.into()),
    };
    settings.embedder = None;
    Ok((AnswerCache::open(&settings)?, embedder))
}

impl Health {
    /// What is degraded, by name.
    pub(crate) fn degraded(&self) -> Vec<&'static str> {
        let store = self.store.filter(|test| !test.passed()).map(|_| "store");
        let embedder = matches!(self.embedder, EmbedderHealth::Failed(_)).then_some("embedder");
        store.into_iter().chain(embedder).collect()
    }

    fn log(&self, settings: &Settings) {
        if let Some(test) = self.store.filter(|test| !test.passed()) {
            tracing::error!(?test, "the store failed its self-test; answers may not be cached");
        }
        if let EmbedderHealth::Failed(reason) = &self.embedder {
            let routes: Vec<&str> = semantic_routes(settings).collect();
            tracing::warn!(reason, ?routes, "no embedder: these routes serve exact repeats only");
        }
        if settings.store == Store::Off {
            tracing::warn!("store is off: every request is passed through");
        }
    }
}

fn semantic_routes(settings: &Settings) -> impl Iterator<Item = &str> {
    let semantic =
        settings.routes.iter().filter(|route| route.cache.enabled && route.cache.semantic.is_some());
    semantic.map(|route| route.id.as_str())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use refrain_core::settings::Embedder;

    use super::*;

    fn settings() -> Settings {
        refrain_config::for_upstream("http://127.0.0.1:1", None).unwrap()
    }

    #[tokio::test]
    async fn a_missing_embedder_degrades_and_the_store_works_on() {
        let embedder = Embedder {
            model_dir: "/nonexistent".into(),
            runtime_library: "/nonexistent.so".into(),
            threads: 1,
            queue_max: 1,
            budget: Duration::from_secs(1),
            window_tokens: 256,
        };
        let (cache, health) = open(&Settings { embedder: Some(embedder), ..settings() }).await.unwrap();
        assert!(cache.unwrap().embedder.is_none());
        assert_eq!(health.degraded(), ["embedder"]);
    }

    #[tokio::test]
    async fn no_store_is_no_cache() {
        let (cache, health) = open(&Settings { store: Store::Off, ..settings() }).await.unwrap();
        assert!(cache.is_none() && health.degraded().is_empty());
    }
}
