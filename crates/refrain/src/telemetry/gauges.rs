//! Numbers that are pulled at a scrape: the store's, the embedder's, the upstreams', the process's own.

use refrain_cache::{DiskStats, EmbedderStats, RemoteStats, StoreStats, Trouble, VectorMode};
use refrain_plugin::PolicyState;
use refrain_proxy::{AnswerCache, GapStats, Snapshot};
use refrain_upstream::EndpointStats;

use super::exposition::Exposition;
use super::{cost, discovery, pools, process};
use crate::control::{Control, Phase, Running};
use crate::health::{EmbedderHealth, Health};

/// The numbers as of now, in the Prometheus text format.
pub(crate) fn pulled(control: &Control) -> String {
    let mut text = Exposition::default();
    of_process(&mut text, control);
    policies(&mut text, control);
    if let Some(running) = control.running() {
        let snapshot = running.live.load_full();
        config(&mut text, running, &snapshot);
        crowds(&mut text, &snapshot);
        gaps(&mut text, &snapshot);
        health(&mut text, &running.health, snapshot.cache.as_deref());
        if let Some(cache) = &snapshot.cache {
            store(&mut text, &cache.store.stats());
            if let Some(embedder) = &cache.embedder {
                self::embedder(&mut text, &embedder.stats());
            }
        }
        limits(&mut text, &snapshot);
        signing_keys(&mut text, &snapshot);
        upstreams(&mut text, &snapshot);
        pools::write(&mut text, &snapshot.upstreams);
        discovery::write(&mut text, &snapshot.upstreams);
        cost::write(&mut text, &snapshot);
    }
    text.into_text()
}

fn signing_keys(text: &mut Exposition, snapshot: &Snapshot) {
    let sets = snapshot.auth.key_sets();
    let mut keys = text.gauge("refrain_auth_signing_keys", "Keys of an issuer that can verify tokens.");
    for set in &sets {
        keys.sample(&[("jwt", set.issuer.as_str())], set.keys);
    }
    let mut up =
        text.gauge("refrain_auth_signing_keys_up", "Whether an issuer's keys were read the last time.");
    for set in &sets {
        up.sample(&[("jwt", set.issuer.as_str())], u8::from(set.age.is_some() && set.last_error.is_none()));
    }
    let mut reads = text.counter("refrain_auth_signing_key_reads_total", "Reads of an issuer's keys.");
    for set in &sets {
        let jwt = ("jwt", set.issuer.as_str());
        reads.sample(&[jwt, ("result", "ok")], set.reads).sample(&[jwt, ("result", "failed")], set.failures);
    }
}

fn of_process(text: &mut Exposition, control: &Control) {
    let version = env!("CARGO_PKG_VERSION");
    text.gauge("refrain_process_build_info", "The version that runs.").sample(&[("version", version)], 1);
    text.gauge("refrain_process_uptime_seconds", "Time since the start.")
        .sample(&[], control.uptime().as_secs_f64());
    process::write(text);
    let ready = u8::from(control.phase() == Phase::Ready);
    text.gauge("refrain_process_ready", "Whether requests are taken: 0 while starting and draining.")
        .sample(&[], ready);
    text.counter("refrain_log_dropped_lines_total", "Log lines dropped because stderr was too slow.")
        .sample(&[], control.lines_dropped.count());
    text.counter(
        "refrain_otlp_dropped_traces_total",
        "Requests without spans for want of room to keep them.",
    )
    .sample(&[], control.traces.dropped());
}

fn policies(text: &mut Exposition, control: &Control) {
    let statuses = control.policies.statuses();
    if statuses.is_empty() {
        return;
    }
    let help = "Whether a policy failed so often that it rests: its route does without it, or refuses.";
    let mut family = text.gauge("refrain_policy_quarantined", help);
    for status in &statuses {
        let labels = [("plugin", status.plugin.as_str()), ("route", status.route.as_str())];
        family.sample(&labels, u8::from(status.state != PolicyState::Ready));
    }
}

/// One answer for many questions is mostly a wrong one.
fn crowds(text: &mut Exposition, snapshot: &Snapshot) {
    let help = "The most different questions that one stored answer served by likeness in about ten minutes.";
    let mut family = text.gauge("refrain_semantic_questions_of_one_answer", help);
    for route in snapshot.routes.iter().filter(|state| state.route.cache.semantic.is_some()) {
        family.sample(&[("route", route.route.id.as_str())], route.crowd());
    }
}

