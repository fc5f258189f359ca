//! What a route caches.

use std::time::Duration;

use refrain_core::settings::{DirectivesAllowed, Regenerate, RouteCache, RouteSemantic, Sampled, Store};
use refrain_core::{Freshness, Scope, Veto};

use super::Context;
use crate::raw;
use crate::text::{TimeSpan, format_span};

pub(super) fn settle(
    context: &mut Context<'_>,
    route: &str,
    raw: Option<raw::Switch<raw::Cache>>,
    store: &Store,
) -> RouteCache {
    let off = RouteCache { enabled: false, ..RouteCache::exact(route) };
    let raw = match raw {
        Some(raw::Switch::Flag(false)) => return off,
        None if *store == Store::Off => return off,
        None => return RouteCache::exact(route),
        Some(raw::Switch::Flag(true)) => Box::default(),
        Some(raw::Switch::Table(table)) => table,
    };
    if *store == Store::Off {
        context.refuse(
            &["route", route, "cache"],
            "store.kind is \"off\", so that nothing can be cached",
            None,
        );
    }
    table(context, route, *raw)
}

fn table(context: &mut Context<'_>, route: &str, raw: raw::Cache) -> RouteCache {
    let default = RouteCache::exact(route);
    let freshness = freshness(&raw);
    let freshness_max = freshness_max(context, route, &raw, freshness);
    RouteCache {
        enabled: true,
        namespace: raw.namespace.map_or(default.namespace, |name| name.0),
        scope: raw.scope.map_or(default.scope, Scope::from),
        freshness,
        freshness_max,
        sampled: match raw.sampled {
            Some(raw::Sampled::Store) => Sampled::Store,
            Some(raw::Sampled::Skip) => Sampled::Skip,
            None => default.sampled,
        },
        regenerate: regenerate(context, route, raw.regenerate, raw.regenerate_window),
        collapse: raw.collapse.unwrap_or(default.collapse),
        store_tool_offers: raw.store_tool_offers.unwrap_or(default.store_tool_offers),
        semantic: raw.semantic.map(|raw| semantic(context, route, raw)),
        directives: raw.directives.map_or(default.directives, |list| directives(&list)),
        replay_headers: raw.replay_headers.into_iter().map(|header| header.0).collect(),
        miss_sample: raw.miss_sample.unwrap_or(default.miss_sample),
    }
}

fn freshness(raw: &raw::Cache) -> Freshness {
    let span = |raw: &Option<TimeSpan>, default| raw.as_ref().map_or(default, |span| span.0);
    Freshness {
        ttl: span(&raw.ttl, RouteCache::TTL),
        stale_while_revalidate: span(&raw.stale_while_revalidate, Duration::ZERO),
        stale_if_error: span(&raw.stale_if_error, Duration::ZERO),
    }
}

/// What policies may make of it: never less than the route's own, or a route would break its own bounds.
fn freshness_max(context: &mut Context<'_>, route: &str, raw: &raw::Cache, own: Freshness) -> Freshness {
    let mut cap = |key: &str, cap: &Option<TimeSpan>, of: &str, own: Duration| {
        let Some(TimeSpan(cap)) = *cap else { return own };
        if cap < own {
            let message = format!("can't be below {of}, {:?}; raise it, or leave it out", format_span(own));
            context.refuse(&["route", route, "cache", key], message, None);
        }
        cap.max(own)
    };
    Freshness {
        ttl: cap("ttl_max", &raw.ttl_max, "ttl", own.ttl),
        stale_while_revalidate: cap(
            "stale_max",
            &raw.stale_max,
            "stale_while_revalidate",
            own.stale_while_revalidate,
        ),
        stale_if_error: cap("stale_max", &raw.stale_max, "stale_if_error", own.stale_if_error),
    }
}

impl From<raw::Scope> for Scope {
    fn from(raw: raw::Scope) -> Self {
        match raw {
            raw::Scope::User => Self::User,
            raw::Scope::Tenant => Self::Tenant,
            raw::Scope::Claim(claim) => Self::Claim(claim.0),
            raw::Scope::WithinUser(claim) => Self::WithinUser(claim.0),
            raw::Scope::Shared(name) => Self::Shared(name.0),
        }
    }
}

fn regenerate(
    context: &mut Context<'_>,
    route: &str,
    raw: Option<raw::Regenerate>,
    window: Option<TimeSpan>,
) -> Regenerate {
    match (raw, window) {
        (Some(raw::Regenerate::Repeat), window) => {
            Regenerate::Repeat { window: window.map_or(Regenerate::WINDOW, |span| span.0) }
        }
        (_, Some(_)) => {
            let path = ["route", route, "cache", "regenerate_window"];
            context.refuse(&path, "has no effect without regenerate = \"repeat\"", None);
            Regenerate::Never
        }
        (_, None) => Regenerate::default(),
    }
}

fn semantic(context: &mut Context<'_>, route: &str, raw: raw::Semantic) -> RouteSemantic {
    let path = ["route", route, "cache", "semantic"];
    // Asked of the document: a table that is wrong in itself is there nonetheless.
    if !context.tree.table().is_some_and(|top| top.contains_key("embedder")) {
        context.refuse(&path, "needs the table [embedder] with model_dir and runtime_library", None);
    }
    let default = RouteSemantic::default();
    let threshold = raw.threshold.unwrap_or(default.threshold);
    if threshold <= 0.0 {
        let path = ["route", route, "cache", "semantic", "threshold"];
        context.refuse(&path, "must be above 0: else everything is similar", None);
    }
    let threshold_floor = raw.threshold_floor.unwrap_or(threshold);
    if raw.threshold_floor.is_some() && !(f32::MIN_POSITIVE..=threshold).contains(&threshold_floor) {
        let path = ["route", route, "cache", "semantic", "threshold_floor"];
        let message = format!("must be above 0 and at most threshold, {threshold}");
        context.refuse(&path, message, None);
    }
    RouteSemantic {
        threshold,
        threshold_floor,
        candidates: raw.candidates.map_or(default.candidates, |number| number as usize),
        vetoes: raw.vetoes.map_or(default.vetoes, vetoes),
        shadow: raw.shadow.unwrap_or(default.shadow),
        audit: raw.audit.unwrap_or(default.audit),
    }
}

/// Each once, in the order of [`Veto::ALL`].
fn vetoes(raw: Vec<raw::Veto>) -> Vec<Veto> {
    let given: Vec<Veto> = raw
        .into_iter()
        .map(|veto| match veto {
            raw::Veto::Number => Veto::Number,
            raw::Veto::Negation => Veto::Negation,
            raw::Veto::Name => Veto::Name,
            raw::Veto::Date => Veto::Date,
            raw::Veto::Unit => Veto::Unit,
        })
        .collect();
    Veto::ALL.into_iter().filter(|veto| given.contains(veto)).collect()
}

fn directives(list: &[raw::Directive]) -> DirectivesAllowed {
    let has = |directive| list.contains(&directive);
    DirectivesAllowed {
        no_cache: has(raw::Directive::NoCache),
        no_store: has(raw::Directive::NoStore),
        max_age: has(raw::Directive::MaxAge),
        only_if_cached: has(raw::Directive::OnlyIfCached),
    }
}
