//! Sixth stage: what to do about caching, and where a miss goes: the route's settings, narrowed by the client and by the
//! route's policies.

use std::sync::Arc;

use http::HeaderMap;
use refrain_core::settings::{Route, RouteSemantic, Sampled, Store};
use refrain_core::{Bypass, EmbedSource, Plan, PoolId, Prompt, SemanticPlan};

use crate::ask::{self, Asked, Target};
use crate::auth::Caller;
use crate::directives;
use crate::failure::Failure;
use crate::note::Note;
use crate::policy::{self, Policed};
use crate::request::Admitted;
use crate::snapshot::Snapshot;
use crate::tenancy;

/// Proof that it is decided how the request meets the cache and where a miss goes.
pub(crate) struct Planned {
    /// What is keyed: the client's request, or what policies left of it.
    pub(crate) asked: Arc<Asked>,
    /// What the upstream is sent: mostly the same.
    pub(crate) sent: Arc<Asked>,
    /// Where a miss goes.
    pub(crate) target: Target,
    /// What the route's policies want beside that.
    pub(crate) policed: Option<Arc<Policed>>,
}

impl Planned {
    /// Nobody changed the request.
    pub(crate) fn as_asked(asked: Arc<Asked>, target: Target) -> Arc<Self> {
        Arc::new(Self { sent: asked.clone(), asked, target, policed: None })
    }
}

/// The same request for the pool that stands in for one that can't answer. None if there is none, the caller may not use it,
/// or it was asked before.
pub(crate) fn fall_back(
    snapshot: &Snapshot,
    caller: &Caller,
    planned: &Planned,
    asked_before: &[PoolId],
) -> Option<Arc<Planned>> {
    let Planned { asked, sent, target, policed } = planned;
    let id = target.pool.config().fallback.as_ref().filter(|id| !asked_before.contains(id))?;
    let pool = snapshot.upstreams.pool(id)?.clone();
    let may_use = caller.entitlements.allow_pool(id);
    let named = &asked.request.prompt.model;
    // What a policy chose instead holds for the stand-in, too.
    let meant = if target.model == ask::alias(&target.pool, named) { named } else { &target.model };
    let model = ask::alias(&pool, meant).to_owned();
    if !may_use || tenancy::admit(&pool, caller).is_err() || !ask::may_ask(caller, &[meant, &model]) {
        return None;
    }
    let target = Target { pool, model, routing_key: target.routing_key };
    Some(Arc::new(Planned { asked: asked.clone(), sent: sent.clone(), target, policed: policed.clone() }))
}

/// How a request meets the cache, or why it doesn't.
pub(crate) type Meeting = Result<Plan, Bypass>;

/// Decides, and asks the route's policies.
///
/// # Errors
/// A policy refuses the request, or fails where the operator wants no answer without it.
pub(crate) async fn decide(
    snapshot: &Snapshot,
    admitted: &Arc<Admitted>,
    (asked, target): (Asked, Target),
    note: &mut Note,
) -> Result<(Arc<Planned>, Meeting), Failure> {
    let asked = Arc::new(asked);
    let route = &admitted.state().route;
    let plan = of_route(route, &snapshot.settings.store, &admitted.routed.head.parts.headers);
    let bypass = bypass(route, &snapshot.settings.store, &asked.request.prompt);
    if let Some(chain) = &admitted.state().chain {
        let decided = policy::decide(snapshot, admitted, chain, (asked, target, plan, bypass), note);
        // Boxed: requests without policies hold no room for it.
        return Box::pin(decided).await;
    }
    Ok((Planned::as_asked(asked, target), bypass.map_or(Ok(plan), Err)))
}

/// The plan that holds where nobody narrows it.
pub(crate) fn of_route(route: &Route, store: &Store, headers: &HeaderMap) -> Plan {
    let cache = &route.cache;
    Plan {
        scope: cache.scope.clone(),
        semantic: cache.semantic.as_ref().map(semantic),
        freshness: cache.freshness,
        collapse: cache.collapse,
        shadow: false,
        store: true,
        store_tool_offers: cache.store_tool_offers,
        entry_bytes_max: store.entry_bytes_max(),
        directives: directives::read(headers, cache.directives, &cache.scope),
    }
}

fn semantic(semantic: &RouteSemantic) -> SemanticPlan {
    SemanticPlan {
        source: EmbedSource::default(),
        threshold: semantic.threshold,
        candidates: semantic.candidates,
        vetoes: semantic.vetoes.clone(),
        shadow: semantic.shadow,
    }
}

/// Why a request is neither looked up nor stored, whatever policies say.
fn bypass(route: &Route, store: &Store, prompt: &Prompt) -> Option<Bypass> {
    let cache = &route.cache;
    if !cache.enabled || *store == Store::Off {
        return Some(Bypass::CacheOff);
    }
    let skipped = prompt.sampled && cache.sampled == Sampled::Skip;
    prompt.bypass.or_else(|| skipped.then_some(Bypass::Sampled))
}
