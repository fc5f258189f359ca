//! Pools by name, and what of them outlives a reload.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use refrain_core::settings::{Endpoint, Pool, PoolKind};
use refrain_core::{EndpointId, PoolId};
use tokio::sync::Notify;

use crate::balance::{self, Turns};
use crate::budget::RetryBudget;
use crate::endpoint::{EndpointState, EndpointStats};
use crate::tls::TlsAccess;
use crate::{UpstreamError, identity, rendezvous};

/// Every pool of one configuration. Part of the live snapshot; shared by all workers.
#[derive(Debug)]
pub struct Upstreams {
    pools: BTreeMap<PoolId, Arc<PoolState>>,
    /// Raised when somebody asked for a model of unknown identity; one for all reloads.
    pub(crate) model_wanted: Arc<Notify>,
}

/// An endpoint that stays, and what its certificate files hold now.
type Renewed = (Arc<EndpointState>, Arc<TlsAccess>);

/// A pool's live state.
#[derive(Debug)]
pub struct PoolState {
    config: Arc<Pool>,
    endpoints: Vec<Arc<EndpointState>>,
    turns: Turns,
    revision: Arc<str>,
    pub(crate) budget: RetryBudget,
    pub(crate) disagreement: identity::Disagreement,
    model_wanted: Arc<Notify>,
}

impl Upstreams {
    /// Pools with fresh state.
    ///
    /// # Errors
    /// [`UpstreamError::Settings`] if an endpoint's host or headers can't be sent, [`UpstreamError::TlsFile`] or
    /// [`UpstreamError::ServerName`] if its certificates can't be used.
    pub fn new(pools: &BTreeMap<PoolId, Arc<Pool>>) -> Result<Self, UpstreamError> {
        Self { pools: BTreeMap::new(), model_wanted: Arc::default() }.reload(pools)
    }

    /// Pools by new settings. A pool that did not change is the same one; in a changed pool, an endpoint that did not
    /// change keeps its state and idle connections.
    ///
    /// # Errors
    /// As [`Upstreams::new`]; `self` stays usable.
    pub fn reload(&self, pools: &BTreeMap<PoolId, Arc<Pool>>) -> Result<Self, UpstreamError> {
        let renewed = |(id, config): (&PoolId, &Arc<Pool>)| {
            let old = self.pools.get(id);
            let state = match old {
                Some(old) if old.config == *config => old.clone(),
                _ => Arc::new(PoolState::new(config, old.map(Arc::as_ref), &self.model_wanted)?),
            };
            Ok((id.clone(), state))
        };
        let certificates = self.renewed_certificates(pools)?;
        let pools = pools.iter().map(renewed).collect::<Result<_, UpstreamError>>()?;
        for (endpoint, tls) in certificates {
            endpoint.tls.store(Some(tls));
        }
        Ok(Self { pools, model_wanted: self.model_wanted.clone() })
    }

    /// What the certificate files of endpoints hold by now. They change without a change of settings.
    fn renewed_certificates(
        &self,
        pools: &BTreeMap<PoolId, Arc<Pool>>,
    ) -> Result<Vec<Renewed>, UpstreamError> {
        let mut renewed = Vec::new();
        for state in pools.keys().filter_map(|id| self.pools.get(id)) {
            for endpoint in state.endpoints() {
                let stays = pools[state.id()].endpoints.contains(&endpoint.config);
                if let Some(tls) = stays.then(|| TlsAccess::read(&endpoint.config)).transpose()?.flatten() {
                    renewed.push((endpoint.clone(), tls));
                }
            }
        }
        Ok(renewed)
    }

    /// The pool of this name.
    pub fn pool(&self, id: &PoolId) -> Option<&Arc<PoolState>> {
        self.pools.get(id)
    }

    /// All pools, by name.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<PoolState>> {
        self.pools.values()
    }
}

