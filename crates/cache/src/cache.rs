//! Everything of the cache that a request meets, as one value.

use std::sync::Arc;

use refrain_core::Settings;
use refrain_core::settings;

use crate::embedder::{EmbedError, Embedder};
use crate::error::StoreError;
use crate::flight::{FlightLimits, Flights};
use crate::key::{CacheKey, KeyParts};
use crate::secret::KeySecret;
use crate::store::Store;

/// Why the cache could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The embedder could not.
    #[error(transparent)]
    Embedder(#[from] EmbedError),
}

/// The cache. `H` is what stands for a response head in flight. Shared by all threads.
pub struct Cache<H> {
    secret: Arc<KeySecret>,
    /// Stored answers.
    pub store: Store,
    /// Answers under way.
    pub flights: Arc<Flights<H>>,
    /// Makes vectors of questions; none: no semantic tier.
    pub embedder: Option<Embedder>,
}

impl<H: Clone> Cache<H> {
    /// Opens what the settings name; `None` if they say that nothing is cached. Blocks: call it off the reactor.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub fn open(settings: &Settings) -> Result<Option<Self>, CacheError> {
        let store = match &settings.store {
            settings::Store::Off | settings::Store::Redis(_) => return Ok(None),
            settings::Store::Embedded(store) => store,
        };
        let embedder = settings.embedder.as_ref().map(Embedder::open).transpose()?;
        Self::with_store(store, embedder, settings.limits.waiters_max).map(Some)
    }

    /// Opens a cache with that store; the key secret is the one in its directory, or a random one in memory.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub fn with_store(
        store: &settings::EmbeddedStore,
        embedder: Option<Embedder>,
        waiters_max: usize,
    ) -> Result<Self, CacheError> {
        let secret = Arc::new(match &store.dir {
            Some(dir) => KeySecret::load_or_create(dir)?,
            None => KeySecret::random()?,
        });
        let store = Store::open(store, &secret, embedder.as_ref().map(Embedder::identity))?;
        let limits = FlightLimits { waiters_max, ..FlightLimits::default() };
        Ok(Self { secret, store, flights: Flights::new(limits), embedder })
    }

    /// The digests of a request.
    pub fn key(&self, parts: &KeyParts<'_>) -> CacheKey {
        CacheKey::new(&self.secret, parts)
    }
}
