//! Effective settings for people to read, without secrets, in the shape of the config file.
//!
//! Structs are taken apart without `..`: a new setting can't be forgotten here, and a new secret is decided upon.

mod cost;
mod discover;
mod endpoint;
mod fleet;
mod identity;
mod plugin;
mod quota;
mod store;
mod telemetry;

use refrain_core::settings::{
    Certificate, DirectivesAllowed, Embedder, Limits, Listener, Log, LogFormat, Pool, PoolKind, Regenerate,
    Route, RouteCache, RouteMatch, RouteSemantic, Runtime, Sampled, Timeouts, Tls,
};
use refrain_core::{Freshness, Role, Scope, Settings, Veto};
use serde_json::{Map, Value, json};

use crate::text::{format_bytes, format_span};

/// What stands in a secret's place.
const REDACTED: &str = "<redacted>";

/// The effective settings in the shape of the config file, defaults filled in, secrets as `"<redacted>"`.
///
/// Relative paths are as the process resolves them. Key hashes count as secrets.
pub fn redacted(settings: &Settings) -> Value {
    let Settings {
        listeners,
        admin,
        runtime,
        limits,
        store,
        embedder,
        rate_limits,
        keys,
        has_keys_file: _,
        tokens,
        certificates,
        tenants,
        plugin_host,
        plugins,
        pools,
        fleet,
        cost,
        routes,
        log,
        otlp,
    } = settings;
    let mut top = json!({
        "listener": named(listeners.iter().map(|value| (value.id.as_str(), listener(value)))),
        "admin": admin.as_ref().map_or(json!(false), identity::admin),
        "runtime": self::runtime(runtime),
        "limits": self::limits(limits),
        "store": store::store(store),
        "limit": named(rate_limits.values().map(|value| (value.id.as_str(), quota::limit(value)))),
        "key": named(keys.iter().map(|value| (value.id.as_str(), identity::key(value)))),
        "jwt": named(tokens.iter().map(|value| (value.id.as_str(), identity::token_issuer(value)))),
        "certificate": named(certificates.iter().map(|value| (value.id.as_str(), identity::certificate(value)))),
        "tenant": identity::tenants(tenants),
        "plugin_host": plugin::host(plugin_host),
        "plugin": named(plugins.values().map(|value| (value.id.as_str(), plugin::plugin(value)))),
        "pool": named(pools.values().map(|value| (value.id.as_str(), pool(value)))),
        "fleet": fleet::fleet(fleet),
        "cost": cost::cost(cost),
        "route": named(routes.iter().map(|value| (value.id.as_str(), route(value)))),
        "log": self::log(log),
    });
    if let Some(embedder) = embedder {
        top["embedder"] = self::embedder(embedder);
    }
    if let Some(otlp) = otlp {
        top["otlp"] = telemetry::otlp(otlp);
    }
    top
}

