//! Everything that one configuration decides, behind one pointer: a request loads it once, a reload swaps it.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use refrain_core::settings::{ApiKey, Listener, Priority, Settings, TokenPlace};
use refrain_core::{KeyId, LimitId, ListenerId, PoolId, RouteId};
use refrain_plugin::{Chain, PluginError, PluginHost};
use refrain_upstream::Upstreams;

use crate::access::Sampler;
use crate::auth::{Auth, Caller, SigningKeysError};
use crate::generate::FlightHead;
use crate::limits::{LimitState, LimitStats};
use crate::metrics::RouteMetrics;
use crate::redaction::Redaction;
use crate::repeats::Repeats;
use crate::route::{RouteState, Routed};
use crate::tenancy::Salts;
use crate::tls::{ListenerTls, TlsError};
use crate::trace::{TraceSink, Tracer};

/// The cache as the path uses it: answers in flight carry an HTTP head.
pub type AnswerCache = refrain_cache::Cache<Arc<FlightHead>>;

/// The policies of each route that has any, loaded and configured: [`load_policies`].
pub type Policies = HashMap<RouteId, Arc<Chain>>;

/// The configuration in force.
pub type Live = Arc<ArcSwap<Snapshot>>;

/// One configuration, ready to serve.
pub struct Snapshot {
    /// What config says.
    pub settings: Arc<Settings>,
    /// In the order in which they are tried.
    pub routes: Vec<Arc<RouteState>>,
    /// Who may ask.
    pub auth: Auth,
    /// Keys whose requests are not served in the order that their routes say.
    priorities: HashMap<KeyId, Priority>,
    /// TLS of the listeners that have it.
    pub(crate) tls: HashMap<ListenerId, ListenerTls>,
    /// Pools and their state.
    pub upstreams: Arc<Upstreams>,
    /// What callers may ask for, with what they have asked for.
    pub(crate) limits: HashMap<LimitId, Arc<LimitState>>,
    /// Which requests have an access line.
    pub(crate) sampler: Sampler,
    /// Which have spans; none: no request.
    pub(crate) tracer: Option<Tracer>,
    /// Entries, vectors and generations in flight: outlives configurations. None: the store is off and everything is passed through.
    pub cache: Option<Arc<AnswerCache>>,
}

/// Why a configuration can't be served.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A listener's certificates.
    #[error("listener {listener:?}: {source}")]
    Tls {
        /// Its name in config.
        listener: ListenerId,
        /// What is wrong.
        source: TlsError,
    },
    /// The keys that verify tokens.
    #[error(transparent)]
    SigningKeys(#[from] SigningKeysError),
    /// A pool that isn't there: config makes sure that it is.
    #[error("route {route:?}: pool {pool:?} is not running")]
    Pool {
        /// The route.
        route: RouteId,
        /// Its pool.
        pool: PoolId,
    },
}

