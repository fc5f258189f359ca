//! How the sources of endpoints do, and what those endpoints cost.

use std::time::{SystemTime, UNIX_EPOCH};

use refrain_upstream::{SourceStatus, Upstreams};

use super::exposition::{Exposition, Family};

pub(super) fn write(text: &mut Exposition, upstreams: &Upstreams) {
    let sources = upstreams.discoveries().statuses();
    if sources.is_empty() {
        return;
    }
    members(text, &sources);
    looks(text, &sources);
    endpoints(text, upstreams);
}

fn members(text: &mut Exposition, sources: &[SourceStatus]) {
    let family = text.gauge("refrain_discovery_members", "Endpoints that a source stands for.");
    each(family, sources, |source| Some(source.members as f64));
    let help = "Endpoints that a source does not list any more, kept for now.";
    each(text.gauge("refrain_discovery_held_back_members", help), sources, |source| {
        Some(source.held_back as f64)
    });
    let help = "What the last list holds that should be an endpoint and can't be used.";
    each(text.gauge("refrain_discovery_unusable_items", help), sources, |source| {
        Some(source.unusable as f64)
    });
}

fn looks(text: &mut Exposition, sources: &[SourceStatus]) {
    let mut looks = text.counter("refrain_discovery_looks_total", "Looks at a source, by how they went.");
    for source in sources {
        let labels = [("pool", source.pool.as_str()), ("source", &source.source)];
        looks.sample(&[labels[0], labels[1], ("result", "done")], source.successes);
        looks.sample(&[labels[0], labels[1], ("result", "failed")], source.failures);
    }
    let family = text.gauge("refrain_discovery_up", "Whether the last look at a source went well.");
    each(family, sources, |source| {
        Some(f64::from(u8::from(source.last_error.is_none() && source.successes > 0)))
    });
    let help = "When a look at a source last went well.";
    each(text.gauge("refrain_discovery_last_success_timestamp_seconds", help), sources, |source| {
        source.last_success.map(unix_seconds)
    });
}

fn each(mut family: Family<'_>, sources: &[SourceStatus], value: fn(&SourceStatus) -> Option<f64>) {
    for source in sources {
        if let Some(value) = value(source) {
            family.sample(&[("pool", source.pool.as_str()), ("source", &source.source)], value);
        }
    }
}

fn endpoints(text: &mut Exposition, upstreams: &Upstreams) {
    let of_pool = |pool: &refrain_core::PoolId| upstreams.discoveries().found(pool);
    let all: Vec<_> = upstreams
        .pools()
        .flat_map(|pool| of_pool(pool.id()).into_iter().map(|listed| (pool.id().clone(), listed)))
        .collect();
    let mut price = text.gauge("refrain_upstream_price_dollars_per_hour", "What an endpoint costs.");
    for (pool, listed) in &all {
        if let Some(dollars) = listed.price_per_hour {
            let labels = [("pool", pool.as_str()), ("endpoint", listed.endpoint.id.as_str())];
            price.sample(&labels, dollars);
        }
    }
    let help = "Since when an endpoint runs, as its provider says.";
    let mut started = text.gauge("refrain_upstream_start_timestamp_seconds", help);
    for (pool, listed) in &all {
        if let Some(since) = listed.started {
            let labels = [("pool", pool.as_str()), ("endpoint", listed.endpoint.id.as_str())];
            started.sample(&labels, unix_seconds(since));
        }
    }
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
