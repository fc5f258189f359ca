//! What the pools have to do: how busy they and their GPUs are, who waits, how many endpoints there should be.

use std::collections::BTreeMap;

use refrain_core::PoolId;
use refrain_upstream::{EndpointCondition, EndpointStats, PoolStats, Upstreams};

use super::exposition::{Exposition, Family};

pub(super) fn write(text: &mut Exposition, upstreams: &Upstreams) {
    text.gauge("refrain_fleet_proxies", "Proxies that share the limits of pools, this one included.")
        .sample(&[], upstreams.proxies());
    let pools: Vec<PoolStats> = upstreams.pools().map(|pool| pool.summary()).collect();
    load(text, &pools);
    queues(text, &pools);
    scaling(text, &pools);
    let endpoints: Vec<_> = upstreams.pools().map(|pool| (pool.id().clone(), pool.stats())).collect();
    states(text, &endpoints);
    gpus(text, &endpoints);
}

fn load(text: &mut Exposition, pools: &[PoolStats]) {
    let family = text.gauge("refrain_pool_in_flight_requests", "Requests being answered.");
    each(family, pools, |pool| pool.in_flight as f64);
    let family = text.gauge("refrain_pool_in_flight_prompt_tokens", "Tokens of their prompts, about.");
    each(family, pools, |pool| pool.tokens as f64);
    let help = "Requests that the endpoints in service take from this proxy at once.";
    each(text.gauge("refrain_pool_capacity_requests", help), pools, |pool| pool.capacity as f64);
}

fn queues(text: &mut Exposition, pools: &[PoolStats]) {
    let family = text.gauge("refrain_pool_queue_depth", "Requests that wait for an endpoint.");
    each(family, pools, |pool| pool.queued as f64);
    let help = "How long requests waited in all.";
    each(text.counter("refrain_pool_queue_wait_seconds_total", help), pools, |pool| {
        pool.waited.as_secs_f64()
    });
    let help = "Requests that waited, with success or not.";
    each(text.counter("refrain_pool_queue_waits_total", help), pools, |pool| pool.waits as f64);
    let help = "Requests that were refused because the queue was full, or waited in vain.";
    each(text.counter("refrain_pool_refused_total", help), pools, |pool| pool.refused as f64);
}

fn scaling(text: &mut Exposition, pools: &[PoolStats]) {
    let help = "How many endpoints there should be, for all proxies.";
    each(text.gauge("refrain_pool_desired_replicas", help), pools, |pool| pool.desired_replicas.into());
    let help = "Tokens that endpoints generated, as far as they told.";
    each(text.counter("refrain_pool_output_tokens_total", help), pools, |pool| pool.output_tokens as f64);
}

fn states(text: &mut Exposition, pools: &[(PoolId, Vec<EndpointStats>)]) {
    let mut family = text.gauge("refrain_pool_endpoints", "Endpoints by state.");
    for (pool, endpoints) in pools {
        let mut counts: BTreeMap<&str, u32> =
            EndpointCondition::ALL.iter().map(|state| (state.as_str(), 0)).collect();
        for endpoint in endpoints {
            *counts.entry(endpoint.state.as_str()).or_default() += 1;
        }
        for (state, count) in counts {
            family.sample(&[("pool", pool.as_str()), ("state", state)], count);
        }
    }
}

/// Of those alone whose use is known.
fn gpus(text: &mut Exposition, pools: &[(PoolId, Vec<EndpointStats>)]) {
    let help = "How busy the GPUs of an endpoint's host are, as its exporter says.";
    let mut family = text.gauge("refrain_endpoint_gpu_utilization_ratio", help);
    for (pool, endpoints) in pools {
        for endpoint in endpoints {
            if let Some(ratio) = endpoint.gpu_utilization {
                family.sample(&[("pool", pool.as_str()), ("endpoint", endpoint.endpoint.as_str())], ratio);
            }
        }
    }
}

fn each(mut family: Family<'_>, pools: &[PoolStats], value: fn(&PoolStats) -> f64) {
    for pool in pools {
        family.sample(&[("pool", pool.pool.as_str())], value(pool));
    }
}
