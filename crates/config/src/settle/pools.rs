//! Pools and their endpoints, secrets included.

mod discover;
mod gpu;

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use refrain_core::PoolId;
use refrain_core::settings::{Endpoint, MicroDollars, Pool, PoolCost, PoolKind, Timeouts};

use super::Context;
use super::endpoints::{Access, RawAccess};
use super::fleet::{self, Tenants};
use crate::raw;

pub(super) fn settle(
    context: &mut Context<'_>,
    raw: BTreeMap<String, raw::Pool>,
    tenants: &Tenants,
) -> BTreeMap<PoolId, Arc<Pool>> {
    if context.names("pool").is_empty() {
        context.refuse(&["pool"], "no pool: add [pool.NAME] with endpoints = [\"http://host:port\"]", None);
    }
    raw.into_iter()
        .map(|(name, raw)| {
            let pool = pool(context, &name, raw, tenants);
            (pool.id.clone(), Arc::new(pool))
        })
        .collect()
}

/// The time-outs of a table, with those of another where it has none.
pub(super) fn timeouts(raw: raw::Timeouts, default: Timeouts) -> Timeouts {
    Timeouts {
        connect: raw.connect.map_or(default.connect, |span| span.0),
        first_byte: raw.first_byte.map_or(default.first_byte, |span| span.0),
        idle: raw.idle.map_or(default.idle, |span| span.0),
        total: raw.total.map_or(default.total, |span| span.0),
    }
}

fn pool(context: &mut Context<'_>, name: &str, mut raw: raw::Pool, tenants: &Tenants) -> Pool {
    let mut endpoints = Vec::new();
    let access = RawAccess {
        http_version: raw.http_version,
        tls: raw.tls.take(),
        authorization: raw.authorization.take(),
        headers: mem::take(&mut raw.headers),
    };
    let access = Access::of(context, &["pool", name], access);
    for (index, url) in mem::take(&mut raw.endpoints).into_iter().enumerate() {
        let endpoint = access.endpoint(url.0);
        add(context, &["pool", name, "endpoints", &index.to_string()], &mut endpoints, endpoint);
    }
    let mut cost = PoolCost {
        per_hour: raw.price_per_hour.map(MicroDollars::of_dollars),
        of_endpoint: BTreeMap::new(),
        is_elastic: raw.elastic,
    };
    for (index, raw) in mem::take(&mut raw.endpoint).into_iter().enumerate() {
        let path = ["pool", name, "endpoint", &index.to_string()];
        let price = raw.price_per_hour.map(MicroDollars::of_dollars);
        if let Some(endpoint) = access.endpoint_of(context, &path, raw) {
            cost.of_endpoint.extend(price.map(|price| (endpoint.id.clone(), price)));
            add(context, &path, &mut endpoints, endpoint);
        }
    }
    if access.has_tls()
        && !endpoints.is_empty()
        && raw.discover.is_empty()
        && endpoints.iter().all(|endpoint| endpoint.tls.is_none())
    {
        let message = "has no effect: no endpoint's URL begins with https://";
        context.refuse(&["pool", name, "tls"], message, None);
    }
    let has_sources = !raw.discover.is_empty();
    let discover = discover::settle(context, name, &access, mem::take(&mut raw.discover));
    if endpoints.is_empty() && !has_sources {
        let message = "no endpoint: add endpoints = [\"http://host:port\"], or [[pool.NAME.discover]]";
        context.refuse(&["pool", name], message, None);
    }
    let kind = match raw.kind {
        Some(raw::PoolKind::Generic) => PoolKind::Generic,
        Some(raw::PoolKind::Ollama) => PoolKind::Ollama,
        None => PoolKind::default(),
    };
    Pool {
        id: PoolId::new(name),
        endpoints,
        discover,
        kind,
        balance: fleet::balance(context, name, &raw),
        sessions: fleet::sessions(&raw),
        admission: fleet::admission(context, name, &raw.limits, kind),
        health: fleet::health(&raw.health),
        tenancy: fleet::tenancy(context, name, &raw, kind, tenants),
        fallback: fleet::fallback(context, name, raw.fallback.take()),
        assemble: raw.assemble,
        cost,
        gpu: raw.gpu.take().and_then(|raw| gpu::settle(context, name, raw)),
        revision: raw.revision.take().unwrap_or_default(),
        models: raw.models.into_iter().map(|(alias, model)| (alias, model.0)).collect(),
        timeouts: timeouts(mem::take(&mut raw.timeouts), Timeouts::default()),
        idle_connections_max: raw
            .idle_connections
            .map_or(Pool::IDLE_CONNECTIONS_MAX, |number| number as usize),
        connections_max: raw.connections.map_or(Pool::CONNECTIONS_MAX, |number| number as usize),
    }
}

fn add(context: &mut Context<'_>, path: &[&str], endpoints: &mut Vec<Endpoint>, endpoint: Endpoint) {
    if endpoints.iter().any(|other| other.id == endpoint.id) {
        let message =
            format!("a second endpoint named {:?}; give it a name of its own", endpoint.id.as_str());
        context.refuse(path, message, None);
    }
    endpoints.push(endpoint);
}