impl PoolState {
    fn new(
        config: &Arc<Pool>,
        old: Option<&Self>,
        model_wanted: &Arc<Notify>,
    ) -> Result<Self, UpstreamError> {
        let kept = |endpoint: &Endpoint| {
            old.and_then(|old| old.endpoints.iter().find(|kept| kept.config == *endpoint))
        };
        let endpoints = config
            .endpoints
            .iter()
            .map(|endpoint| match kept(endpoint) {
                Some(kept) => Ok(kept.clone()),
                None => EndpointState::new(endpoint).map(Arc::new),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let weights: Vec<u32> = config.endpoints.iter().map(|endpoint| endpoint.weight).collect();
        Ok(Self {
            turns: Turns::new(&weights),
            revision: config.revision.as_str().into(),
            budget: RetryBudget::default(),
            disagreement: identity::Disagreement::default(),
            model_wanted: model_wanted.clone(),
            config: config.clone(),
            endpoints,
        })
    }

    /// Its name.
    pub fn id(&self) -> &PoolId {
        &self.config.id
    }

    /// Its settings.
    pub fn config(&self) -> &Arc<Pool> {
        &self.config
    }

    /// Its endpoints, in the order of config.
    pub fn endpoints(&self) -> &[Arc<EndpointState>] {
        &self.endpoints
    }

    /// The endpoint of this name.
    pub fn endpoint(&self, id: &EndpointId) -> Option<&Arc<EndpointState>> {
        self.endpoints.iter().find(|endpoint| endpoint.id() == id)
    }

    /// Every endpoint's counters now.
    pub fn stats(&self) -> Vec<EndpointStats> {
        self.endpoints.iter().map(|endpoint| endpoint.stats()).collect()
    }

    /// What stands behind `model` (the upstream's name for it) on this pool: part of every cache key. The configured
    /// revision, or for Ollama the model's digest if every endpoint that holds the model says the same one.
    ///
    /// None means unknown: nothing may be cached. It also asks for a look soon, if [`crate::keep_identities`] runs.
    pub fn model_identity(&self, model: &str) -> Option<Arc<str>> {
        match self.config.kind {
            PoolKind::Generic => Some(self.revision.clone()),
            PoolKind::Ollama => {
                let identity = identity::agreed(self, model);
                if identity.is_none() {
                    self.model_wanted.notify_one();
                }
                identity
            }
        }
    }

    /// What stands behind `model` at one endpoint. An answer may be stored only if this is what
    /// [`PoolState::model_identity`] said when its key was made: endpoints may come to differ in between.
    pub fn model_identity_at(&self, endpoint: &EndpointId, model: &str) -> Option<Arc<str>> {
        match self.config.kind {
            PoolKind::Generic => Some(self.revision.clone()),
            PoolKind::Ollama => identity::at(self.endpoint(endpoint)?, model),
        }
    }

    /// Endpoints to ask for one request, in order, each once. Without a routing key a turn is taken by calling it.
    pub(crate) fn order(&self, routing_key: Option<&[u8; 32]>) -> Vec<usize> {
        let preference = match routing_key {
            Some(key) => rendezvous::preference(&self.endpoints, key),
            None => self.turns.preference(),
        };
        if self.endpoints.iter().any(|endpoint| endpoint.is_doubtful()) {
            return balance::order(&self.endpoints, preference, Instant::now());
        }
        preference
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use refrain_core::settings::Timeouts;

    use super::*;

    fn endpoint(id: &str) -> Endpoint {
        Endpoint::plain(id, "127.0.0.1", 11434)
    }

    pub(crate) fn endpoints(ids: &[&str]) -> Vec<Arc<EndpointState>> {
        ids.iter().map(|id| Arc::new(EndpointState::new(&endpoint(id)).unwrap())).collect()
    }

    pub(crate) fn pool(id: &str, kind: PoolKind, endpoints: &[&str]) -> Arc<Pool> {
        Arc::new(Pool {
            id: id.into(),
            endpoints: endpoints.iter().map(|id| endpoint(id)).collect(),
            discover: Vec::new(),
            kind,
            revision: "r1".into(),
            models: BTreeMap::new(),
            timeouts: Timeouts::default(),
            idle_connections_max: 8,
            connections_max: Pool::CONNECTIONS_MAX,
        })
    }

    fn pools(pools: &[&Arc<Pool>]) -> BTreeMap<PoolId, Arc<Pool>> {
        pools.iter().map(|&pool| (pool.id.clone(), pool.clone())).collect()
    }

    #[test]
    fn a_reload_keeps_pools_and_endpoints_that_did_not_change() {
        let (same, grows) =
            (pool("same", PoolKind::Generic, &["a"]), pool("grows", PoolKind::Generic, &["a"]));
        let old = Upstreams::new(&pools(&[&same, &grows])).unwrap();
        let grown = pool("grows", PoolKind::Generic, &["a", "b"]);
        let new = old.reload(&pools(&[&Arc::new((*same).clone()), &grown])).unwrap();

        assert!(Arc::ptr_eq(old.pool(&"same".into()).unwrap(), new.pool(&"same".into()).unwrap()));
        let (before, after) = (old.pool(&"grows".into()).unwrap(), new.pool(&"grows".into()).unwrap());
        assert!(!Arc::ptr_eq(before, after));
        assert!(Arc::ptr_eq(&before.endpoints()[0], &after.endpoints()[0]));
        assert_eq!(after.endpoints().len(), 2);
    }

    #[test]
    fn a_generic_pool_names_every_model_by_its_revision() {
        let upstreams = Upstreams::new(&pools(&[&pool("p", PoolKind::Generic, &["a"])])).unwrap();
        let identity = upstreams.pool(&"p".into()).unwrap().model_identity("anything");
        assert_eq!(identity.as_deref(), Some("r1"));
    }
}
