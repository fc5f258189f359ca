//! A policy on a route: its instances, its health, and its calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use parking_lot::Mutex;
use refrain_core::Bypass;
use refrain_core::settings::{Isolation, OnError, Route, RoutePlugin};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::warn;

use crate::answer::{About, Answer, Judged, Stored, Violation};
use crate::bounds::{Rights, check_answer, check_stored};
use crate::component::Loaded;
use crate::guest::Call;
use crate::health::{Admission, Health, TenantMark};
use crate::hook::{Failure, Hook};
use crate::host::{INSTANCES_MAX, PolicyState, PolicyStatus, Runtime};
use crate::instance::{Instance, Live, Stillborn, wall_bounded};
use crate::site::Site;
use crate::ticker::Computing;
use crate::verdict::Candidate;
use crate::view::{CandidatesView, RequestView, ResponseView};

/// A policy on a route, shared over reloads while nothing about it changes.
pub(crate) struct Policy {
    runtime: Arc<Runtime>,
    site: Arc<Site>,
    loaded: Arc<Loaded>,
    on_route: RoutePlugin,
    /// Configured instances that nobody uses.
    idle: ArrayQueue<Instance>,
    /// One for each call that may be under way.
    turns: Semaphore,
    live: Arc<AtomicUsize>,
    health: Health,
    /// Whether the policy that this one rehearses rests.
    rests: bool,
    last_error: Mutex<Option<String>>,
}

/// One call of a policy. Dropped half-way, it takes its instance along.
struct Turn<'a> {
    policy: &'a Policy,
    hook: Hook,
    tenant: TenantMark,
    admission: Admission,
    began: Instant,
    instance: Instance,
    _computing: Computing<'a>,
    _permit: SemaphorePermit<'a>,
}

