//! The host of a process: one engine, one ticker, one compiler; policies are shared over routes and reloads.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use refrain_core::settings::{self, Plugin, Route, RoutePlugin};
use refrain_core::{PluginId, RouteId};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::info;
use wasmtime::Engine;

use crate::chain::Chain;
use crate::code::CodeCache;
use crate::compiler::{Compiler, NotLoaded, WAITING_MAX};
use crate::component::{Loader, Unfit};
use crate::engine::{self, Linkers};
use crate::error::PluginError;
use crate::instance::Stillborn;
use crate::policy::Policy;
use crate::site::Site;
use crate::state::State;
use crate::ticker::Ticker;

/// Instances that the address space has room for: 16 GiB each of 128 TiB, with much to spare.
pub(crate) const INSTANCES_MAX: usize = 2048;
/// A component, in bytes.
const COMPONENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long a trial waits for a place for its instance.
const TRIAL_WAIT: Duration = Duration::from_secs(5);

/// Runs policies: one for the process.
pub struct PluginHost {
    runtime: Arc<Runtime>,
    compiler: Compiler,
    states: Mutex<HashMap<(PluginId, RouteId), Weak<State>>>,
}

/// What all policies share. They hold it; it knows them only weakly.
pub(crate) struct Runtime {
    pub(crate) engine: Engine,
    pub(crate) ticker: Ticker,
    /// One for each instance that may live.
    slots: Arc<Semaphore>,
    policies: Mutex<Vec<Weak<Policy>>>,
}

/// What a component is, as `refrain plugin inspect` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Digest of the file: what config may pin.
    pub sha256: [u8; 32],
    /// Bytes of the file.
    pub bytes: usize,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// The hooks that it has.
    pub hooks: Hooks,
    /// How long compiling took; zero if the code was kept.
    pub compile_time: Duration,
}

/// Which hooks a policy has. `on-request` is always there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// `on-candidates`.
    pub validate: bool,
    /// `on-response`.
    pub store: bool,
}

/// How a policy is, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatus {
    /// Which.
    pub plugin: PluginId,
    /// On which route.
    pub route: RouteId,
    /// Digest of its component.
    pub sha256: [u8; 32],
    /// Whether it is asked.
    pub state: PolicyState,
    /// Instances that live.
    pub instances: usize,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// Whether a policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyState {
    /// It is.
    Ready,
    /// It failed too often, and is asked again after this time.
    Quarantined {
        /// From now.
        remaining: Duration,
    },
}

impl PluginHost {
    /// Makes the engine and starts its threads.
    ///
    /// # Errors
    /// [`PluginError::Engine`] if the address space can't be reserved, [`PluginError::CodeDir`] if others may write where
    /// compiled code is kept.
    pub fn start(settings: &settings::PluginHost) -> Result<Arc<Self>, PluginError> {
        let failed = |error: &dyn std::fmt::Display| PluginError::Engine { message: error.to_string() };
        let instances_max = settings.instances_max.clamp(1, INSTANCES_MAX);
        let engine = engine::engine(instances_max).map_err(|error| failed(&format!("{error:#}")))?;
        let linkers = Linkers::new(&engine).map_err(|error| failed(&error))?;
        let code = match &settings.code_dir {
            Some(dir) => CodeCache::open(dir, &engine)?,
            None => None,
        };
        let ticker = Ticker::start(engine.clone()).map_err(|error| failed(&error))?;
        let loader = Loader { engine: engine.clone(), linkers, code };
        let compiler = Compiler::start(loader).map_err(|error| failed(&error))?;
        let slots = Arc::new(Semaphore::new(instances_max));
        let runtime = Runtime { engine, ticker, slots, policies: Mutex::default() };
        Ok(Arc::new(Self { runtime: Arc::new(runtime), compiler, states: Mutex::default() }))
    }

    /// All policies of a route, in their order, each tried once; none if the route has none.
    ///
    /// # Errors
    /// The first policy that can't be loaded; see [`PluginError`].
    ///
    /// # Cancel safety
    /// Safe: a compilation begun goes on, and its result is kept for the next ask.
    pub async fn chain(self: &Arc<Self>, route: &Route) -> Result<Option<Arc<Chain>>, PluginError> {
        let mut policies = Vec::with_capacity(route.plugins.len());
        for on_route in &route.plugins {
            policies.push(self.policy(route, on_route).await?);
        }
        Ok((!policies.is_empty()).then(|| Arc::new(Chain::new(policies, route))))
    }

    /// What a component is, without running it.
    ///
    /// # Errors
    /// As [`PluginHost::chain`].
    ///
    /// # Cancel safety
    /// Safe, as [`PluginHost::chain`].
    pub async fn inspect(self: &Arc<Self>, bytes: Bytes) -> Result<Inspection, PluginError> {
        let (sha256, size) = (sha256_of(&bytes), bytes.len());
        let plugin = PluginId::from("inspected");
        let loaded = self.compiler.load(sha256, bytes).await.map_err(|error| not_loaded(&plugin, error))?;
        Ok(Inspection {
            sha256,
            bytes: size,
            imports: loaded.imports.clone(),
            exports: loaded.exports.clone(),
            hooks: Hooks { validate: loaded.indices.has_validate(), store: loaded.indices.has_store() },
            compile_time: loaded.compile_time,
        })
    }

    /// Every policy that is in use, by route and name.
    pub fn policies(&self) -> Vec<PolicyStatus> {
        let mut all: Vec<_> = self.runtime.live_policies().iter().map(|policy| policy.status()).collect();
        all.sort_by(|a, b| (&a.route, &a.plugin).cmp(&(&b.route, &b.plugin)));
        all
    }

