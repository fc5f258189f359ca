//! Narrows what each policy wants to the operator's bounds, and merges what all of them want.
//!
//! Pure. Invariant: whatever policies answer, the result shares with nobody, keeps no longer and compares no less strictly
//! than the operator allowed; what a policy can't have it gets narrower, never wider.

use std::collections::BTreeSet;

use refrain_core::settings::{Grant, Route};
use refrain_core::{EmbedSource, Freshness, KeyPart, Plan, Scope, SemanticPlan, Veto};

use crate::answer::{KeepWanted, Lookup, SemanticWanted, Wanted};
use crate::verdict::{Contexts, Keep, Labels, Planned, Upstream};

/// How far policies may go on a route.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) freshness_max: Freshness,
    /// One, where the route has no semantic tier.
    pub(crate) threshold_floor: f32,
}

/// What was narrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clamps {
    pub(crate) scope: bool,
    pub(crate) threshold: bool,
    pub(crate) freshness: bool,
}

/// Two policies contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conflict(pub(crate) &'static str);

impl Bounds {
    /// Those of a route.
    pub(crate) fn of(route: &Route) -> Self {
        Self {
            freshness_max: route.cache.freshness_max,
            threshold_floor: route.cache.semantic.as_ref().map_or(1.0, |semantic| semantic.threshold_floor),
        }
    }

    /// Narrows one policy's plan. A scope that the policy may not have leaves its name in the key, so that what it parts
    /// stays parted.
    pub(crate) fn clamp(&self, wanted: &mut Wanted, route: &Plan, grants: &BTreeSet<Grant>) -> Clamps {
        let mut clamps = Clamps::default();
        // The interface has one word for a part of the user: the route's own part comes back as one that a policy named.
        if let (Scope::UserPart(name), Scope::WithinUser(own)) = (&wanted.scope, &route.scope)
            && name == own
        {
            wanted.scope = route.scope.clone();
        }
        if !grants.contains(&Grant::SharedScope) && wanted.scope.is_wider_than(&route.scope) {
            let (scope, name) = narrowed(std::mem::replace(&mut wanted.scope, Scope::User), &route.scope);
            wanted.scope = scope;
            wanted.key_add.extend(name.map(KeyPart::Text));
            clamps.scope = true;
        }
        if let Some(semantic) = &mut wanted.semantic
            && semantic.threshold < self.threshold_floor
        {
            semantic.threshold = self.threshold_floor;
            clamps.threshold = true;
        }
        let freshness = wanted.freshness.min(self.freshness_max);
        clamps.freshness = freshness != wanted.freshness;
        wanted.freshness = freshness;
        clamps
    }
}

/// What policies say of a request, merged in their order.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    plan: Option<Merged>,
    key_add: Vec<KeyPart>,
    edits: Vec<refrain_core::Edit>,
    upstream: Upstream,
    labels: Labels,
}

#[derive(Debug)]
struct Merged {
    lookup: Lookup,
    collapse: bool,
    scope: Scope,
    semantic: Option<SemanticWanted>,
    freshness: Freshness,
    shadow: bool,
    store: bool,
}

impl Merge {
    /// Adds what one policy wants, clamped. The context is the caller's.
    pub(crate) fn plan(&mut self, wanted: Wanted, route: &Plan) -> Result<(), Conflict> {
        let Wanted {
            key_add,
            edits,
            lookup,
            collapse,
            scope,
            semantic,
            freshness,
            shadow,
            store,
            upstream,
            context: _,
            labels,
        } = wanted;
        let lookup = if lookup == own_lookup(route) { Lookup::Normal } else { lookup };
        let next = Merged { lookup, collapse, scope, semantic, freshness, shadow, store };
        self.plan = Some(match self.plan.take() {
            None => next,
            Some(so_far) => so_far.with(next, route)?,
        });
        self.key_add.extend(key_add);
        self.edits.extend(edits);
        self.way(upstream, labels)
    }

    /// Adds a way and labels alone, of a policy that wants no cache.
    pub(crate) fn way(&mut self, upstream: Upstream, labels: Labels) -> Result<(), Conflict> {
        let Upstream { pool, routing_key, model } = upstream;
        self.upstream.pool = same_or_one(self.upstream.pool.take(), pool, "two pools")?;
        self.upstream.model = same_or_one(self.upstream.model.take(), model, "two models")?;
        self.upstream.routing_key.extend(routing_key);
        self.labels.extend(labels);
        Ok(())
    }

    /// Where it goes and what is logged, if it isn't cached.
    pub(crate) fn into_way(self) -> (Upstream, Labels) {
        (self.upstream, self.labels)
    }

    /// The plan of all policies.
    pub(crate) fn into_planned(self, route: &Plan, contexts: Contexts) -> Planned {
        let plan = match self.plan {
            None => route.clone(),
            Some(merged) => merged.into_plan(route),
        };
        Planned {
            plan,
            key_add: self.key_add,
            edits: self.edits,
            upstream: self.upstream,
            labels: self.labels,
            contexts,
        }
    }
}

