//! Settings without a config file: one upstream, this machine only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use refrain_core::settings::{
    Admin, Admission, Cost, EmbeddedStore, Fleet, Limits, Listener, Log, PluginHost, Pool, PoolKind,
    Priority, Route, RouteCache, RouteMatch, Runtime, Settings, Store,
};
use refrain_core::{ListenerId, PoolId, Role, RouteId};

use crate::error::{Errors, Place, Problem};
use crate::settle::endpoint_of_url;

/// Ollama's port: what listens there has Ollama's API.
pub(crate) const OLLAMA_PORT: u16 = 11434;

/// What `refrain --upstream URL` runs: a listener on `listen` (by default 127.0.0.1:8080), the admin listener on its
/// default address, one pool, and one route for all paths with exact caching in memory.
///
/// On loopback everybody is one anonymous user with every right, so that it is a drop-in for the upstream.
///
/// # Errors
/// The URL is none of a server, or `listen` can be reached from other machines, which needs keys and so a file.
pub fn for_upstream(upstream: &str, listen: Option<SocketAddr>) -> Result<Settings, Errors> {
    let refuse =
        |argument: &str, message| Errors::from(Problem::new(Place::Argument(argument.into()), "", message));
    let endpoint = endpoint_of_url(upstream).map_err(|message| refuse("--upstream", message))?;
    let listener = Listener {
        id: ListenerId::new("main"),
        address: listen.unwrap_or(Listener::ADDRESS),
        tls: None,
        allow_anonymous: true,
        anonymous_role: Role::Admin,
    };
    if !listener.is_loopback() {
        let message = format!(
            "{} can be reached from other machines; write a config file with keys, or with allow_anonymous = true",
            listener.address
        );
        return Err(refuse("--listen", message));
    }
    let kind = if endpoint.port == OLLAMA_PORT { PoolKind::Ollama } else { PoolKind::Generic };
    let pool =
        Pool { kind, admission: Admission::of(kind), ..Pool::new(PoolId::new("upstream"), vec![endpoint]) };
    let route = Route {
        id: RouteId::new("all"),
        matches: RouteMatch { path: "/".into(), ..RouteMatch::default() },
        pool: pool.id.clone(),
        auth: None,
        extra_paths: Vec::new(),
        forward_credentials: false,
        cors_origins: Vec::new(),
        timeouts: pool.timeouts,
        prompt_log: None,
        limits: Vec::new(),
        priority: Priority::default(),
        cache: RouteCache::exact("all"),
        plugins: Vec::new(),
    };
    Ok(Settings {
        listeners: vec![listener],
        admin: Some(Admin::default()),
        runtime: Runtime::default(),
        limits: Limits::default(),
        store: Store::Embedded(EmbeddedStore::default()),
        embedder: None,
        rate_limits: BTreeMap::new(),
        keys: Vec::new(),
        has_keys_file: false,
        tokens: Vec::new(),
        certificates: Vec::new(),
        tenants: BTreeMap::new(),
        plugin_host: PluginHost::default(),
        plugins: BTreeMap::new(),
        pools: BTreeMap::from([(pool.id.clone(), Arc::new(pool))]),
        routes: vec![Arc::new(route)],
        fleet: Fleet::default(),
        cost: Cost::default(),
        log: Log::default(),
        otlp: None,
    })
}
