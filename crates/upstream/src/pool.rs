//! One pool: its endpoints, its queue, and what of it outlives a reload.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use refrain_core::settings::{Balance, Endpoint, MicroDollars, Pool, PoolKind, Tenancy};
use refrain_core::{EndpointId, PoolId};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::admission::{self, Queue, Seat};
use crate::balance::preview::{self, Preview};
use crate::balance::recent::{self, Recent};
use crate::balance::turns::Members;
use crate::balance::{self, Choice};
use crate::budget::RetryBudget;
use crate::endpoint::{EndpointState, EndpointStats};
use crate::ledger::Ledger;
use crate::models::Held;
use crate::scaling::{Load, Scale};
use crate::upstreams::{Proxies, Upstreams};
use crate::{Demand, Listed, Millis, UpstreamError, identity};

/// Dollars an hour that a source may ask at most, as config may: nonsense would make bills overflow.
const PRICE_MAX: f64 = 1_000_000.0;

/// A pool's live state.
#[derive(Debug)]
pub struct PoolState {
    config: Arc<Pool>,
    members: ArcSwap<Members>,
    turn: AtomicUsize,
    revision: Arc<str>,
    /// When its endpoints were looked at last.
    looked: Mutex<Option<Instant>>,
    pub(crate) budget: RetryBudget,
    pub(crate) disagreement: identity::Disagreement,
    /// Whether all endpoints have the same models, as far as they say.
    is_uniform: AtomicBool,
    /// Where conversations went.
    pub(crate) recent: Arc<Recent>,
    /// Who keeps what later requests refer to.
    pub(crate) owners: Arc<Recent>,
    pub(crate) queue: Queue,
    scale: Arc<Scale>,
    model_wanted: Arc<Notify>,
    proxies: Arc<Proxies>,
    ledger: Arc<Ledger>,
    /// When its bill was written up last.
    billed: Mutex<Option<Millis>>,
}

/// What a pool does at one moment, as far as this proxy is concerned. Counters begin anew where a reload changes the pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolStats {
    /// Which pool.
    pub pool: PoolId,
    /// Requests being answered now.
    pub in_flight: u64,
    /// Tokens of their prompts, as far as known.
    pub tokens: u64,
    /// Requests that wait for an endpoint.
    pub queued: usize,
    /// Requests that were refused, or waited in vain.
    pub refused: u64,
    /// Requests that have waited, with success or not.
    pub waits: u64,
    /// How long they waited in all.
    pub waited: Duration,
    /// Requests in flight that an endpoint takes from this proxy.
    pub limit: u32,
    /// The same of all endpoints that are asked.
    pub capacity: u64,
    /// Tokens that the endpoints generated, as far as they told.
    pub output_tokens: u64,
    /// The same a second, of late.
    pub output_tokens_per_second: f64,
    /// How many endpoints there should be, for all proxies; at least 1.
    pub desired_replicas: u32,
}

impl PoolState {
    /// A pool with these settings. `old`: the one of this name before; endpoints that did not change keep their state.
    ///
    /// # Errors
    /// As [`Upstreams::new`].
    pub(crate) fn new(
        config: &Arc<Pool>,
        old: Option<&Self>,
        upstreams: &Upstreams,
    ) -> Result<Self, UpstreamError> {
        let former = old.map(Self::endpoints);
        let mut endpoints = kept(&config.endpoints, former.as_deref())?;
        // What was discovered stays until its source says otherwise.
        let is_static = |endpoint: &EndpointState| {
            config
                .endpoints
                .iter()
                .chain(old.iter().flat_map(|old| &old.config.endpoints))
                .any(|one| one.id == endpoint.config.id)
        };
        let discovered =
            former.iter().flat_map(|former| former.iter()).filter(|endpoint| !is_static(endpoint));
        endpoints.extend(discovered.cloned());
        // Of discovered ones, their source may have said more.
        endpoints
            .iter()
            .filter(|endpoint| is_static(endpoint) || endpoint.price().is_none())
            .for_each(|endpoint| endpoint.set_price(config.cost.of(endpoint.id())));
        Ok(Self {
            members: ArcSwap::from_pointee(Members::new(endpoints)),
            turn: AtomicUsize::new(0),
            revision: config.revision.as_str().into(),
            looked: Mutex::new(None),
            is_uniform: AtomicBool::new(old.is_none_or(|old| old.is_uniform.load(Relaxed))),
            budget: RetryBudget::default(),
            disagreement: identity::Disagreement::default(),
            recent: old.map_or_else(|| Arc::new(Recent::new(recent::PREFIX_KEPT)), |old| old.recent.clone()),
            owners: old
                .map_or_else(|| Arc::new(Recent::new(recent::RESPONSE_KEPT)), |old| old.owners.clone()),
            queue: Queue::default(),
            scale: old.map_or_else(Arc::default, |old| old.scale.clone()),
            model_wanted: upstreams.model_wanted.clone(),
            proxies: upstreams.proxies.clone(),
            ledger: upstreams.ledger.clone(),
            billed: Mutex::new(old.and_then(|old| *old.billed.lock())),
            config: config.clone(),
        })
    }

