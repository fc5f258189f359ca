//! A policy on a route, as its guests know it: names, rights, what is counted and what is kept for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use refrain_core::settings::{Grant, Route, RouteCache};
use refrain_core::{Directives, Plan, PluginId, PoolId, RouteId, SemanticPlan};
use tracing::{debug, error, info, warn};

use crate::hook::{Failure, Hook, cut};
use crate::meters::Meters;
use crate::quota::Quota;
use crate::state::State;

/// A log line of a guest, in bytes.
const LINE_BYTES_MAX: usize = 1024;
/// Log lines of a policy a second.
const LINES_PER_SECOND: u32 = 10;
/// Logged failures of a policy a second.
const FAILURES_PER_SECOND: u32 = 1;

/// A policy on a route.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) plugin: PluginId,
    pub(crate) route: RouteId,
    pub(crate) grants: BTreeSet<Grant>,
    /// The route's own pool.
    pub(crate) pool: PoolId,
    /// What the route caches.
    cache: RouteCache,
    /// What `route.defaults` tells outside of a request.
    pub(crate) plan: Plan,
    pub(crate) meters: Meters,
    pub(crate) state: Arc<State>,
    lines: Quota,
    failures: Quota,
}

/// How loud a guest's log line is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Site {
    pub(crate) fn new(plugin: PluginId, route: &Route, grants: BTreeSet<Grant>, state: Arc<State>) -> Self {
        Self {
            meters: Meters::new(&plugin, &route.id),
            plugin,
            route: route.id.clone(),
            grants,
            pool: route.pool.clone(),
            cache: route.cache.clone(),
            plan: plan_of(route),
            state,
            lines: Quota::new(LINES_PER_SECOND),
            failures: Quota::new(FAILURES_PER_SECOND),
        }
    }

    /// The same for a rehearsal: counts nothing, says nothing, and keeps what it keeps for itself.
    pub(crate) fn rehearsal(&self) -> Self {
        Self {
            plugin: self.plugin.clone(),
            route: self.route.clone(),
            grants: self.grants.clone(),
            pool: self.pool.clone(),
            cache: self.cache.clone(),
            plan: self.plan.clone(),
            meters: Meters::mute(&self.plugin, &self.route),
            state: Arc::new(self.state.copy()),
            lines: Quota::new(0),
            failures: Quota::new(0),
        }
    }

    /// Whether it would be the same on this route: guests may have read its plan when they were configured.
    pub(crate) fn is_on(&self, route: &Route) -> bool {
        self.route == route.id && self.pool == route.pool && self.cache == route.cache
    }

    /// Writes a guest's line, cut and without control characters, or drops it.
    pub(crate) fn log(&self, level: Level, message: &str) {
        if !self.lines.take() {
            self.meters.line_dropped();
            return;
        }
        let line = &message[..message.floor_char_boundary(LINE_BYTES_MAX)];
        let line = line.replace(char::is_control, " ");
        let (plugin, route) = (&self.plugin, &self.route);
        match level {
            Level::Debug => debug!(%plugin, %route, line, "policy says"),
            Level::Info => info!(%plugin, %route, line, "policy says"),
            Level::Warn => warn!(%plugin, %route, line, "policy says"),
            Level::Error => error!(%plugin, %route, line, "policy says"),
        }
    }

    pub(crate) fn count(&self, name: &str, by: u32) {
        self.meters.count(name, by);
    }

    pub(crate) fn observe(&self, name: &str, value: f64) {
        self.meters.observe(name, value);
    }

    /// Counts and logs a failed call.
    pub(crate) fn failed(&self, hook: Hook, failure: &Failure) {
        let Failure { reason, message, backtrace } = failure;
        self.meters.failed(hook, *reason);
        if self.failures.take() {
            let (plugin, route, hook) = (&self.plugin, &self.route, hook.as_str());
            let mut message = message.replace(char::is_control, " ");
            cut(&mut message, LINE_BYTES_MAX);
            warn!(%plugin, %route, hook, reason = reason.as_str(), message, backtrace, "policy failed");
        }
    }
}

/// The plan of a route for no request in particular.
fn plan_of(route: &Route) -> Plan {
    let cache = &route.cache;
    Plan {
        scope: cache.scope.clone(),
        semantic: cache.semantic.as_ref().map(|semantic| SemanticPlan {
            source: refrain_core::EmbedSource::default(),
            threshold: semantic.threshold,
            candidates: semantic.candidates,
            vetoes: semantic.vetoes.clone(),
            shadow: semantic.shadow,
        }),
        freshness: cache.freshness,
        collapse: cache.collapse,
        shadow: false,
        store: cache.enabled,
        store_tool_offers: cache.store_tool_offers,
        entry_bytes_max: usize::MAX,
        directives: Directives::default(),
    }
}