impl Snapshot {
    /// Reads certificates and keys, and wires routes to pools and policies. Changes nothing that another snapshot uses but the
    /// bounds of limits' tables. `former`: what is followed, whose counts of limits go on and whose issuers' keys are kept.
    pub fn build(
        settings: Settings,
        upstreams: Arc<Upstreams>,
        cache: Option<Arc<AnswerCache>>,
        policies: &Policies,
        former: Option<&Self>,
    ) -> Result<Self, SnapshotError> {
        let none = HashMap::new();
        let limits = LimitState::all(&settings.rate_limits, former.map_or(&none, |former| &former.limits));
        let identity_headers = identity_headers(&settings);
        let routes = settings.routes.iter().map(|route| {
            let pool = upstreams
                .pool(&route.pool)
                .cloned()
                .ok_or_else(|| SnapshotError::Pool { route: route.id.clone(), pool: route.pool.clone() })?;
            let before = former.and_then(|former| former.routes.iter().find(|old| old.route.id == route.id));
            let metrics = RouteMetrics::new(&route.id, before.map(|before| &before.metrics));
            let repeats = Repeats::new(route.cache.regenerate);
            let chain = policies.get(&route.id).cloned();
            let salts = Salts::new(cache.as_ref().map(|cache| cache.salt_key()));
            // Config makes sure that all are there.
            let limits = route.limits.iter().filter_map(|id| limits.get(id).cloned()).collect();
            let (route, identity_headers) = (route.clone(), identity_headers.clone());
            let redaction = route.prompt_log.as_ref().map(Redaction::new);
            Ok(Arc::new(RouteState {
                route,
                pool,
                identity_headers,
                chain,
                repeats,
                limits,
                redaction,
                crowds: before.map(|before| before.crowds.clone()).unwrap_or_default(),
                salts,
                metrics,
            }))
        });
        Ok(Self {
            routes: routes.collect::<Result<_, SnapshotError>>()?,
            limits,
            sampler: Sampler::new(settings.log.access_sample),
            priorities: priorities(&settings.keys),
            tracer: None,
            auth: Auth::new(&settings, former.map(|former| &former.auth))?,
            tls: listeners_tls(&settings.listeners)?,
            settings: Arc::new(settings),
            upstreams,
            cache,
        })
    }

    /// Whose turn a request is where model servers are at their limits: its key's word, else its route's.
    pub(crate) fn priority(&self, routed: &Routed, caller: &Caller) -> Priority {
        let of_key = caller.key.as_ref().and_then(|key| self.priorities.get(key));
        of_key.copied().unwrap_or(routed.state.route.priority)
    }

    /// Every limit's numbers of now.
    pub fn limit_stats(&self) -> Vec<LimitStats> {
        let mut stats: Vec<LimitStats> = self.limits.values().map(|limit| limit.stats()).collect();
        stats.sort_by(|a, b| a.limit.cmp(&b.limit));
        stats
    }

    /// Has requests traced, if config says so.
    pub fn traced(mut self, sink: &TraceSink) -> Self {
        let traces = self.settings.otlp.as_ref().and_then(|otlp| otlp.traces);
        self.tracer = traces.map(|traces| Tracer::new(traces, sink.clone()));
        self
    }

    /// A listener's settings; none after a reload that dropped it.
    pub(crate) fn listener(&self, id: &ListenerId) -> Option<&Listener> {
        self.settings.listeners.iter().find(|listener| listener.id == *id)
    }
}

/// Loads and configures the policies of all routes, those that run already included. Takes as long as compiling what is new
/// takes.
///
/// # Errors
/// A policy can't be loaded, or refuses its configuration.
///
/// # Cancel safety
/// Safe: what was begun to be compiled is compiled, and there for the next call.
pub async fn load_policies(host: &Arc<PluginHost>, settings: &Settings) -> Result<Policies, PluginError> {
    let mut policies = Policies::new();
    for route in &settings.routes {
        if let Some(chain) = host.chain(route).await? {
            policies.insert(route.id.clone(), chain);
        }
    }
    Ok(policies)
}

fn priorities(keys: &[ApiKey]) -> HashMap<KeyId, Priority> {
    keys.iter().filter_map(|key| Some((key.id.clone(), key.priority?))).collect()
}

fn identity_headers(settings: &Settings) -> Arc<[String]> {
    let headers = settings.tokens.iter().filter_map(|issuer| match &issuer.place {
        TokenPlace::Header(name) => Some(name.clone()),
        TokenPlace::Bearer => None,
    });
    headers.collect()
}

fn listeners_tls(listeners: &[Listener]) -> Result<HashMap<ListenerId, ListenerTls>, SnapshotError> {
    let with_tls = listeners.iter().filter_map(|listener| Some((&listener.id, listener.tls.as_ref()?)));
    let configs = with_tls.map(|(id, tls)| match ListenerTls::read(tls) {
        Ok(config) => Ok((id.clone(), config)),
        Err(source) => Err(SnapshotError::Tls { listener: id.clone(), source }),
    });
    configs.collect()
}