fn gaps(text: &mut Exposition, snapshot: &Snapshot) {
    let help = "Every time between two chunks of a stream: mostly a token each.";
    let mut family = text.histogram("refrain_response_gap_seconds", help);
    for route in snapshot.routes.iter() {
        let GapStats { up_to, count, sum } = route.gaps();
        family.distribution(("route", route.route.id.as_str()), &up_to, count, sum);
    }
}

fn config(text: &mut Exposition, running: &Running, snapshot: &Snapshot) {
    let record = running.reloads.load();
    text.gauge(
        "refrain_config_info",
        "What the settings in force come to: proxies that should be alike differ in it.",
    )
    .sample(&[("hash", &fingerprint(snapshot))], 1);
    text.gauge("refrain_config_generation", "Configurations in force so far.")
        .sample(&[], record.generation());
    text.gauge("refrain_config_last_reload_successful", "Whether the file's last content is in force.")
        .sample(&[], u8::from(record.is_successful()));
    text.gauge("refrain_config_restart_needed", "Settings of the file that wait for a restart.")
        .sample(&[], record.restart_needed.len());
    text.counter("refrain_config_reloads_total", "Reloads.")
        .sample(&[("result", "applied")], record.applied)
        .sample(&[("result", "refused")], record.refused);
}

/// Hash of the settings that proxies with the same task share: not where they listen, log and keep files.
fn fingerprint(snapshot: &Snapshot) -> String {
    let mut settings = refrain_config::redacted(&snapshot.settings);
    if let Some(tables) = settings.as_object_mut() {
        for own in ["listener", "admin", "runtime", "log", "otlp", "store", "plugin_host"] {
            tables.remove(own);
        }
    }
    // JSON objects are sorted by key.
    refrain_core::hex(&blake3::hash(settings.to_string().as_bytes()).as_bytes()[..8])
}

fn health(text: &mut Exposition, health: &Health, cache: Option<&AnswerCache>) {
    if let Some(test) = cache.and_then(AnswerCache::tested) {
        text.gauge(
            "refrain_store_up",
            "Whether the store passed its self-test; not while a shared one is away.",
        )
        .sample(&[], u8::from(test.passed()));
    }
    if health.embedder != EmbedderHealth::Off {
        text.gauge("refrain_embedder_up", "Whether the configured embedder was loaded.")
            .sample(&[], u8::from(health.embedder == EmbedderHealth::Loaded));
    }
}

fn store(text: &mut Exposition, stats: &StoreStats) {
    text.gauge("refrain_store_entries", "Entries in memory.").sample(&[], stats.entries);
    text.gauge("refrain_store_memory_bytes", "Memory charged for entries.").sample(&[], stats.bytes);
    text.gauge("refrain_store_vectors", "Vectors in memory.").sample(&[], stats.vectors);
    text.gauge("refrain_store_vector_bytes", "Memory of vectors.").sample(&[], stats.vector_bytes);
    text.counter("refrain_store_evictions_total", "Entries that left memory for want of room.")
        .sample(&[], stats.evictions);
    text.counter("refrain_store_refused_vectors_total", "Vectors refused for want of room.")
        .sample(&[], stats.vectors_refused);
    if let Some(stats) = &stats.disk {
        disk(text, stats);
    }
    if let Some(stats) = &stats.remote {
        remote(text, stats);
    }
}

fn remote(text: &mut Exposition, stats: &RemoteStats) {
    let is_up = stats.trouble.is_none();
    text.gauge("refrain_store_redis_up", "Whether the shared store can be used.")
        .sample(&[], u8::from(is_up));
    let mut modes = text.gauge("refrain_store_redis_vectors", "1 for how vectors are searched now.");
    for mode in VectorMode::ALL {
        let is_this = stats.vectors.is_some_and(|vectors| vectors.mode == mode);
        modes.sample(&[("mode", mode.as_str())], u8::from(is_this));
    }
    text.counter("refrain_store_lookups_total", "Look-ups by key, by where they ended.")
        .sample(&[("result", "near")], stats.near_hits)
        .sample(&[("result", "shared")], stats.shared_hits)
        .sample(&[("result", "miss")], stats.misses)
        .sample(&[("result", "away")], stats.away);
    text.counter("refrain_store_redis_writes_total", "Writes to Redis, by what became of them.")
        .sample(&[("result", "written")], stats.written)
        .sample(&[("result", "dropped")], stats.dropped);
    text.gauge("refrain_store_redis_queued_bytes", "Bytes that wait to be written.")
        .sample(&[], stats.queued_bytes);
    let mut refused =
        text.counter("refrain_store_redis_refused_values_total", "Values that were refused: each is a miss.");
    for (reason, count) in ["foreign", "version", "digest", "malformed"].into_iter().zip(stats.refused) {
        refused.sample(&[("reason", reason)], count);
    }
    let mut errors = text.counter("refrain_store_redis_errors_total", "Commands that failed, by why.");
    for (trouble, count) in Trouble::ALL.into_iter().zip(stats.troubles) {
        errors.sample(&[("reason", trouble.as_str())], count);
    }
}

