//! The results for people.

use std::fmt::Write as _;

use super::report::{Report, Spread};
use crate::columns::columns;

/// From here on this program itself is slow enough to show.
const CLIENT_CPU_HIGH: f64 = 0.8;
/// Requests that were sent so late show that the client or the bound on requests under way held them up, in milliseconds.
const LATE_HIGH_MS: f64 = 10.0;

/// The page that ends a measurement.
pub(super) fn page(report: &Report) -> String {
    let mut page = String::new();
    // Writing to a `String` can't fail.
    let _ = write!(page, "{}\n\n{}\n{}", head(report), times(report), counts(report));
    for remark in remarks(report) {
        let _ = writeln!(page, "! {remark}");
    }
    page
}

fn head(report: &Report) -> String {
    let setup = &report.setup;
    format!(
        "{} on {}{} with {}, {} for {:.1} s",
        setup.workload,
        setup.urls.join(", "),
        setup.path,
        setup.model,
        setup.load,
        report.seconds
    )
}

fn times(report: &Report) -> String {
    let names = ["", "count", "mean", "p50", "p90", "p95", "p99", "max"];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    let all = [
        ("time to first token, ms", &report.ttft_ms),
        ("  of hits, from sending", &report.cached.ttft_ms),
        ("  of joined, from sending", &report.joined.ttft_ms),
        ("  generated, from sending", &report.generated.ttft_ms),
        ("gap between chunks, ms", &report.gap_ms),
        ("end to end, ms", &report.e2e_ms),
        ("  of hits, from sending", &report.cached.e2e_ms),
        ("  of joined, from sending", &report.joined.e2e_ms),
        ("  generated, from sending", &report.generated.e2e_ms),
        ("sent late, ms", &report.late_ms),
        ("ms a token, of a generated answer", &report.tokens.ms_per_token),
    ];
    // Of one kind alone the same would be said twice.
    let kinds = [&report.cached, &report.joined, &report.generated]
        .iter()
        .filter(|kind| kind.e2e_ms.count > 0)
        .count();
    let is_shown = |name: &str, spread: &Spread| !name.starts_with(' ') || (kinds > 1 && spread.count > 0);
    let shown = all.iter().filter(|(name, spread)| is_shown(name, spread));
    rows.extend(shown.map(|(name, spread)| row(name, spread)));
    columns(&rows)
}

fn row(name: &str, spread: &Spread) -> Vec<String> {
    if spread.count == 0 {
        return vec![name.to_owned(), "0".to_owned(), "-".to_owned()];
    }
    let percentiles = [50.0, 90.0, 95.0, 99.0].map(|percentile| spread.known(percentile));
    let numbers = [Some(spread.mean)].into_iter().chain(percentiles).chain([Some(spread.max)]);
    let cells = numbers.map(|number| number.map_or_else(|| "-".to_owned(), |number| format!("{number:.1}")));
    [name.to_owned(), spread.count.to_string()].into_iter().chain(cells).collect()
}

fn counts(report: &Report) -> String {
    let requests = &report.requests;
    let tokens = &report.tokens;
    let mut rows = vec![
        (
            "requests".to_owned(),
            format!("{} due, {}, {:.1}/s answered", requests.due, outcome(report), requests.per_second),
        ),
        (
            "tokens".to_owned(),
            format!(
                "{} out ({:.1}/s), {} of them generated; {} in, {} of those from the upstream's prefix cache",
                tokens.output,
                tokens.output_per_second,
                tokens.output_generated,
                tokens.prompt,
                tokens.prompt_cached_upstream
            ),
        ),
        (
            "cache".to_owned(),
            format!(
                "{:.1} % hits or joined: {}",
                report.cache.hit_share * 100.0,
                listed(&report.cache.served)
            ),
        ),
        ("ended by".to_owned(), listed(&report.finish)),
    ];
    if !report.cache.bypass.is_empty() {
        rows.push(("bypassed for".to_owned(), listed(&report.cache.bypass)));
    }
    if let Some(goodput) = &report.goodput {
        let share = goodput.share * 100.0;
        let said = format!("{share:.1} % ({:.1}/s) within {}", goodput.per_second, goodput.objective);
        rows.push(("goodput".to_owned(), said));
    }
    let failures = report.failures.iter();
    rows.extend(failures.map(|(kind, failure)| {
        (format!("failed: {kind}"), format!("{}, first: {}", failure.count, failure.first.trim()))
    }));
    columns(&rows.into_iter().map(|(name, said)| vec![name, said]).collect::<Vec<_>>())
}

fn outcome(report: &Report) -> String {
    let requests = &report.requests;
    let rest =
        [(requests.failed, "failed"), (requests.unfinished, "unfinished"), (requests.unsent, "never sent")];
    let rest = rest.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(", {count} {what}"));
    format!("{} answered{}", requests.answered, rest.collect::<String>())
}

fn listed<K: AsRef<str>>(counts: &std::collections::BTreeMap<K, u64>) -> String {
    let known = counts.iter().filter(|(_, count)| **count > 0);
    let listed: Vec<_> = known.map(|(name, count)| format!("{} {count}", name.as_ref())).collect();
    if listed.is_empty() { "-".to_owned() } else { listed.join(", ") }
}

/// What makes these figures worth less than they look.
pub(super) fn remarks(report: &Report) -> Vec<String> {
    let mut remarks = Vec::new();
    if report.setup.debug_build {
        remarks.push("refrain was built without --release: its times say little".to_owned());
    }
    if let Some(cpu) = report.client_cpu.filter(|cpu| *cpu > CLIENT_CPU_HIGH) {
        remarks
            .push(format!("refrain bench itself took {:.0} % of a core: it may be the limit", cpu * 100.0));
    }
    let requests = &report.requests;
    let lost = requests.failed + requests.unfinished + requests.unsent;
    if lost > 0 {
        remarks.push(format!(
            "{lost} of {} requests have no answer: the times are those of the others, and would be longer with them",
            requests.due
        ));
    }
    if report.late_ms.p99 > LATE_HIGH_MS {
        remarks.push(
            "requests were sent late: the server was too slow for --in-flight, or this machine too busy"
                .to_owned(),
        );
    }
    let by_chunks = report.tokens.answers_counted_by_chunks;
    if by_chunks > 0 {
        remarks.push(format!("{by_chunks} answers came without usage: their chunks were counted as tokens"));
    }
    let length = report.finish.get("length").copied().unwrap_or_default();
    if length > 0 && report.cache.served.get("unknown") != Some(&report.requests.answered) {
        remarks.push(format!("{length} answers were cut by their length: such are never stored"));
    }
    remarks
}