impl Merged {
    fn with(self, next: Self, route: &Plan) -> Result<Self, Conflict> {
        let semantic = match (self.semantic, next.semantic) {
            (Some(a), Some(b)) => Some(merge_semantic(a, b, route)?),
            _ => None,
        };
        Ok(Self {
            lookup: merge_lookup(self.lookup, next.lookup)?,
            collapse: self.collapse && next.collapse,
            scope: self.scope.narrowest(next.scope).ok_or(Conflict("two scopes"))?,
            semantic,
            freshness: self.freshness.min(next.freshness),
            shadow: self.shadow || next.shadow,
            store: self.store && next.store,
        })
    }

    fn into_plan(self, route: &Plan) -> Plan {
        let mut plan = route.clone();
        plan.scope = self.scope;
        plan.freshness = self.freshness;
        plan.collapse &= self.collapse;
        plan.store &= self.store;
        plan.shadow |= self.shadow;
        plan.directives.no_cache |= self.lookup == Lookup::Skip;
        plan.directives.only_if_cached |= self.lookup == Lookup::Only;
        plan.semantic = match (plan.semantic.take(), self.semantic) {
            (Some(own), Some(wanted)) => Some(into_semantic(own, wanted)),
            _ => None,
        };
        plan
    }
}

/// What `route.defaults` says of the look-up: what the client asked for.
pub(crate) fn own_lookup(route: &Plan) -> Lookup {
    match (route.directives.no_cache, route.directives.only_if_cached) {
        (_, true) => Lookup::Only,
        (true, false) => Lookup::Skip,
        (false, false) => Lookup::Normal,
    }
}

/// The scope that stands for one that is too wide, and what the key needs so that it parts what that one would have.
fn narrowed(wanted: Scope, route: &Scope) -> (Scope, Option<String>) {
    match wanted {
        // A name of a kind that the route's scope doesn't hold: both are kept apart.
        Scope::Shared(name) | Scope::UserPart(name) | Scope::WithinUser(name) => {
            (route.clone(), Some(format!("scope {name}")))
        }
        Scope::Claim(name) => match Scope::Claim(name).narrowest(route.clone()) {
            Some(scope) => (scope, None),
            None => (Scope::User, None),
        },
        Scope::User | Scope::Tenant => (route.clone(), None),
    }
}

fn merge_semantic(a: SemanticWanted, b: SemanticWanted, route: &Plan) -> Result<SemanticWanted, Conflict> {
    let default = route.semantic.as_ref().map_or(EmbedSource::default(), |own| own.source.clone());
    let source = match (a.source == default, b.source == default) {
        (true, _) => b.source,
        (false, true) => a.source,
        (false, false) if a.source == b.source => a.source,
        (false, false) => return Err(Conflict("two embed sources")),
    };
    let mut vetoes = a.vetoes;
    vetoes.extend(b.vetoes);
    Ok(SemanticWanted {
        source,
        threshold: a.threshold.max(b.threshold),
        candidates: a.candidates.min(b.candidates),
        vetoes,
    })
}

fn into_semantic(own: SemanticPlan, wanted: SemanticWanted) -> SemanticPlan {
    let all: BTreeSet<Veto> = own.vetoes.into_iter().chain(wanted.vetoes).collect();
    SemanticPlan {
        source: wanted.source,
        threshold: wanted.threshold,
        candidates: usize::try_from(wanted.candidates).unwrap_or(own.candidates),
        vetoes: all.into_iter().collect(),
        shadow: own.shadow,
    }
}

fn merge_lookup(a: Lookup, b: Lookup) -> Result<Lookup, Conflict> {
    match (a, b) {
        (a, b) if a == b => Ok(a),
        (Lookup::Normal, other) | (other, Lookup::Normal) => Ok(other),
        _ => Err(Conflict("look up nothing, and only")),
    }
}

fn same_or_one<T: PartialEq>(a: Option<T>, b: Option<T>, what: &'static str) -> Result<Option<T>, Conflict> {
    match (a, b) {
        (Some(a), Some(b)) if a != b => Err(Conflict(what)),
        (a, b) => Ok(a.or(b)),
    }
}

/// What policies say of an answer, merged; starts with the plan.
#[derive(Debug)]
pub(crate) struct KeepMerge<'a> {
    plan: &'a Plan,
    keep: Keep,
}

impl<'a> KeepMerge<'a> {
    /// Before any policy: as the plan says.
    pub(crate) fn new(plan: &'a Plan) -> Self {
        let keep = Keep {
            freshness: plan.freshness,
            narrow: None,
            exact_only: false,
            tags: Vec::new(),
            labels: Labels::new(),
        };
        Self { plan, keep }
    }

    /// Adds what one policy wants.
    pub(crate) fn keep(&mut self, wanted: KeepWanted) -> Result<(), Conflict> {
        let KeepWanted { freshness, narrow, exact_only, tags, labels } = wanted;
        self.keep.freshness = self.keep.freshness.min(freshness);
        if let Some(scope) = narrow {
            let so_far = self.keep.narrow.take().unwrap_or_else(|| self.plan.scope.clone());
            let narrowest = scope.narrowest(so_far).ok_or(Conflict("two scopes"))?;
            self.keep.narrow = Some(narrowest).filter(|scope| *scope != self.plan.scope);
        }
        self.keep.exact_only |= exact_only;
        for tag in tags {
            if !self.keep.tags.contains(&tag) {
                self.keep.tags.push(tag);
            }
        }
        self.keep.labels.extend(labels);
        Ok(())
    }

    pub(crate) fn into_keep(self) -> Keep {
        self.keep
    }
}

#[cfg(test)]
mod tests;
