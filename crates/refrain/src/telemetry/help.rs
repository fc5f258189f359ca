//! What the metrics that crates record mean, in a line each: for `# HELP`, and a collector's descriptions. Those that are pulled
//! at a scrape say it where they are written.

use metrics::{Recorder, SharedString};

/// Counters.
const COUNTERS: &[(&str, &str)] = &[
    ("refrain_auth_refusals_total", "Callers that were not let in, by why."),
    ("refrain_cache_bypasses_total", "Requests past the cache, by why."),
    ("refrain_cache_exact_only_total", "Requests for which only the same question was looked for, by why."),
    ("refrain_cache_saved_output_tokens_total", "Tokens of stored answers that were served."),
    ("refrain_cache_skips_total", "Answers that were not stored, by why."),
    ("refrain_cache_stored_total", "Answers that were handed to the store."),
    ("refrain_connections_ended_total", "Connections ended for their client's manners, by why."),
    ("refrain_errors_total", "Errors of Refrain's own, by code."),
    ("refrain_limit_requests_total", "Requests that a limit looked at, by what became of them."),
    ("refrain_otlp_exports_total", "Sendings to the OpenTelemetry collector, by how they went."),
    ("refrain_policy_clamps_total", "Wishes of a policy that went beyond what it may, by which."),
    ("refrain_policy_count_total", "What a policy counts itself, by its name for it."),
    ("refrain_policy_dropped_total", "What a policy said and nobody kept."),
    ("refrain_policy_failures_total", "Calls of a policy that failed, by hook and why."),
    ("refrain_policy_outcomes_total", "Requests by the labels that a policy gave them, and outcome."),
    ("refrain_policy_reasons_total", "Reasons that a policy gave, by hook."),
    ("refrain_purged_entries_total", "Entries that purges took away."),
    ("refrain_purges_total", "Purges."),
    ("refrain_requests_total", "Requests by what the cache did with them."),
    ("refrain_response_heads_total", "Answers by the class of their status."),
    ("refrain_response_tokens_total", "Tokens of answers as clients got them, as far as servers told."),
    ("refrain_responses_total", "Answers by how they ended."),
    ("refrain_semantic_refusals_total", "Similar questions whose answer was not served, by why."),
    (
        "refrain_semantic_audits_total",
        "Hits by meaning of which a server was asked too, by how alike the answers are.",
    ),
    ("refrain_semantic_shadow_hits_total", "Answers that shadow mode kept back."),
    ("refrain_unrouted_errors_total", "Requests that no route took, by code."),
    ("refrain_upstream_fallbacks_total", "Requests that another pool was asked for."),
    ("refrain_upstream_output_tokens_total", "Tokens that servers generated, as far as they told."),
];

/// Gauges.
const GAUGES: &[(&str, &str)] = &[("refrain_policy_instances", "Instances of a policy.")];

/// Histograms.
const HISTOGRAMS: &[(&str, &str)] = &[
    ("refrain_embedder_text_seconds", "Time to a text's vector, its wait included."),
    ("refrain_policy_call_seconds", "Time of a policy's calls, by hook."),
    ("refrain_policy_observed", "What a policy measures itself, by its name for it."),
    ("refrain_response_first_byte_seconds", "Time from a request's head to its answer's first byte."),
    ("refrain_response_first_token_seconds", "The same of streams from servers, which begin with a token."),
    ("refrain_response_head_seconds", "Time from a request's head to its answer's head."),
    ("refrain_response_seconds", "Time from a request's head to its answer's end."),
    ("refrain_response_stall_seconds", "The longest silence within a stream."),
    ("refrain_response_token_gap_seconds", "The mean time between the tokens of a stream."),
    ("refrain_response_tokens_per_second", "Tokens a second of a stream."),
    ("refrain_store_redis_seconds", "Time that Redis takes, by operation."),
    ("refrain_upstream_connect_seconds", "Time to open a connection to a server."),
    ("refrain_upstream_first_byte_seconds", "Time from sending a request to a server to its answer's head."),
    (
        "refrain_upstream_queue_wait_seconds",
        "Time that requests wait for room at a server, of those that got it.",
    ),
];

/// Tells a recorder.
pub(super) fn describe(recorder: &impl Recorder) {
    let text = SharedString::const_str;
    for (name, help) in COUNTERS {
        recorder.describe_counter((*name).into(), None, text(help));
    }
    for (name, help) in GAUGES {
        recorder.describe_gauge((*name).into(), None, text(help));
    }
    for (name, help) in HISTOGRAMS {
        recorder.describe_histogram((*name).into(), None, text(help));
    }
}
