//! Everything of the cache that a request meets, as one value.

use std::sync::{Arc, OnceLock};

use refrain_core::Settings;
use refrain_core::settings;
use refrain_llm::request::{ParsedRequest, PieceName};

use crate::anatomy::{self, Part, PartName};
use crate::embedder::{EmbedError, Embedder};
use crate::error::StoreError;
use crate::flight::{FlightLimits, Flights};
use crate::insight::Insight;
use crate::key::{CacheKey, KeyParts};
use crate::secret::KeySecret;
use crate::self_test::SelfTest;
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
    pub(crate) secret: Arc<KeySecret>,
    /// Stored answers.
    pub store: Store,
    /// Answers under way.
    pub flights: Arc<Flights<H>>,
    /// Makes vectors of questions; none: no semantic tier.
    pub embedder: Option<Arc<Embedder>>,
    /// What is remembered of requests.
    pub insight: Insight,
    /// What the self-test of an embedded store found.
    pub(crate) tested: OnceLock<SelfTest>,
}

impl<H: Clone> Cache<H> {
    /// Opens what the settings name; `None` if they say that nothing is cached. Blocks: call it off the reactor, but within
    /// the runtime that shall keep a shared store's connections.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub fn open(settings: &Settings) -> Result<Option<Self>, CacheError> {
        if settings.store == settings::Store::Off {
            return Ok(None);
        }
        let embedder = settings.embedder.as_ref().map(Embedder::open).transpose()?;
        Self::open_with(settings, embedder.map(Arc::new))
    }

    /// The same with an embedder that runs, or none.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub fn open_with(
        settings: &Settings,
        embedder: Option<Arc<Embedder>>,
    ) -> Result<Option<Self>, CacheError> {
        let waiters_max = settings.limits.waiters_max;
        match &settings.store {
            settings::Store::Off => Ok(None),
            settings::Store::Embedded(store) => Self::with_store(store, embedder, waiters_max).map(Some),
            settings::Store::Redis(store) => Self::with_shared_store(store, embedder, waiters_max).map(Some),
        }
    }

    /// Opens a cache with that store; the key secret is the one in its directory, or a random one in memory.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub fn with_store(
        store: &settings::EmbeddedStore,
        embedder: Option<Arc<Embedder>>,
        waiters_max: usize,
    ) -> Result<Self, CacheError> {
        let secret = Arc::new(match &store.dir {
            Some(dir) => KeySecret::load_or_create(dir)?,
            None => KeySecret::random()?,
        });
        let store = Store::open(store, &secret, embedder.as_deref().map(Embedder::identity))?;
        Ok(Self::of(secret, store, embedder, waiters_max))
    }

    /// Opens a cache with a store in Redis, which is joined in the background: see [`Store::joined`].
    ///
    /// # Errors
    /// See [`CacheError`]: nothing that Redis says.
    pub fn with_shared_store(
        store: &settings::RedisStore,
        embedder: Option<Arc<Embedder>>,
        waiters_max: usize,
    ) -> Result<Self, CacheError> {
        let secret = Arc::new(KeySecret::load_or_create_file(&store.secret_file)?);
        let store = Store::open_shared(store, &secret, embedder.as_deref().map(Embedder::identity));
        Ok(Self::of(secret, store, embedder, waiters_max))
    }

    fn of(secret: Arc<KeySecret>, store: Store, embedder: Option<Arc<Embedder>>, waiters_max: usize) -> Self {
        let limits = FlightLimits { waiters_max, ..FlightLimits::default() };
        let (flights, tested) = (Flights::new(limits), OnceLock::new());
        Self { secret, store, flights, embedder, insight: Insight::default(), tested }
    }

    /// What the self-test found: at start, of a shared store when it was last joined. None: it was not tested; a shared store
    /// that is away has failed.
    pub fn tested(&self) -> Option<SelfTest> {
        match self.store.stats().remote {
            Some(remote) => Some(remote.self_test.unwrap_or_default()),
            None => self.tested.get().copied(),
        }
    }

    /// A key for salts of tenants (vLLM's `cache_salt`): the same for all proxies that share the secret.
    pub fn salt_key(&self) -> [u8; 32] {
        self.secret.salt_key()
    }

    /// The digests of a request.
    pub fn key(&self, parts: &KeyParts<'_>) -> CacheKey {
        CacheKey::new(&self.secret, parts)
    }

    /// The parts of a request's key, each with what it holds: `request` is what the parts' bodies were made of, `source` says
    /// what is compared where it isn't the last message.
    pub fn dissect(
        &self,
        (parts, request, source): (&KeyParts<'_>, &ParsedRequest, Option<&str>),
        take: &mut dyn FnMut(PartName, &[u8]),
    ) {
        anatomy::dissect(&self.secret, (parts, request, source), take);
    }

    /// A part as it may be shown: who lacks the secret can't find out by trying what it holds.
    pub fn part(&self, name: PartName, text: &[u8]) -> Part {
        let digest = anatomy::digest(&self.secret, &name, text);
        Part { name, digest }
    }

    /// What stands for a question where none of it may be kept: the digest of its part.
    pub fn question(&self, text: &[u8]) -> u64 {
        anatomy::digest(&self.secret, &PartName::Body(PieceName::Question), text)
    }
}