impl Policy {
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        site: Arc<Site>,
        loaded: Arc<Loaded>,
        on_route: RoutePlugin,
    ) -> Self {
        let instances_max = on_route.plugin.limits.instances_max.clamp(1, INSTANCES_MAX);
        Self {
            runtime,
            site,
            loaded,
            on_route,
            idle: ArrayQueue::new(instances_max),
            turns: Semaphore::new(instances_max),
            live: Arc::default(),
            health: Health::new(),
            rests: false,
            last_error: Mutex::default(),
        }
    }

    /// The same policy, tried once, that counts nothing and changes nothing of this one: with instances, health and values of
    /// its own. It rests if this one does.
    ///
    /// # Errors
    /// It can't be started.
    pub(crate) async fn rehearsal(&self, wait: Duration) -> Result<Self, Stillborn> {
        let site = Arc::new(self.site.rehearsal());
        let mut policy = Self::new(self.runtime.clone(), site, self.loaded.clone(), self.on_route.clone());
        policy.rests = self.health.rest(Instant::now()).is_some();
        policy.try_out(wait).await?;
        Ok(policy)
    }

    /// Makes the first instance, which shows whether the policy works with its config.
    pub(crate) async fn try_out(&self, wait: Duration) -> Result<About, Stillborn> {
        let computing = self.runtime.ticker.enter();
        let (instance, about) = self.instantiate(wait).await?;
        drop(computing);
        self.site.meters.declare(&about);
        if self.on_route.plugin.isolation == Isolation::Reuse {
            drop(self.idle.push(instance));
        }
        Ok(about)
    }

    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    pub(crate) fn sha256(&self) -> &[u8; 32] {
        &self.loaded.sha256
    }

    pub(crate) fn config(&self) -> &str {
        &self.on_route.config
    }

    /// Whether it is what these would make: then its instances may serve them.
    pub(crate) fn is(&self, sha256: &[u8; 32], route: &Route, on_route: &RoutePlugin) -> bool {
        self.loaded.sha256 == *sha256 && self.on_route == *on_route && self.site.is_on(route)
    }

    pub(crate) fn on_error(&self) -> OnError {
        self.on_route.plugin.on_error
    }

    pub(crate) fn validates(&self) -> bool {
        self.loaded.indices.has_validate()
    }

    pub(crate) fn judges(&self) -> bool {
        self.loaded.indices.has_store()
    }

    pub(crate) fn status(&self) -> PolicyStatus {
        let state = match self.health.rest(Instant::now()) {
            None => PolicyState::Ready,
            Some(remaining) => PolicyState::Quarantined { remaining },
        };
        PolicyStatus {
            plugin: self.site.plugin.clone(),
            route: self.site.route.clone(),
            sha256: self.loaded.sha256,
            state,
            instances: self.live.load(Ordering::Relaxed),
            last_error: self.last_error.lock().clone(),
        }
    }

    /// Gives an idle instance up, so that its place is free; false if there is none.
    pub(crate) fn give_up_one(&self) -> bool {
        self.idle.pop().is_some()
    }

    /// `on-request`, checked.
    pub(crate) async fn on_request(&self, request: &Arc<dyn RequestView>) -> Result<Answer, Bypass> {
        let summary = request.summary();
        let mut turn = self.begin(Hook::OnRequest, &summary.tenant).await?;
        let call = Call { request: Some(request.clone()), ..Call::default() };
        let budget = self.on_route.plugin.limits.decide_budget;
        let (hooks, store) = turn.instance.begin(call, budget);
        let told = wall_bounded(budget, hooks.on_request(store, summary)).await;
        let rights = Rights {
            grants: &self.site.grants,
            pool: &self.site.pool,
            semantic: request.defaults().semantic.as_ref(),
        };
        turn.end(told, |answer| check_answer(answer, rights))
    }

    /// `on-candidates`: which of them is accepted. The reason of a miss is as the policy said it.
    pub(crate) async fn on_candidates(
        &self,
        request: &Arc<dyn RequestView>,
        context: &str,
        view: Arc<dyn CandidatesView>,
        candidates: Vec<Candidate>,
    ) -> Result<Judged, Bypass> {
        let summary = request.summary();
        let count = candidates.len();
        let mut turn = self.begin(Hook::OnCandidates, &summary.tenant).await?;
        let call = Call { request: Some(request.clone()), candidates: Some(view), ..Call::default() };
        let budget = self.on_route.plugin.limits.decide_budget;
        let (hooks, store) = turn.instance.begin(call, budget);
        let told = wall_bounded(budget, hooks.on_candidates(store, summary, context, candidates)).await;
        turn.end(told, |judged| match judged {
            Judged::Accept(index) if *index as usize >= count => {
                Err(Violation::invalid(format!("candidate {index} of {count}")))
            }
            Judged::Accept(_) | Judged::Miss(_) => Ok(()),
        })
    }

    /// `on-response`, checked; none if the policy has no such hook.
    pub(crate) async fn on_response(
        &self,
        request: &Arc<dyn RequestView>,
        context: &str,
        response: &Arc<dyn ResponseView>,
    ) -> Result<Option<Stored>, Bypass> {
        let summary = request.summary();
        let mut turn = self.begin(Hook::OnResponse, &summary.tenant).await?;
        let call =
            Call { request: Some(request.clone()), response: Some(response.clone()), ..Call::default() };
        let budget = self.on_route.plugin.limits.store_budget;
        let (hooks, store) = turn.instance.begin(call, budget);
        let told = wall_bounded(budget, hooks.on_response(store, summary, context, response.summary())).await;
        turn.end(told, |stored| stored.as_ref().map_or(Ok(()), check_stored))
    }

    async fn begin(&self, hook: Hook, tenant: &str) -> Result<Turn<'_>, Bypass> {
        let began = Instant::now();
        let tenant = TenantMark::of(tenant);
        let admission = self.health.admit(began);
        if admission == Admission::Refused || self.rests {
            self.site.meters.failed(hook, Bypass::PolicyQuarantined);
            return Err(Bypass::PolicyQuarantined);
        }
        let Some(permit) = self.permit().await else {
            return Err(self.failed(hook, tenant, admission, &busy()));
        };
        let computing = self.runtime.ticker.enter();
        let instance = match self.idle_instance(began) {
            Some(instance) => instance,
            None => self.fresh_instance().await.map_err(|why| {
                let failure = match why {
                    Stillborn::Failed(failure) => failure,
                    Stillborn::Refused(why) => Failure::new(Bypass::PolicyTrapped, why),
                };
                self.failed(Hook::Configure, tenant, admission, &failure)
            })?,
        };
        Ok(Turn {
            policy: self,
            hook,
            tenant,
            admission,
            began,
            instance,
            _computing: computing,
            _permit: permit,
        })
    }

    async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        match self.turns.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_) => tokio::time::timeout(self.on_route.plugin.limits.instance_wait, self.turns.acquire())
                .await
                .ok()?
                .ok(),
        }
    }

    fn idle_instance(&self, now: Instant) -> Option<Instance> {
        loop {
            let instance = self.idle.pop()?;
            if !instance.is_spent(&self.on_route.plugin.limits, now) {
                return Some(instance);
            }
        }
    }

    async fn fresh_instance(&self) -> Result<Instance, Stillborn> {
        let (instance, _) = self.instantiate(self.on_route.plugin.limits.instance_wait).await?;
        Ok(instance)
    }

    async fn instantiate(&self, wait: Duration) -> Result<(Instance, About), Stillborn> {
        let Some(slot) = self.runtime.slot(wait).await else {
            return Err(Stillborn::Failed(busy()));
        };
        let live = Live::new(self.site.clone(), self.live.clone(), slot);
        Instance::new(&self.runtime.engine, &self.loaded, &self.on_route.plugin.limits, self.config(), live)
            .await
    }

    fn failed(&self, hook: Hook, tenant: TenantMark, admission: Admission, failure: &Failure) -> Bypass {
        self.site.failed(hook, failure);
        let (hook, reason) = (hook.as_str(), failure.reason.as_str());
        *self.last_error.lock() = Some(format!("{hook}: {reason}: {failure}"));
        // An empty pool is no fault of the policy.
        if failure.reason != Bypass::PolicyBusy && self.health.failed(admission, tenant, Instant::now()) {
            let (plugin, route) = (&self.site.plugin, &self.site.route);
            warn!(%plugin, %route, hook, reason, "policy rests: it fails for too many");
        }
        failure.reason
    }
}