    /// Takes in what was discovered, and lets go of what was discovered before and is no longer there. Endpoints that did not
    /// change keep their state; new ones are asked once they have shown to be ready; requests at those that left end there.
    /// Config's own endpoints stay, and win over discovered ones of the same name.
    ///
    /// Gives back why some of it can't be used: a host or authorization that can't be sent, certificates that can't be read. Such
    /// an endpoint stays as it was, or out.
    pub fn replace_discovered(self: &Arc<Self>, discovered: &[Endpoint]) -> Vec<UpstreamError> {
        let former = self.endpoints();
        let own = &self.config.endpoints;
        let is_own = |id: &EndpointId| own.iter().any(|own| own.id == *id);
        let mut problems = Vec::new();
        let mut endpoints: Vec<_> = former.iter().filter(|endpoint| is_own(endpoint.id())).cloned().collect();
        for one in discovered.iter().filter(|one| !is_own(&one.id)) {
            let known = former.iter().find(|endpoint| *endpoint.id() == one.id);
            match self.member(one, known) {
                Ok(member) => endpoints.push(member),
                Err(problem) => {
                    endpoints.extend(known.cloned());
                    problems.push(problem);
                }
            }
        }
        let is_same = endpoints.len() == former.len()
            && endpoints.iter().zip(former.iter()).all(|(one, other)| Arc::ptr_eq(one, other));
        if !is_same {
            self.members.store(Arc::new(Members::new(endpoints)));
            self.look_soon();
            admission::dispatch(self);
        }
        problems
    }

    /// What a discovered endpoint is from now on. `known`: what was known by its name.
    fn member(
        &self,
        discovered: &Endpoint,
        known: Option<&Arc<EndpointState>>,
    ) -> Result<Arc<EndpointState>, UpstreamError> {
        let place = |one: &Endpoint| (one.host.clone(), one.port);
        let known = match known {
            Some(known) if known.config == *discovered => return Ok(known.clone()),
            known => known.filter(|known| place(&known.config) == place(discovered)),
        };
        // Under other settings it is the same server. Where nobody looks, nobody would ever find it ready.
        let is_asked = known.is_some_and(|known| known.health.is_believed());
        let is_asked = is_asked || self.config.health.interval.is_none();
        let make = if is_asked { EndpointState::new } else { EndpointState::discovered };
        make(discovered).map(Arc::new)
    }

    /// What sources say of the prices of discovered endpoints; where they say nothing, config does.
    pub(crate) fn price_discovered(&self, listed: &[Listed]) {
        for Listed { endpoint, price_per_hour, .. } in listed {
            if let Some(known) = self.endpoint(&endpoint.id).filter(|_| !self.lists(&endpoint.id)) {
                let told = price_per_hour.filter(|price| *price <= PRICE_MAX).map(MicroDollars::of_dollars);
                known.set_price(told.or_else(|| self.config.cost.of(&endpoint.id)));
            }
        }
    }

    /// Whether config lists an endpoint of this name.
    fn lists(&self, id: &EndpointId) -> bool {
        self.config.endpoints.iter().any(|endpoint| endpoint.id == *id)
    }

    /// Where the cost of requests to it is put down.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Its name.
    pub fn id(&self) -> &PoolId {
        &self.config.id
    }

    /// Its settings.
    pub fn config(&self) -> &Arc<Pool> {
        &self.config
    }

