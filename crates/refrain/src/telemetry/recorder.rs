//! Where the metrics of all crates are collected.

use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::help;

/// How often collected samples are folded into their buckets, so that they don't pile up between scrapes.
pub(crate) const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Upper bounds of the buckets of all histograms, in seconds: a hit takes parts of a millisecond, an answer minutes.
const BUCKETS_SECONDS: [f64; 20] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0,
    30.0, 60.0, 180.0, 600.0,
];

/// The same for the time between tokens, or between chunks of an answer.
const BUCKETS_GAP_SECONDS: [f64; 16] =
    [0.001, 0.002_5, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 3.0, 10.0];

/// The same for tokens a second of one answer.
const BUCKETS_TOKENS: [f64; 15] =
    [1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1000.0];

/// The same for Redis and the embedder, which have budgets of milliseconds.
const BUCKETS_NEAR_SECONDS: [f64; 13] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

/// The same for calls of policies, which take microseconds.
const BUCKETS_POLICY_SECONDS: [f64; 22] = [
    0.000_000_5,
    0.000_001,
    0.000_001_5,
    0.000_002,
    0.000_002_5,
    0.000_003,
    0.000_004,
    0.000_005,
    0.000_007_5,
    0.000_01,
    0.000_015,
    0.000_02,
    0.000_03,
    0.000_05,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.005,
    0.05,
    1.0,
];

/// Collects from now on, for the whole process. Call it before anything registers a counter.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    let recorder = recorder()?;
    help::describe(&recorder);
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("metrics are collected already")?;
    Ok(handle)
}

/// Collects nothing.
#[cfg(test)]
pub(crate) fn detached() -> PrometheusHandle {
    recorder().unwrap().handle()
}

fn recorder() -> anyhow::Result<PrometheusRecorder> {
    let of_metrics: [(&str, &[f64]); 6] = [
        ("refrain_policy_call_seconds", &BUCKETS_POLICY_SECONDS),
        ("refrain_response_token_gap_seconds", &BUCKETS_GAP_SECONDS),
        ("refrain_response_stall_seconds", &BUCKETS_GAP_SECONDS),
        ("refrain_response_tokens_per_second", &BUCKETS_TOKENS),
        ("refrain_store_redis_seconds", &BUCKETS_NEAR_SECONDS),
        ("refrain_embedder_text_seconds", &BUCKETS_NEAR_SECONDS),
    ];
    let builder = PrometheusBuilder::new().set_buckets(&BUCKETS_SECONDS).and_then(|builder| {
        of_metrics.into_iter().try_fold(builder, |builder, (name, buckets)| {
            builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)
        })
    });
    Ok(builder.context("histogram buckets")?.build_recorder())
}
