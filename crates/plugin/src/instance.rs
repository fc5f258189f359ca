//! One instance of a policy: made, configured, called one call at a time, and thrown away after a trap.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use refrain_core::Bypass;
use refrain_core::settings::PluginLimits;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::{Engine, Store};

use crate::answer::About;
use crate::bounds::check_about;
use crate::component::Loaded;
use crate::engine::HANDED_BYTES_MAX;
use crate::guest::{Call, Guest};
use crate::hook::{Failure, cut};
use crate::site::Site;
use crate::ticker::EPOCH;
use crate::v0_1::{Hooks, Told};

/// Of what a policy says about its config, in bytes.
const REFUSAL_BYTES_MAX: usize = 1024;

/// An instance that is configured.
pub(crate) struct Instance {
    store: Store<Guest>,
    hooks: Hooks,
    born: Instant,
    calls: u64,
    /// Its memory when it was new, in bytes.
    first_bytes: usize,
    _live: Live,
}

/// Counts an instance while it lives, and holds its place in the pool.
#[derive(Debug)]
pub(crate) struct Live {
    site: Arc<Site>,
    count: Arc<AtomicUsize>,
    _slot: OwnedSemaphorePermit,
}

/// Why there is no instance.
#[derive(Debug)]
pub(crate) enum Stillborn {
    Failed(Failure),
    /// It refused its configuration, in its own words.
    Refused(String),
}

impl Live {
    pub(crate) fn new(site: Arc<Site>, count: Arc<AtomicUsize>, slot: OwnedSemaphorePermit) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        site.meters.instances.increment(1.0);
        Self { site, count, _slot: slot }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.site.meters.instances.decrement(1.0);
    }
}

impl Instance {
    /// Makes and configures one. Epochs must pass meanwhile.
    pub(crate) async fn new(
        engine: &Engine,
        loaded: &Loaded,
        limits: &PluginLimits,
        config: &str,
        live: Live,
    ) -> Result<(Self, About), Stillborn> {
        let guest = Guest::new(live.site.clone(), limits.memory_bytes_max);
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| &mut guest.limits);
        store.set_hostcall_fuel(HANDED_BYTES_MAX);
        store.epoch_deadline_callback(Guest::tick);
        store.data_mut().begin(Call::default(), ticks(limits.configure_budget));
        store.set_epoch_deadline(1);
        let begun = wall_bounded(limits.configure_budget, begin(&mut store, loaded, config)).await;
        let refused = store.data().limits.refused();
        let (hooks, about) = begun
            .and_then(|begun| begun.map_err(|error| Failure::of(&error, refused)))
            .map_err(Stillborn::Failed)?;
        let about = about.map_err(|mut why| {
            cut(&mut why, REFUSAL_BYTES_MAX);
            Stillborn::Refused(why)
        })?;
        check_about(&about)
            .map_err(|why| Stillborn::Failed(Failure::new(Bypass::PolicyInvalid, why.to_string())))?;
        store.data_mut().end();
        let first_bytes = store.data().limits.memory_bytes();
        Ok((Self { store, hooks, born: Instant::now(), calls: 0, first_bytes, _live: live }, about))
    }

    /// Begins a call: what it is about, and how long it may compute.
    pub(crate) fn begin(&mut self, call: Call, budget: Duration) -> (&Hooks, &mut Store<Guest>) {
        self.calls += 1;
        self.store.data_mut().begin(call, ticks(budget));
        self.store.set_epoch_deadline(1);
        (&self.hooks, &mut self.store)
    }

    /// Ends a call: what the guest said. After an error the instance must be thrown away.
    pub(crate) fn end<T>(&mut self, told: Result<Told<T>, Failure>) -> Result<T, Failure> {
        let refused = self.store.data().limits.refused();
        self.store.data_mut().end();
        told?.map_err(|error| Failure::of(&error, refused))?.map_err(|why| why.into())
    }

    /// Whether it is to be replaced: old, worn, or grown past half of what it had left when it was new.
    pub(crate) fn is_spent(&self, limits: &PluginLimits, now: Instant) -> bool {
        let spare = limits.memory_bytes_max.saturating_sub(self.first_bytes);
        self.calls >= limits.calls_max
            || now.saturating_duration_since(self.born) >= limits.age_max
            || self.store.data().limits.memory_bytes() > self.first_bytes + spare / 2
    }
}

/// Bounds the time that a call takes all in all, waits included. Its computing time is bounded by epochs; this is for a
/// guest that waits for ever, or a reactor that is too busy to go on with it.
pub(crate) async fn wall_bounded<T>(budget: Duration, call: impl Future<Output = T>) -> Result<T, Failure> {
    /// Beside ten times the budget.
    const SLACK: Duration = Duration::from_secs(1);
    tokio::time::timeout(budget.saturating_mul(10).saturating_add(SLACK), call)
        .await
        .map_err(|_| Failure::new(Bypass::PolicyTimedOut, "waited too long"))
}

async fn begin(
    store: &mut Store<Guest>,
    loaded: &Loaded,
    config: &str,
) -> wasmtime::Result<(Hooks, Result<About, String>)> {
    let instance = loaded.pre.instantiate_async(&mut *store).await?;
    let hooks = loaded.indices.load(store, &instance)?;
    let about = hooks.configure(store, config).await?;
    Ok((hooks, about))
}

/// Epochs that a guest may see go by while it computes. The first may come at once, so it doesn't count.
fn ticks(budget: Duration) -> u32 {
    u32::try_from(budget.as_micros().div_ceil(EPOCH.as_micros())).unwrap_or(u32::MAX)
}
