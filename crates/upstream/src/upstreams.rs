//! Pools by name, over reloads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use refrain_core::PoolId;
use refrain_core::settings::Pool;
use tokio::sync::Notify;

use crate::endpoint::EndpointState;
use crate::ledger::Ledger;
use crate::tls::TlsAccess;
use crate::{Discoveries, PoolState, UpstreamError};

/// Every pool of one configuration. Part of the live snapshot; shared by all workers.
#[derive(Debug)]
pub struct Upstreams {
    pools: BTreeMap<PoolId, Arc<PoolState>>,
    /// Raised when somebody asked for a model of unknown identity; one for all reloads.
    pub(crate) model_wanted: Arc<Notify>,
    pub(crate) proxies: Arc<Proxies>,
    /// What finds endpoints; one for all reloads.
    discoveries: Arc<Discoveries>,
    /// What requests cost; one for all reloads.
    pub(crate) ledger: Arc<Ledger>,
    /// What certificate files held when these pools were made, for endpoints that others may be using.
    renewed: Vec<Certified>,
}

/// How many proxies share the endpoints' limits; never 0.
#[derive(Debug)]
pub(crate) struct Proxies(AtomicU32);

impl Default for Proxies {
    fn default() -> Self {
        Self(AtomicU32::new(1))
    }
}

impl Proxies {
    /// How many.
    pub(crate) fn count(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

impl Upstreams {
    /// Pools with fresh state.
    ///
    /// # Errors
    /// [`UpstreamError::Settings`] if an endpoint's host or headers can't be sent, [`UpstreamError::TlsFile`] or
    /// [`UpstreamError::ServerName`] if its certificates can't be used.
    pub fn new(pools: &BTreeMap<PoolId, Arc<Pool>>) -> Result<Self, UpstreamError> {
        Self {
            pools: BTreeMap::new(),
            model_wanted: Arc::default(),
            proxies: Arc::default(),
            discoveries: Arc::default(),
            ledger: Arc::default(),
            renewed: Vec::new(),
        }
        .reload(pools)
    }

    /// Pools by new settings. A pool that did not change is the same one; in a changed pool, an endpoint that did not
    /// change keeps its state and idle connections. Nothing that `self` uses changes before [`Upstreams::take_effect`].
    ///
    /// # Errors
    /// As [`Upstreams::new`]; `self` stays usable.
    pub fn reload(&self, pools: &BTreeMap<PoolId, Arc<Pool>>) -> Result<Self, UpstreamError> {
        let renewed = |(id, config): (&PoolId, &Arc<Pool>)| {
            let old = self.pools.get(id);
            let state = match old {
                Some(old) if old.config() == config => old.clone(),
                _ => Arc::new(PoolState::new(config, old.map(Arc::as_ref), self)?),
            };
            Ok((id.clone(), state))
        };
        let pools = pools.iter().map(renewed).collect::<Result<BTreeMap<_, _>, UpstreamError>>()?;
        Ok(Self {
            renewed: certificates(&pools)?,
            pools,
            model_wanted: self.model_wanted.clone(),
            proxies: self.proxies.clone(),
            discoveries: self.discoveries.clone(),
            ledger: self.ledger.clone(),
        })
    }

    /// These pools are the live ones from now on: new connections use what certificate files held when they were made, and
    /// what others cost is written down no more.
    pub fn take_effect(&self) {
        self.ledger.keep(|pool| self.pools.contains_key(pool));
        for (endpoint, tls) in &self.renewed {
            endpoint.tls.store(Some(tls.clone()));
        }
    }

    /// The pool of this name.
    pub fn pool(&self, id: &PoolId) -> Option<&Arc<PoolState>> {
        self.pools.get(id)
    }

    /// How many proxies there are in front of the same endpoints, this one included: each takes its part of their limits.
    pub fn set_proxies(&self, count: u32) {
        self.proxies.0.store(count.max(1), Relaxed);
    }

    /// What [`Upstreams::set_proxies`] said last; 1 before.
    pub fn proxies(&self) -> u32 {
        self.proxies.count()
    }

    /// What finds endpoints that config does not list, if [`crate::keep_members`] runs.
    pub fn discoveries(&self) -> &Discoveries {
        &self.discoveries
    }

    /// What requests cost, and what was not asked because it was stored.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// All pools, by name.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<PoolState>> {
        self.pools.values()
    }
}

/// An endpoint, and what its certificate files hold.
type Certified = (Arc<EndpointState>, Arc<TlsAccess>);

/// What the certificate files of all endpoints hold by now: they change without a change of settings. A discovered endpoint
/// whose files can't be used keeps what it has, since its source may be about to say otherwise.
fn certificates(pools: &BTreeMap<PoolId, Arc<PoolState>>) -> Result<Vec<Certified>, UpstreamError> {
    let mut certified = Vec::new();
    for pool in pools.values() {
        for endpoint in pool.endpoints().iter() {
            match TlsAccess::read(&endpoint.config) {
                Ok(tls) => certified.extend(tls.map(|tls| (endpoint.clone(), tls))),
                Err(error) if pool.config().endpoints.contains(&endpoint.config) => return Err(error),
                Err(_) => {}
            }
        }
    }
    Ok(certified)
}