impl Turn<'_> {
    /// Ends the call: counts it, checks what the guest said, and gives the instance back unless it failed.
    fn end<T>(
        self,
        told: Result<crate::v0_1::Told<T>, Failure>,
        check: impl FnOnce(&T) -> Result<(), Violation>,
    ) -> Result<T, Bypass> {
        let Self { policy, hook, tenant, admission, began, mut instance, .. } = self;
        let told = instance.end(told);
        let now = Instant::now();
        policy.site.meters.called(hook, now.saturating_duration_since(began));
        let intact = told.is_ok();
        let checked = told.and_then(|told| check(&told).map(|()| told).map_err(Failure::from));
        if intact
            && policy.on_route.plugin.isolation == Isolation::Reuse
            && !instance.is_spent(&policy.on_route.plugin.limits, now)
        {
            // A full queue drops it.
            drop(policy.idle.push(instance));
        }
        match checked {
            Ok(told) => {
                policy.health.succeeded(admission, tenant, now);
                Ok(told)
            }
            Err(failure) => Err(policy.failed(hook, tenant, admission, &failure)),
        }
    }
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        let reason = match violation {
            Violation::Invalid(_) => Bypass::PolicyInvalid,
            Violation::NotGranted(_) => Bypass::PolicyNotGranted,
        };
        Self::new(reason, violation.to_string())
    }
}

fn busy() -> Failure {
    Failure::new(Bypass::PolicyBusy, "no instance was free in time")
}
