//! Routes: conditions, order, and what they refer to.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use refrain_core::settings::{Pool, Route, RouteMatch, Store, Timeouts};
use refrain_core::{ListenerId, PoolId, RouteId};

use super::plugins::{self, Plugins};
use super::{Context, cache, pools, quota, telemetry, tokens};
use crate::raw;
use crate::text::parse_header_name;

/// The listener that runs if the file names none.
const DEFAULT_LISTENER: &[&str] = &["main"];

/// Settles all routes and puts them in the order in which they are tried.
pub(super) fn settle(
    context: &mut Context<'_>,
    raw: BTreeMap<String, raw::Route>,
    pools: &BTreeMap<PoolId, Arc<Pool>>,
    plugins: &Plugins,
    store: &Store,
) -> Vec<Arc<Route>> {
    if context.names("route").is_empty() {
        context.refuse(&["route"], "no route: add [route.NAME] with pool = \"NAME\"", None);
    }
    let mut seen: Vec<(String, RouteMatch)> = Vec::with_capacity(raw.len());
    let mut routes: Vec<Route> = Vec::with_capacity(raw.len());
    for (name, mut raw) in raw {
        let matches = conditions(context, &name, &mut raw);
        if let Some((same, _)) = seen.iter().find(|(_, other)| *other == matches) {
            let message = format!("takes the same requests as route {same:?}");
            context.refuse(&["route", &name], message, None);
        }
        let on_route = plugins::on_route(context, &name, mem::take(&mut raw.plugins), plugins);
        let route = route(context, &name, matches.clone(), raw, pools, store);
        routes.extend(route.map(|route| Route { plugins: on_route, ..route }));
        seen.push((name, matches));
    }
    warn_of_idle_pools(context, &routes, pools);
    plugins::warn_of_idle(context, plugins, routes.iter().flat_map(|route| &route.plugins));
    quota::warn_of_idle(context, routes.iter().flat_map(|route| &route.limits));
    // Sorting is stable, and the routes come by name.
    routes.sort_by_key(|route| (Reverse(route.matches.path.len()), Reverse(condition_count(&route.matches))));
    routes.into_iter().map(Arc::new).collect()
}

/// Number of conditions beside the path.
fn condition_count(matches: &RouteMatch) -> usize {
    let lists = [!matches.listeners.is_empty(), !matches.hosts.is_empty(), !matches.methods.is_empty()];
    lists.into_iter().filter(|given| *given).count() + matches.headers.len()
}

fn conditions(context: &mut Context<'_>, name: &str, raw: &mut raw::Route) -> RouteMatch {
    RouteMatch {
        listeners: listeners(context, name, mem::take(&mut raw.listeners)),
        hosts: sorted(mem::take(&mut raw.hosts).into_iter().map(|host| host.0)),
        path: raw.path.take().map_or_else(|| "/".to_owned(), |path| path.0),
        methods: sorted(mem::take(&mut raw.methods).into_iter().map(|method| method.0)),
        headers: headers(context, name, mem::take(&mut raw.headers)),
    }
}

/// None without a pool, which is known already.
fn route(
    context: &mut Context<'_>,
    name: &str,
    matches: RouteMatch,
    raw: raw::Route,
    pools: &BTreeMap<PoolId, Arc<Pool>>,
    store: &Store,
) -> Option<Route> {
    if raw.cors_origins.len() > 1 && raw.cors_origins.iter().any(|origin| origin.0 == "*") {
        context.refuse(&["route", name, "cors_origins"], "\"*\" stands alone: it holds every origin", None);
    }
    let cache = cache::settle(context, name, raw.cache, store);
    let pool = PoolId::new(raw.pool?);
    let known = context.names("pool");
    if !known.contains(&pool.as_str()) {
        context.refuse_unknown(&["route", name, "pool"], "pool", pool.as_str(), &known);
    }
    if let Some(methods) = &raw.auth {
        tokens::check_methods(context, name, methods);
    }
    let inherited = pools.get(&pool).map_or_else(Timeouts::default, |pool| pool.timeouts);
    Some(Route {
        id: RouteId::new(name),
        matches,
        pool,
        auth: raw.auth.map(|methods| methods.into_iter().map(|method| method.0).collect()),
        extra_paths: raw.extra_paths.into_iter().map(|path| path.0).collect(),
        forward_credentials: raw.forward_credentials.unwrap_or_default(),
        cors_origins: raw.cors_origins.into_iter().map(|origin| origin.0).collect(),
        timeouts: pools::timeouts(raw.timeouts, inherited),
        prompt_log: telemetry::prompt_log(context, name, raw.log),
        limits: quota::on_route(context, name, raw.limits),
        priority: raw.priority.map(Into::into).unwrap_or_default(),
        cache,
        plugins: Vec::new(),
    })
}

fn listeners(context: &mut Context<'_>, route: &str, raw: Vec<String>) -> Vec<ListenerId> {
    let named = context.names("listener");
    let known = if named.is_empty() { DEFAULT_LISTENER } else { &named };
    for (index, listener) in raw.iter().enumerate() {
        if !known.contains(&listener.as_str()) {
            let path = ["route", route, "listeners", &index.to_string()];
            context.refuse_unknown(&path, "listener", listener, known);
        }
    }
    sorted(raw).into_iter().map(ListenerId::new).collect()
}

fn headers(
    context: &mut Context<'_>,
    route: &str,
    raw: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for (header, value) in raw {
        let path = ["route", route, "headers", &header];
        match parse_header_name(&header) {
            Err(message) => context.refuse(&path, message, None),
            Ok(name) if headers.contains_key(&name) => context.refuse(&path, "named twice", None),
            Ok(name) => drop(headers.insert(name, value)),
        }
    }
    headers
}

/// In order and each once, so that routes with the same conditions are equal.
fn sorted(items: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut items: Vec<String> = items.into_iter().collect();
    items.sort_unstable();
    items.dedup();
    items
}

fn warn_of_idle_pools(context: &mut Context<'_>, routes: &[Route], pools: &BTreeMap<PoolId, Arc<Pool>>) {
    if plugins::may_choose_pools(routes.iter().flat_map(|route| &route.plugins)) {
        return;
    }
    for pool in context.names("pool") {
        let takes = routes.iter().any(|route| route.pool.as_str() == pool);
        let stands_in =
            pools.values().filter_map(|pool| pool.fallback.as_ref()).any(|id| id.as_str() == pool);
        if !takes && !stands_in {
            context.warn(&["pool", pool], "no route uses it");
        }
    }
}