fn named<'a>(entries: impl Iterator<Item = (&'a str, Value)>) -> Value {
    Value::Object(entries.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn listener(listener: &Listener) -> Value {
    let Listener { id: _, address, tls, allow_anonymous, anonymous_role } = listener;
    let mut table = json!({
        "address": address.to_string(),
        "allow_anonymous": allow_anonymous,
        "anonymous_role": role(*anonymous_role),
    });
    if let Some(Tls { certificates, clients }) = tls {
        let files = |Certificate { chain, key }: &Certificate| json!({ "chain": chain, "key": key });
        table["tls"] = json!({ "certificates": certificates.iter().map(files).collect::<Vec<_>>() });
        if let Some(clients) = clients {
            identity::client_certificates(&mut table["tls"], clients);
        }
    }
    table
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Caller => "caller",
        Role::Admin => "admin",
    }
}

fn runtime(runtime: &Runtime) -> Value {
    let Runtime { workers, shutdown_delay, drain_timeout } = runtime;
    let mut table = json!({ "workers": workers, "drain_timeout": format_span(*drain_timeout) });
    if !shutdown_delay.is_zero() {
        table["shutdown_delay"] = json!(format_span(*shutdown_delay));
    }
    table
}

fn limits(limits: &Limits) -> Value {
    let Limits {
        head_bytes_max,
        headers_max,
        body_bytes_max,
        bodies_bytes_max,
        json_depth_max,
        head_timeout,
        idle_timeout,
        body_timeout,
        upload_timeout,
        write_timeout,
        connections_max,
        connections_per_address_max,
        trusted_proxies,
        h2_streams_max,
        waiters_max,
    } = limits;
    let trusted: Vec<String> = trusted_proxies.iter().map(ToString::to_string).collect();
    json!({
        "head": size(*head_bytes_max),
        "headers": headers_max,
        "body": size(*body_bytes_max),
        "bodies": size(*bodies_bytes_max),
        "json_depth": json_depth_max,
        "head_timeout": format_span(*head_timeout),
        "idle_timeout": format_span(*idle_timeout),
        "body_timeout": format_span(*body_timeout),
        "upload_timeout": format_span(*upload_timeout),
        "write_timeout": format_span(*write_timeout),
        "connections": connections_max,
        "connections_per_address": connections_per_address_max,
        "trusted_proxies": trusted,
        "h2_streams": h2_streams_max,
        "waiters": waiters_max,
    })
}

fn size(bytes: usize) -> String {
    format_bytes(bytes as u64)
}

fn embedder(embedder: &Embedder) -> Value {
    let Embedder { model_dir, runtime_library, threads, queue_max, budget, window_tokens } = embedder;
    json!({
        "model_dir": model_dir,
        "runtime_library": runtime_library,
        "threads": threads,
        "queue": queue_max,
        "budget": format_span(*budget),
        "window_tokens": window_tokens,
    })
}

fn pool(pool: &Pool) -> Value {
    let Pool {
        id: _,
        endpoints,
        discover,
        kind,
        revision,
        models,
        timeouts,
        idle_connections_max,
        connections_max,
        balance,
        sessions,
        admission,
        health,
        tenancy,
        fallback,
        assemble,
        cost,
        gpu,
    } = pool;
    let mut table = json!({
        "kind": match kind {
            PoolKind::Generic => "generic",
            PoolKind::Ollama => "ollama",
        },
        "endpoint": endpoints.iter().map(endpoint::endpoint).collect::<Vec<_>>(),
        "revision": revision,
        "models": models,
        "timeouts": self::timeouts(timeouts),
        "idle_connections": idle_connections_max,
        "connections": connections_max,
        "session_headers": sessions.headers,
        "session_fields": sessions.fields,
        "limits": fleet::admission(admission),
        "health": fleet::health(health),
        "assemble": assemble,
    });
    fleet::balance(balance, &mut table);
    fleet::tenancy(tenancy, &mut table);
    cost::of_pool(cost, &mut table);
    if let Some(gpu) = gpu {
        table["gpu"] = fleet::gpu(gpu);
    }
    if let Some(fallback) = fallback {
        table["fallback"] = json!(fallback.as_str());
    }
    if !discover.is_empty() {
        table["discover"] = discover.iter().map(|source| discover::discover(source)).collect();
    }
    table
}

fn timeouts(timeouts: &Timeouts) -> Value {
    let Timeouts { connect, first_byte, idle, total } = timeouts;
    json!({
        "connect": format_span(*connect),
        "first_byte": format_span(*first_byte),
        "idle": format_span(*idle),
        "total": format_span(*total),
    })
}

fn route(route: &Route) -> Value {
    let Route {
        id: _,
        matches,
        pool,
        auth,
        extra_paths,
        forward_credentials,
        cors_origins,
        timeouts,
        prompt_log,
        limits,
        priority,
        cache,
        plugins,
    } = route;
    let RouteMatch { listeners, hosts, path, methods, headers } = matches;
    let mut table = json!({
        "path": path,
        "hosts": hosts,
        "methods": methods,
        "headers": headers,
        "listeners": listeners.iter().map(|listener| listener.as_str()).collect::<Vec<_>>(),
        "pool": pool.as_str(),
        "extra_paths": extra_paths,
        "forward_credentials": forward_credentials,
        "cors_origins": cors_origins,
        "timeouts": self::timeouts(timeouts),
        "log": telemetry::prompt_log(prompt_log.as_ref()),
        "limits": limits.iter().map(|limit| limit.as_str()).collect::<Vec<_>>(),
        "priority": priority.as_str(),
        "cache": self::cache(cache),
        "plugins": plugins.iter().map(plugin::on_route).collect::<Vec<_>>(),
    });
    if let Some(methods) = auth {
        table["auth"] = identity::auth(methods);
    }
    table
}

fn cache(cache: &RouteCache) -> Value {
    let RouteCache {
        enabled,
        namespace,
        scope,
        freshness,
        freshness_max,
        sampled,
        regenerate,
        collapse,
        store_tool_offers,
        semantic,
        directives,
        replay_headers,
        miss_sample,
    } = cache;
    if !enabled {
        return json!(false);
    }
    let mut table = json!({
        "namespace": namespace,
        "scope": self::scope(scope),
        "ttl": format_span(freshness.ttl),
        "ttl_max": format_span(freshness_max.ttl),
        "sampled": match sampled {
            Sampled::Store => "store",
            Sampled::Skip => "skip",
        },
        "regenerate": "never",
        "collapse": collapse,
        "store_tool_offers": store_tool_offers,
        "directives": self::directives(*directives),
        "replay_headers": replay_headers,
        "miss_sample": decimal(*miss_sample),
    });
    stale(*freshness, *freshness_max, &mut table);
    if let Regenerate::Repeat { window } = regenerate {
        table["regenerate"] = json!("repeat");
        table["regenerate_window"] = json!(format_span(*window));
    }
    if let Some(semantic) = semantic {
        table["semantic"] = self::semantic(semantic);
    }
    table
}

/// Windows that are there; their cap where it isn't theirs.
fn stale(own: Freshness, cap: Freshness, table: &mut Value) {
    let windows =
        [("stale_while_revalidate", own.stale_while_revalidate), ("stale_if_error", own.stale_if_error)];
    for (key, window) in windows.into_iter().filter(|(_, window)| !window.is_zero()) {
        table[key] = json!(format_span(window));
    }
    let caps = (cap.stale_while_revalidate, cap.stale_if_error);
    if caps != (own.stale_while_revalidate, own.stale_if_error) {
        table["stale_max"] = json!(format_span(caps.0));
    }
}

fn scope(scope: &Scope) -> Value {
    match scope {
        // Parts of a user are named by policies alone.
        Scope::User | Scope::UserPart(_) => json!("user"),
        Scope::Tenant => json!("tenant"),
        Scope::Claim(claim) => json!({ "claim": claim }),
        Scope::WithinUser(claim) => json!({ "within-user": claim }),
        Scope::Shared(name) => json!({ "shared": name }),
    }
}

fn semantic(semantic: &RouteSemantic) -> Value {
    let RouteSemantic { threshold, threshold_floor, candidates, vetoes, shadow, audit } = semantic;
    json!({
        "threshold": decimal(*threshold),
        "threshold_floor": decimal(*threshold_floor),
        "candidates": candidates,
        "vetoes": vetoes.iter().map(|veto: &Veto| veto.as_str()).collect::<Vec<_>>(),
        "shadow": shadow,
        "audit": decimal(*audit),
    })
}

/// Through text: 0.9 as f64 would print as 0.899999976.
fn decimal(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

fn directives(directives: DirectivesAllowed) -> Vec<&'static str> {
    let DirectivesAllowed { no_cache, no_store, max_age, only_if_cached } = directives;
    let all = [
        ("no-cache", no_cache),
        ("no-store", no_store),
        ("max-age", max_age),
        ("only-if-cached", only_if_cached),
    ];
    all.into_iter().filter_map(|(name, allowed)| allowed.then_some(name)).collect()
}

fn log(log: &Log) -> Value {
    let Log { filter, format, access_sample } = log;
    json!({
        "filter": filter,
        "format": match format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        },
        "access_sample": access_sample,
    })
}
