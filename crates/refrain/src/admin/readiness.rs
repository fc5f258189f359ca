//! The readiness report: whether requests are taken, and what works less well than it should.
//!
//! A degraded part never makes the process unready: requests go on without it, and taking every replica out of
//! service would be worse.

use refrain_cache::{RemoteStats, SelfTest};
use refrain_plugin::{PolicyState, PolicyStatus};
use refrain_proxy::{KeySetStatus, Snapshot};
use serde_json::{Value, json};

use crate::control::{Control, Phase, Running};
use crate::health::{EmbedderHealth, Health};

/// The report as JSON. `ready` decides about the status.
pub(crate) fn report(control: &Control) -> Value {
    let phase = control.phase();
    let mut report = json!({
        "ready": phase == Phase::Ready,
        "phase": phase.as_str(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": control.uptime().as_secs(),
    });
    if let Some(running) = control.running() {
        let snapshot = running.live.load_full();
        report["degraded"] = degraded(control, running, &snapshot).into();
        report["config"] = config(running);
        report["store"] = store(&snapshot);
        report["embedder"] = embedder(&running.health, &snapshot);
        report["policies"] = policies(control);
        report["signing_keys"] = signing_keys(&snapshot);
        report["upstreams"] = upstreams(&snapshot);
    }
    report
}

/// What somebody without a token is told.
pub(crate) fn short(control: &Control) -> Value {
    let phase = control.phase();
    json!({ "ready": phase == Phase::Ready, "phase": phase.as_str() })
}

/// Names of what works less well than it should.
fn degraded(control: &Control, running: &Running, snapshot: &Snapshot) -> Vec<&'static str> {
    let mut degraded = running.health.degraded(snapshot.cache.as_deref());
    let embedder = snapshot.cache.as_ref().and_then(|cache| cache.embedder.as_ref());
    if embedder.is_some_and(|embedder| embedder.stats().threads == 0) {
        degraded.push("embedder");
    }
    if snapshot.upstreams.pools().any(|pool| !pool.stats().iter().any(|endpoint| endpoint.state.is_asked())) {
        degraded.push("upstreams");
    }
    if control.policies.statuses().iter().any(|policy| policy.state != PolicyState::Ready) {
        degraded.push("policies");
    }
    if snapshot.cache.as_ref().is_some_and(|cache| cache.store.stats().disk_waits) {
        degraded.push("store");
    }
    if snapshot.auth.key_sets().iter().any(|keys| keys.keys == 0 || keys.last_error.is_some()) {
        degraded.push("signing_keys");
    }
    if !running.reloads.load().is_successful() {
        degraded.push("config");
    }
    degraded
}

fn config(running: &Running) -> Value {
    let record = running.reloads.load();
    json!({
        "generation": record.generation(),
        "last_reload_successful": record.is_successful(),
        "problems": record.problems,
        "restart_needed": record.restart_needed,
    })
}

fn store(snapshot: &Snapshot) -> Value {
    let Some(cache) = &snapshot.cache else { return json!({ "state": "off" }) };
    let stats = cache.store.stats();
    let test = cache.tested().unwrap_or_default();
    let SelfTest { write, exact_read, paraphrase_read, other_user_misses, removed } = test;
    let mut report = json!({
        "state": if test.passed() { "ok" } else { "degraded" },
        "self_test": {
            "write": write,
            "exact_read": exact_read,
            "paraphrase_read": paraphrase_read,
            "other_user_misses": other_user_misses,
            "removed": removed,
        },
        "entries": stats.entries,
        "on_disk": stats.disk.map(|disk| disk.entries),
        "waits_for_dir": stats.disk_waits,
    });
    if let Some(remote) = &stats.remote {
        report["redis"] = redis(remote);
    }
    report
}

fn redis(remote: &RemoteStats) -> Value {
    json!({
        "state": if remote.trouble.is_none() { "up" } else { "away" },
        "reason": remote.trouble.as_ref().map(ToString::to_string),
        "away_for_seconds": remote.trouble.as_ref().map(|_| remote.away_for.as_secs()),
        "vectors": remote.vectors.map(|vectors| vectors.mode.as_str()),
        "vectors_why": remote.vectors.map(|vectors| vectors.why),
        "queued_bytes": remote.queued_bytes,
    })
}

fn embedder(health: &Health, snapshot: &Snapshot) -> Value {
    let stats = snapshot.cache.as_ref().and_then(|cache| Some(cache.embedder.as_ref()?.stats()));
    match (&health.embedder, stats) {
        (EmbedderHealth::Failed(reason), _) => json!({ "state": "down", "reason": reason }),
        (EmbedderHealth::Loaded, Some(stats)) if stats.threads > 0 => {
            json!({ "state": "ok", "threads": stats.threads, "queued": stats.queued })
        }
        (EmbedderHealth::Loaded, _) => json!({ "state": "down", "reason": "its threads ended; see the log" }),
        (EmbedderHealth::Off, _) => json!({ "state": "off" }),
    }
}

fn policies(control: &Control) -> Value {
    let policy = |status: PolicyStatus| {
        let PolicyStatus { plugin, route, sha256, state, instances, last_error } = status;
        let (state, seconds) = match state {
            PolicyState::Ready => ("ok", None),
            PolicyState::Quarantined { remaining } => ("quarantined", Some(remaining.as_secs())),
        };
        json!({
            "plugin": plugin.as_str(),
            "route": route.as_str(),
            "sha256": refrain_core::hex(&sha256),
            "state": state,
            "asked_again_in_seconds": seconds,
            "instances": instances,
            "last_error": last_error,
        })
    };
    control.policies.statuses().into_iter().map(policy).collect()
}

fn signing_keys(snapshot: &Snapshot) -> Value {
    let set = |status: KeySetStatus| {
        let KeySetStatus { issuer, keys, reads: _, failures: _, age, last_error } = status;
        json!({
            "jwt": issuer.as_str(),
            "keys": keys,
            "read_seconds_ago": age.map(|age| age.as_secs()),
            "last_error": last_error,
        })
    };
    snapshot.auth.key_sets().into_iter().map(set).collect()
}

fn upstreams(snapshot: &Snapshot) -> Value {
    let endpoints = snapshot.upstreams.pools().flat_map(|pool| {
        pool.stats().into_iter().map(|stats| {
            json!({
                "pool": pool.id().as_str(),
                "endpoint": stats.endpoint.as_str(),
                "state": stats.state.as_str(),
                "in_flight": stats.in_flight,
            })
        })
    });
    endpoints.collect()
}