    /// Its endpoints now: those of config in their order, then discovered ones.
    pub fn endpoints(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// The same for a moment.
    pub(crate) fn members(&self) -> Guard<Arc<Members>> {
        self.members.load()
    }

    /// The endpoint of this name.
    pub fn endpoint(&self, id: &EndpointId) -> Option<Arc<EndpointState>> {
        self.members.load().iter().find(|endpoint| endpoint.id() == id).cloned()
    }

    /// Every endpoint's counters now.
    pub fn stats(&self) -> Vec<EndpointStats> {
        self.members.load().iter().map(|endpoint| endpoint.stats(&self.config)).collect()
    }

    /// What it does now.
    pub fn summary(&self) -> PoolStats {
        let members = self.members.load();
        let now = Millis::now();
        let asked = members.iter().filter(|endpoint| endpoint.condition(now).is_asked()).count() as u64;
        let (refused, waits, waited) = self.queue.counts();
        let (output_tokens, output_tokens_per_second) = self.scale.output_tokens();
        PoolStats {
            pool: self.config.id.clone(),
            in_flight: self.in_flight(),
            tokens: members.iter().map(|endpoint| endpoint.counters.tokens.load(Relaxed)).sum(),
            queued: self.queue.waiting(),
            refused,
            waits,
            waited,
            limit: self.limit(),
            capacity: asked * u64::from(self.limit()),
            output_tokens,
            output_tokens_per_second,
            desired_replicas: self.scale.replicas(self.load_at(now)),
        }
    }

    /// Adds tokens that an endpoint of it has generated.
    pub fn add_output_tokens(&self, count: u64) {
        self.scale.add_output_tokens(count);
    }

    /// Remembers its load of now.
    pub(crate) fn note_load(&self, now: Millis) {
        self.scale.note(now, self.load_at(now));
        self.write_bill(now);
    }

    fn write_bill(&self, now: Millis) {
        let before = self.billed.lock().replace(now).unwrap_or(now);
        let prices: Vec<_> = self.members.load().iter().map(|endpoint| endpoint.price()).collect();
        self.ledger.bill(self.id(), &prices, now.since(before), self.proxies.count());
    }

    fn load_at(&self, now: Millis) -> Load {
        Load {
            requests: self.in_flight() + self.queue.waiting() as u64,
            concurrency: self.config.admission.concurrency,
            proxies: self.proxies.count(),
            is_served: self.members.load().iter().any(|endpoint| endpoint.condition(now).is_asked()),
        }
    }

    fn in_flight(&self) -> u64 {
        let in_flight = |endpoint: &Arc<EndpointState>| u64::from(endpoint.counters.in_flight.load(Relaxed));
        self.members.load().iter().map(in_flight).sum()
    }

    /// A seat for a request at this moment, by the pool's balance and limits, without waiting: none if there is no room or
    /// nobody to ask. For simulations, which have their own clock; requests get theirs from [`crate::Client::send`].
    pub fn try_seat(self: &Arc<Self>, demand: &Demand, now: Millis) -> Option<Seat> {
        match balance::choose(self, demand, &[], now) {
            Choice::Seat(seat) => Some(seat),
            Choice::Full | Choice::Nobody => None,
        }
    }

    /// Whether requests of it must be understood to be sent on: their model is renamed, or what they say decides where they go.
    pub fn reads_bodies(&self) -> bool {
        let by_content = !matches!(self.config.balance, Balance::RoundRobin | Balance::LeastLoad);
        !self.config.models.is_empty()
            || self.config.tenancy == Tenancy::Salted
            || self.config.assemble
            || self.config.fallback.is_some()
            || (self.has_choice() && (by_content || !self.is_uniform.load(Relaxed)))
    }

    /// Whether there is more than one endpoint.
    pub fn has_choice(&self) -> bool {
        self.members.load().len() > 1
    }

    /// Notes which endpoint keeps something that later requests may refer to, by a hash that is spread evenly.
    pub fn note_owner(&self, hash: u64, endpoint: &EndpointId) {
        if let Some(endpoint) = self.endpoint(endpoint) {
            self.owners.note(hash, endpoint.key, Millis::now());
        }
    }

    /// Endpoints other than this one that have a model in memory, as far as they say.
    pub fn others_with(&self, model: &str, endpoint: &EndpointId) -> Vec<Arc<EndpointState>> {
        let model = crate::models::hash(model);
        let members = self.members.load();
        members
            .iter()
            .filter(|other| other.id() != endpoint && other.held(model) == Held::InMemory)
            .cloned()
            .collect()
    }

    /// Takes the next turn.
    pub(crate) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Relaxed)
    }

    /// The next turn, which stays to be taken.
    pub(crate) fn next_turn(&self) -> usize {
        self.turn.load(Relaxed)
    }

    /// In which order its endpoints would be tried for a request now, and why. Changes nothing.
    pub fn preview(&self, demand: &Demand) -> Vec<Preview> {
        preview::preview(self, demand, Millis::now())
    }

    /// Requests in flight that an endpoint takes from this proxy.
    pub(crate) fn limit(&self) -> u32 {
        self.divided(self.config.admission.concurrency)
    }

    /// Requests in flight up to which balance never sends a request away from this proxy's preferred endpoint.
    pub(crate) fn floor(&self) -> u32 {
        self.divided(self.config.admission.parallelism)
    }

    fn divided(&self, limit: u32) -> u32 {
        limit.div_ceil(self.proxies.count()).max(1)
    }

    /// Whether its endpoints' turn to be looked at has come; takes it.
    pub(crate) fn takes_look(&self, now: Instant, interval: Duration) -> bool {
        let mut looked = self.looked.lock();
        let is_due = looked.is_none_or(|looked| now >= looked + interval);
        if is_due {
            *looked = Some(now);
        }
        is_due
    }

    /// An endpoint said what it has: whether that matters is found out.
    pub(crate) fn note_models(&self) {
        let members = self.members.load();
        let mut known = members.iter().filter_map(|endpoint| endpoint.models.load_full());
        let is_uniform = known.next().is_none_or(|first| known.all(|other| first.are_those_of(&other)));
        self.is_uniform.store(is_uniform, Relaxed);
    }

    /// Its endpoints are looked at next.
    pub(crate) fn look_soon(&self) {
        *self.looked.lock() = None;
    }

    /// What stands behind `model` (the upstream's name for it) on this pool: part of every cache key. The configured
    /// revision, or for Ollama the model's digest if every endpoint that holds the model says the same one.
    ///
    /// None means unknown: nothing may be cached. It also asks for a look soon, if [`crate::watch()`] runs.
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
            PoolKind::Ollama => identity::at(&*self.endpoint(endpoint)?, model),
        }
    }
}