fn disk(text: &mut Exposition, stats: &DiskStats) {
    text.gauge("refrain_store_disk_entries", "Entries on disk.").sample(&[], stats.entries);
    text.gauge("refrain_store_disk_bytes", "Bytes of records on disk.").sample(&[], stats.bytes);
    text.gauge("refrain_store_disk_queued_writes", "Writes that wait.").sample(&[], stats.queued);
    text.counter("refrain_store_disk_evictions_total", "Entries removed from disk for want of room.")
        .sample(&[], stats.evictions);
    text.counter("refrain_store_disk_quarantined_total", "Damaged records set aside.")
        .sample(&[], stats.quarantined);
    text.counter("refrain_store_disk_errors_total", "Disk operations that failed or were given up.")
        .sample(&[("operation", "write")], stats.write_errors)
        .sample(&[("operation", "read")], stats.read_errors);
}

fn embedder(text: &mut Exposition, stats: &EmbedderStats) {
    text.gauge("refrain_embedder_queued_texts", "Texts that wait.").sample(&[], stats.queued);
    text.gauge("refrain_embedder_threads", "Threads alive.").sample(&[], stats.threads);
    text.counter("refrain_embedder_texts_total", "Texts by what became of them.")
        .sample(&[("result", "done")], stats.done)
        .sample(&[("result", "slow")], stats.slow)
        .sample(&[("result", "busy")], stats.busy)
        .sample(&[("result", "too_long")], stats.too_long)
        .sample(&[("result", "abandoned")], stats.abandoned)
        .sample(&[("result", "failed")], stats.failed);
}

fn limits(text: &mut Exposition, snapshot: &Snapshot) {
    let all = snapshot.limit_stats();
    if all.is_empty() {
        return;
    }
    let mut subjects =
        text.gauge("refrain_limit_subjects", "Subjects that are counted apart in this process.");
    for stats in &all {
        subjects.sample(&[("limit", stats.limit.as_str())], stats.subjects);
    }
    let mut crowded = text.counter(
        "refrain_limit_crowded_requests_total",
        "Requests that were counted with those of other subjects: raise the limit's subjects.",
    );
    for stats in &all {
        crowded.sample(&[("limit", stats.limit.as_str())], stats.crowded);
    }
}

fn upstreams(text: &mut Exposition, snapshot: &Snapshot) {
    let pools = snapshot.upstreams.pools();
    let all: Vec<_> =
        pools.flat_map(|pool| pool.stats().into_iter().map(|stats| (pool.id().clone(), stats))).collect();
    let mut each = |kind: Kind, name, help, value: fn(&EndpointStats) -> u64| {
        let mut family = match kind {
            Kind::Gauge => text.gauge(name, help),
            Kind::Counter => text.counter(name, help),
        };
        for (pool, stats) in &all {
            let labels = [("pool", pool.as_str()), ("endpoint", stats.endpoint.as_str())];
            family.sample(&labels, value(stats));
        }
    };
    each(Kind::Gauge, "refrain_upstream_in_flight_requests", "Requests being answered.", |s| {
        s.in_flight.into()
    });
    each(Kind::Gauge, "refrain_upstream_in_flight_prompt_tokens", "Tokens of their prompts, about.", |s| {
        s.tokens
    });
    each(Kind::Gauge, "refrain_upstream_healthy", "Whether new requests go there.", |s| {
        s.state.is_asked().into()
    });
    each(Kind::Counter, "refrain_upstream_requests_total", "Requests sent, each try counted.", |s| {
        s.requests
    });
    each(Kind::Counter, "refrain_upstream_failures_total", "Tries that failed.", |s| s.failures);
    each(Kind::Counter, "refrain_upstream_opened_connections_total", "Connections opened.", |s| {
        s.connections_opened
    });
    each(
        Kind::Counter,
        "refrain_upstream_reused_connections_total",
        "Requests on an idle connection.",
        |s| s.connections_reused,
    );
}

#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}
