//! Whether the cache does what it should, as found at start: what the readiness page and the log tell.
//!
//! A missing embedder costs semantic hits, never a request: it is reported and the rest goes on. A store that can't be
//! opened is a mistake in the configuration or on the disk, and ends the start.

use std::sync::Arc;

use anyhow::Context as _;
use refrain_cache::{CacheError, Embedder, Embedding, ProbeVectors, RemoteStats};
use refrain_core::settings::Store;
use refrain_core::{ExactOnly, Settings};
use refrain_proxy::AnswerCache;

/// A question and its paraphrase, for the self-test.
const QUESTION: &str = "Are you ready to answer questions?";
const PARAPHRASE: &str = "Is it the case that you are ready for answering questions?";

/// A model that was just loaded takes long for its first text, perhaps longer than a request would wait.
const EMBED_TRIES: usize = 5;

/// What was found at start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
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

/// Opens the cache and tests it.
///
/// # Errors
/// The store can't be opened.
pub(crate) async fn open(settings: &Settings) -> anyhow::Result<(Option<Arc<AnswerCache>>, Health)> {
    let for_opening = settings.clone();
    let opened = tokio::task::spawn_blocking(move || open_blocking(for_opening)).await;
    let (cache, mut embedder) = opened.context("the cache's start was interrupted")??;
    if let Some(cache) = &cache {
        let vectors = match &cache.embedder {
            Some(embedder) => probe_vectors(embedder).await.map(Some),
            None => Ok(None),
        };
        if let Err(reason) = vectors {
            embedder = EmbedderHealth::Failed(format!("it embeds no text at start: {}", reason.as_str()));
        }
        cache.self_test(vectors.unwrap_or(None)).await;
        require(&settings.store, cache)?;
    }
    let health = Health { embedder };
    health.log(settings, cache.as_ref());
    Ok((cache.map(Arc::new), health))
}

/// A store that proxies share is joined in the background, unless config wants it at start.
fn require(store: &Store, cache: &AnswerCache) -> anyhow::Result<()> {
    let required = matches!(store, Store::Redis(store) if store.required);
    match cache.store.stats().remote {
        Some(RemoteStats { trouble: Some(trouble), .. }) if required => {
            Err(anyhow::Error::new(trouble)
                .context("store.redis.require_store is set, and the store is away"))
        }
        _ => Ok(()),
    }
}

async fn probe_vectors(embedder: &Embedder) -> Result<ProbeVectors, ExactOnly> {
    Ok(ProbeVectors {
        question: embed(embedder, QUESTION).await?,
        paraphrase: embed(embedder, PARAPHRASE).await?,
    })
}

async fn embed(embedder: &Embedder, text: &str) -> Result<Embedding, ExactOnly> {
    let mut result = embedder.embed(text.to_owned()).await;
    for _ in 1..EMBED_TRIES {
        if !matches!(result, Err(ExactOnly::EmbedderSlow)) {
            break;
        }
        result = embedder.embed(text.to_owned()).await;
    }
    result
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
    pub(crate) fn degraded(&self, cache: Option<&AnswerCache>) -> Vec<&'static str> {
        let test = cache.and_then(AnswerCache::tested);
        let store = test.filter(|test| !test.passed()).map(|_| "store");
        let embedder = matches!(self.embedder, EmbedderHealth::Failed(_)).then_some("embedder");
        store.into_iter().chain(embedder).collect()
    }

    fn log(&self, settings: &Settings, cache: Option<&AnswerCache>) {
        // A shared store logs for itself, each time that it is joined.
        let is_embedded = matches!(settings.store, Store::Embedded(_));
        let test = cache.and_then(AnswerCache::tested);
        if let Some(test) = test.filter(|test| is_embedded && !test.passed()) {
            tracing::error!(?test, "the store failed its self-test; answers may not be cached");
        }
        if let EmbedderHealth::Failed(reason) = &self.embedder {
            let routes: Vec<&str> = semantic_routes(settings).collect();
            tracing::warn!(reason, ?routes, "no working embedder: these routes serve exact repeats only");
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
        let cache = cache.unwrap();
        assert!(cache.embedder.is_none());
        assert_eq!(health.degraded(Some(&cache)), ["embedder"]);
        assert!(cache.tested().unwrap().passed());
    }

    #[tokio::test]
    async fn no_store_is_no_cache() {
        let (cache, health) = open(&Settings { store: Store::Off, ..settings() }).await.unwrap();
        assert!(cache.is_none() && health.degraded(None).is_empty());
    }
}