/// States of these endpoints: former ones where nothing changed.
fn kept(endpoints: &[Endpoint], former: Option<&Members>) -> Result<Vec<Arc<EndpointState>>, UpstreamError> {
    let kept =
        |endpoint: &Endpoint| former.and_then(|former| former.iter().find(|one| one.config == *endpoint));
    let states = endpoints.iter().map(|endpoint| match kept(endpoint) {
        Some(kept) => Ok(kept.clone()),
        None => EndpointState::new(endpoint).map(Arc::new),
    });
    states.collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn endpoint(id: &str) -> Endpoint {
        Endpoint::plain(id, "127.0.0.1", 11434)
    }

    pub(crate) fn pool(id: &str, kind: PoolKind, endpoints: &[&str]) -> Arc<Pool> {
        let endpoints = endpoints.iter().map(|id| endpoint(id)).collect();
        Arc::new(Pool { kind, revision: "r1".into(), ..Pool::new(id.into(), endpoints) })
    }

    fn pools(pools: &[&Arc<Pool>]) -> BTreeMap<PoolId, Arc<Pool>> {
        pools.iter().map(|&pool| (pool.id.clone(), pool.clone())).collect()
    }

    #[test]
    fn cost_of_a_discovered_endpoint_is_what_config_says_where_its_source_talks_nonsense() {
        let mut config = (*pool("p", PoolKind::Generic, &[])).clone();
        config.cost.per_hour = Some(MicroDollars::of_dollars(2.0));
        let upstreams = Upstreams::new(&pools(&[&Arc::new(config)])).unwrap();
        let pool = upstreams.pool(&"p".into()).unwrap();
        pool.replace_discovered(&[endpoint("found")]);
        let price = |told| {
            pool.price_discovered(&[Listed {
                endpoint: endpoint("found"),
                price_per_hour: Some(told),
                started: None,
            }]);
            pool.endpoints()[0].price().map(MicroDollars::dollars)
        };
        assert_eq!([0.5, 1e300, f64::INFINITY, f64::NAN].map(price), [0.5, 2.0, 2.0, 2.0].map(Some));
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
    fn a_discovered_endpoint_under_new_settings_is_asked_on_and_one_at_a_new_place_is_awaited() {
        let config = pool("p", PoolKind::Generic, &[]);
        let upstreams = Upstreams::new(&pools(&[&config])).unwrap();
        let pool = upstreams.pool(&"p".into()).unwrap();
        let is_asked = || pool.stats()[0].state.is_asked();
        assert!(pool.replace_discovered(&[endpoint("s:1")]).is_empty());
        assert!(!is_asked(), "nobody has found it ready");
        pool.endpoints()[0].health.note_look(true, Millis::now());
        pool.replace_discovered(&[Endpoint { weight: 7, ..endpoint("s:1") }]);
        assert!(is_asked());
        pool.replace_discovered(&[Endpoint { port: 9, ..endpoint("s:1") }]);
        assert!(!is_asked());
    }

    #[test]
    fn a_generic_pool_names_every_model_by_its_revision() {
        let upstreams = Upstreams::new(&pools(&[&pool("p", PoolKind::Generic, &["a"])])).unwrap();
        let identity = upstreams.pool(&"p".into()).unwrap().model_identity("anything");
        assert_eq!(identity.as_deref(), Some("r1"));
    }
}
