//! `refrain plugin bench`: how long does a policy take, and how much memory?
//!
//! One call after the other, on one instance, in this process: what a policy costs a request, and no load test.

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use refrain_core::RouteId;
use refrain_core::settings::Route;
use refrain_plugin::{Hooks, PluginHost};

use super::rehearse::{Rehearsal, Rehearsed};
use super::request::{self, Head, StoredAnswer, TrialRequest, UpstreamAnswer};
use super::trial;
use crate::cli::BenchPluginArguments;
use crate::columns::columns;

/// Bodies, and their bytes.
const BODIES: [(&str, usize); 2] = [("1 KB", 1024), ("256 KB", 256 * 1024)];

/// Stored answers that `on-candidates` is shown: as many as a route looks at, if it doesn't say otherwise.
const CANDIDATES: usize = 8;

/// Calls before those that count: a tenth.
const WARM_UP: u32 = 10;

/// Measures each hook that it has.
///
/// # Errors
/// The component, its config or the request can't be used.
pub(super) async fn bench(arguments: &BenchPluginArguments) -> anyhow::Result<ExitCode> {
    let BenchPluginArguments { policy, request, calls } = arguments;
    let route = trial::route_of_arguments(policy)?;
    let host = trial::host()?;
    // Compiled first, so that what compiling takes is in no figure.
    let inspection = host.inspect(trial::read(&policy.file)?.into()).await?;
    let bodies = match request {
        Some(file) => vec![("own", request::read(file)?)],
        None => BODIES.map(|(name, bytes)| (name, Head::default().with_body(body(bytes)))).to_vec(),
    };
    let started = Instant::now();
    let rehearsal = Rehearsal::new(&host, route.clone()).await?;
    let load = started.elapsed();
    let mut rows = vec![["HOOK", "BODY", "P50", "P99", "MAX", "FAILED"].map(str::to_owned).to_vec()];
    for (name, request) in &bodies {
        for measured in all_hooks(&rehearsal, inspection.hooks, request, *calls).await? {
            rows.push(measured.row(name));
        }
    }
    let grown = one_more(&host, route, &bodies[0].1).await?;
    crate::print(&format!("{}\n{}", columns(&rows), footer(*calls, load, grown)))
}

/// What one more instance adds to this process, in KiB, once it has answered a few calls. The first one's figure would be
/// the host's own warming up.
async fn one_more(
    host: &Arc<PluginHost>,
    route: Route,
    request: &TrialRequest,
) -> anyhow::Result<Option<u64>> {
    let before = resident_kib();
    // Instances belong to a route.
    let other = Rehearsal::new(host, Route { id: RouteId::new("one-more"), ..route }).await?;
    for _ in 0..WARM_UP {
        other.request(request).await?;
    }
    Ok(resident_kib().zip(before).map(|(after, before)| after.saturating_sub(before)))
}

fn footer(calls: u32, load: Duration, grown_kib: Option<u64>) -> String {
    let memory = grown_kib.map_or_else(String::new, |kib| format!("; one more instance takes {kib} KiB"));
    format!("{calls} calls each; loaded and configured in {}{memory}\n", in_microseconds(load))
}

/// A hook, and how long each call took.
struct Measured {
    hook: &'static str,
    took: Vec<Duration>,
    failed: u32,
}

async fn all_hooks(
    rehearsal: &Rehearsal,
    hooks: Hooks,
    request: &TrialRequest,
    calls: u32,
) -> anyhow::Result<Vec<Measured>> {
    let mut decide = Measured { hook: "on-request", took: Vec::new(), failed: 0 };
    for call in 0..calls + calls.div_ceil(WARM_UP) {
        let rehearsed = rehearsal.request(request).await?;
        if call >= calls.div_ceil(WARM_UP) {
            decide.took.push(rehearsed.took);
            decide.failed += u32::from(rehearsed.decision.contains_key("error"));
        }
    }
    let rehearsed = rehearsal.request(request).await?;
    let mut all = vec![decide];
    if hooks.validate {
        all.extend(later("on-candidates", calls, || candidates(&rehearsed)).await);
    }
    if hooks.store {
        all.extend(later("on-response", calls, || response(&rehearsed)).await);
    }
    Ok(all)
}

/// None if the hook isn't asked about such requests: they aren't cached.
async fn later<F: Future<Output = Option<bool>>>(
    hook: &'static str,
    calls: u32,
    ask: impl Fn() -> F,
) -> Option<Measured> {
    let mut measured = Measured { hook, took: Vec::new(), failed: 0 };
    for call in 0..calls + calls.div_ceil(WARM_UP) {
        let started = Instant::now();
        let is_well = ask().await?;
        if call >= calls.div_ceil(WARM_UP) {
            measured.took.push(started.elapsed());
            measured.failed += u32::from(!is_well);
        }
    }
    Some(measured)
}

async fn candidates(rehearsed: &Rehearsed) -> Option<bool> {
    let answer = |index: usize| StoredAnswer {
        similarity: 0.99 - index as f32 / 100.0,
        source_text: format!("How do I sort a list of {index} numbers?"),
        answer: "With the sort method.".to_owned(),
        ..StoredAnswer::default()
    };
    let answers: Vec<StoredAnswer> = (0..CANDIDATES).map(answer).collect();
    rehearsed.candidates(&answers).await.map(|told| told.get("miss").is_none_or(|reason| reason != "failed"))
}

async fn response(rehearsed: &Rehearsed) -> Option<bool> {
    let answer = UpstreamAnswer::of_text("With the sort method.");
    rehearsed.response(&answer).await.map(|told| !told.contains_key("failed"))
}

impl Measured {
    fn row(self, body: &str) -> Vec<String> {
        let Self { hook, mut took, failed } = self;
        took.sort_unstable();
        let at = |percent: usize| took.get((took.len().saturating_sub(1) * percent) / 100).copied();
        let cell = |percent| at(percent).map(in_microseconds).unwrap_or_default();
        vec![hook.to_owned(), body.to_owned(), cell(50), cell(99), cell(100), failed.to_string()]
    }
}

fn in_microseconds(time: Duration) -> String {
    format!("{:.1} us", time.as_secs_f64() * 1e6)
}

/// A chat with a long system prompt and a short question.
fn body(bytes: usize) -> String {
    let line = "You answer questions about lists, trees and tables. ";
    let system: String = line.chars().cycle().take(bytes.saturating_sub(128)).collect();
    serde_json::json!({
        "model": "m",
        "messages": [
            { "role": "system", "content": system },
            { "role": "user", "content": "How do I sort a list of numbers?" },
        ],
    })
    .to_string()
}

/// Resident memory of this process; none where the system doesn't tell it so.
fn resident_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_sorted_calls() {
        let took = (1..=100).rev().map(Duration::from_micros).collect();
        let row = Measured { hook: "on-request", took, failed: 2 }.row("1 KB");
        assert_eq!(row, ["on-request", "1 KB", "50.0 us", "99.0 us", "100.0 us", "2"]);
    }

    #[test]
    fn bodies_have_the_size_that_they_are_named_by() {
        for (name, bytes) in BODIES {
            let length = body(bytes).len();
            assert!(length.abs_diff(bytes) < bytes / 10, "{name}: {length}");
        }
    }
}
