//! What a route caches.

use refrain_core::settings::{DirectivesAllowed, Regenerate, RouteCache, RouteSemantic, Sampled, Store};
use refrain_core::{Scope, Veto};

use super::Context;
use crate::raw;

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
    RouteCache {
        enabled: true,
        namespace: raw.namespace.map_or(default.namespace, |name| name.0),
        scope: raw.scope.map_or(default.scope, Scope::from),
        ttl: raw.ttl.map_or(default.ttl, |span| span.0),
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
    window: Option<crate::text::TimeSpan>,
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
    RouteSemantic {
        threshold,
        candidates: raw.candidates.map_or(default.candidates, |number| number as usize),
        vetoes: raw.vetoes.map_or(default.vetoes, vetoes),
        shadow: raw.shadow.unwrap_or(default.shadow),
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