    /// Components whose code is in memory.
    pub fn components(&self) -> usize {
        self.compiler.in_use()
    }

    async fn policy(&self, route: &Route, on_route: &RoutePlugin) -> Result<Arc<Policy>, PluginError> {
        let plugin = &on_route.plugin;
        let (sha256, bytes) = read(plugin.clone()).await?;
        if let Some(policy) = self.runtime.find(&sha256, route, on_route) {
            return Ok(policy);
        }
        let loaded =
            self.compiler.load(sha256, bytes).await.map_err(|error| not_loaded(&plugin.id, error))?;
        let state = self.state(&plugin.id, &route.id);
        let site = Arc::new(Site::new(plugin.id.clone(), route, plugin.grants.clone(), state));
        let policy = Policy::new(self.runtime.clone(), site, loaded, on_route.clone());
        let about = policy.try_out(TRIAL_WAIT).await.map_err(|why| stillborn(plugin, route, why))?;
        if let Some(grant) = about.needs.into_iter().find(|grant| !plugin.grants.contains(grant)) {
            return Err(PluginError::Grant { plugin: plugin.id.clone(), grant });
        }
        info!(plugin = %plugin.id, route = %route.id, name = about.name, version = about.version, "policy loaded");
        Ok(self.runtime.share(policy, route, on_route))
    }

    /// What a policy keeps survives a change of its config, as long as either is in use.
    fn state(&self, plugin: &PluginId, route: &RouteId) -> Arc<State> {
        let mut states = self.states.lock();
        let key = (plugin.clone(), route.clone());
        if let Some(state) = states.get(&key).and_then(Weak::upgrade) {
            return state;
        }
        states.retain(|_, state| state.strong_count() > 0);
        let state = Arc::new(State::default());
        states.insert(key, Arc::downgrade(&state));
        state
    }
}

impl std::fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginHost").finish_non_exhaustive()
    }
}

impl Runtime {
    /// A place for one more instance; none if none is free in time. Idle instances make room.
    pub(crate) async fn slot(&self, wait: Duration) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            return Some(slot);
        }
        self.live_policies().iter().any(|policy| policy.give_up_one());
        tokio::time::timeout(wait, self.slots.clone().acquire_owned()).await.ok()?.ok()
    }

    /// The policy that runs already, if nothing about it differs.
    fn find(&self, sha256: &[u8; 32], route: &Route, on_route: &RoutePlugin) -> Option<Arc<Policy>> {
        self.live_policies().into_iter().find(|policy| policy.is(sha256, route, on_route))
    }

    /// The policy that others have too: this one, unless one was made meanwhile.
    fn share(&self, policy: Policy, route: &Route, on_route: &RoutePlugin) -> Arc<Policy> {
        let mut policies = self.policies.lock();
        policies.retain(|policy| policy.strong_count() > 0);
        let mut live = policies.iter().filter_map(Weak::upgrade);
        if let Some(other) = live.find(|other| other.is(policy.sha256(), route, on_route)) {
            return other;
        }
        drop(live);
        let policy = Arc::new(policy);
        policies.push(Arc::downgrade(&policy));
        policy
    }

    fn live_policies(&self) -> Vec<Arc<Policy>> {
        self.policies.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

/// Reads a component and checks it against its pin.
async fn read(plugin: Arc<Plugin>) -> Result<([u8; 32], Bytes), PluginError> {
    let id = plugin.id.clone();
    let reading = tokio::task::spawn_blocking(move || read_now(&plugin));
    reading.await.unwrap_or_else(|_| Err(PluginError::Stopped { plugin: id }))
}

fn read_now(plugin: &Plugin) -> Result<([u8; 32], Bytes), PluginError> {
    let failed = |source| PluginError::Read { plugin: plugin.id.clone(), path: plugin.file.clone(), source };
    let file = File::open(&plugin.file).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(COMPONENT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > COMPONENT_BYTES_MAX {
        return Err(failed(std::io::Error::other(format!("larger than {COMPONENT_BYTES_MAX} bytes"))));
    }
    let found = sha256_of(&bytes);
    match plugin.sha256 {
        Some(pinned) if pinned != found => Err(PluginError::Pin {
            plugin: plugin.id.clone(),
            found: refrain_core::hex(&found),
            pinned: refrain_core::hex(&pinned),
        }),
        _ => Ok((found, bytes.into())),
    }
}

fn sha256_of(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn not_loaded(plugin: &PluginId, error: NotLoaded) -> PluginError {
    let plugin = plugin.clone();
    match error {
        NotLoaded::Unfit(Unfit::Component(message)) => PluginError::Component { plugin, message },
        NotLoaded::Unfit(Unfit::Import(import)) => PluginError::Import { plugin, import },
        NotLoaded::Unfit(Unfit::World { missing, found }) => PluginError::World { plugin, missing, found },
        NotLoaded::Busy => PluginError::Busy { plugin, waiting: WAITING_MAX },
        NotLoaded::Stopped => PluginError::Stopped { plugin },
    }
}

fn stillborn(plugin: &Plugin, route: &Route, why: Stillborn) -> PluginError {
    let (plugin, route) = (plugin.id.clone(), route.id.clone());
    match why {
        Stillborn::Refused(message) => PluginError::Config { plugin, route, message },
        Stillborn::Failed(failure) => {
            let (reason, message) = (failure.reason.as_str(), failure.to_string());
            PluginError::Trial { plugin, route, reason, message }
        }
    }
}
