//! The report as Markdown: the figures, and all that one needs to know to believe or to repeat them.

use std::fmt::Write as _;

use super::chart::figure;
use super::machine::Machine;
use super::summary::{FIGURES, Latency, Range, Row, latency_chart};
use crate::cli::{CompareArguments, LoadArguments, WorkloadKind};

/// The whole page.
pub(super) fn report(
    arguments: &CompareArguments,
    load: &LoadArguments,
    names: &[&str],
    rows: &[Row],
    left_out: &[&str],
    machine: &Machine,
) -> String {
    let asking = &arguments.asking;
    let rounds = rows.iter().map(|row| row.round + 1).max().unwrap_or_default();
    let mut page = format!(
        "# Comparison: {} on `{}`\n\n{}\n\
         Medians of {rounds} rounds, with the least and the greatest. [All measurements](results.csv).\n\n\
         {}\n\n![throughput](throughput.svg)\n",
        arguments.workload.workload.as_str(),
        asking.model.as_deref().unwrap_or_default().replace('`', "'"),
        table(names, rows),
        match latency_chart(rows) {
            Latency::FirstToken => "![time to first token](ttft.svg)",
            Latency::Whole => "![end to end](e2e.svg)",
        }
    );
    // Writing to a `String` can't fail.
    let _ = write!(page, "\n## Left out\n\n{}", list(left_out.iter().map(ToString::to_string)));
    let _ = write!(page, "\n## Machine\n\n{}", list(facts(machine)));
    let _ = write!(page, "\n## Method\n\n{}", list(method(arguments, load, rows)));
    let _ = write!(page, "\n## What to keep in mind\n\n{}", list(notes(arguments, rows)));
    page
}

/// The figures, a line each and a column a set-up.
pub(super) fn table(names: &[&str], rows: &[Row]) -> String {
    let mut table = format!("| | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for figure in &FIGURES {
        let ranges: Vec<_> = names.iter().map(|name| figure.over_rounds(name, rows)).collect();
        if ranges.iter().any(Option::is_some) {
            let cells: Vec<_> = ranges.into_iter().map(cell).collect();
            let _ = writeln!(table, "| {} | {} |", figure.name, cells.join(" | "));
        }
    }
    table
}

fn cell(range: Option<Range>) -> String {
    match range.map(|range| range.map(figure)) {
        None => "-".to_owned(),
        Some([median, least, greatest]) if least == greatest => median,
        Some([median, least, greatest]) => format!("{median} ({least} - {greatest})"),
    }
}

fn facts(machine: &Machine) -> Vec<String> {
    let Machine { cpu, cores, memory, kernel, load, servers } = machine;
    let own = [
        format!("{cpu}, {cores} cores for this program, {memory} of memory"),
        format!("Linux {kernel}; load average before the start: {load}"),
        format!(
            "refrain {}{}",
            env!("CARGO_PKG_VERSION"),
            if cfg!(debug_assertions) { ", **built without `--release`: its times say little**" } else { "" }
        ),
    ];
    own.into_iter().chain(servers.iter().cloned()).collect()
}

fn method(arguments: &CompareArguments, load: &LoadArguments, rows: &[Row]) -> Vec<String> {
    let setup = rows.first().map(|row| &row.report.setup);
    let upstreams: Vec<_> =
        arguments.upstream.iter().map(|url| url.authority().map_or("", |name| name.as_str())).collect();
    let mut lines = vec![
        format!(
            "proxies of each set-up: {}, child processes on this machine, requests alternate between them; upstreams: {}",
            arguments.proxies,
            upstreams.join(", ")
        ),
        "fresh proxies and an empty store for every measurement; the set-ups take turns, and each round begins with another one"
            .to_owned(),
        "before the first round each upstream was asked once: it may have had to load the model".to_owned(),
        "set-ups without prefix affinity ask the upstreams in turns (`balance = \"round-robin\"`)".to_owned(),
        format!(
            "{}, seed {}{}",
            setup.map_or("", |setup| setup.load.as_str()),
            arguments.workload.seed,
            extent(load)
        ),
        "latency counts from when a request was due; percentiles of HDR histograms, three digits".to_owned(),
    ];
    lines.extend(setup.map(|setup| format!("{} `POST {}`", setup.started, setup.path)));
    lines.push(format!("repeat it:\n\n  ```sh\n  {}\n  ```", command(arguments)));
    lines
}

fn extent(load: &LoadArguments) -> String {
    let requests = load.requests.map(|count| format!(", {count} requests a measurement"));
    let duration = load.duration.map(|time| format!(", for {}", humantime::format_duration(time)));
    [requests, duration].into_iter().flatten().collect()
}

/// The command line, in full but for what may hold a password.
fn command(arguments: &CompareArguments) -> String {
    // Also within a word: --redis=URL.
    let hidden = |word: String| match &arguments.redis {
        Some(url) => word.replace(url.as_str(), "REDIS_URL"),
        None => word,
    };
    let words = std::env::args_os().skip(1).map(|word| hidden(word.to_string_lossy().into_owned()));
    std::iter::once("refrain".to_owned()).chain(words.map(|word| quoted(&word))).collect::<Vec<_>>().join(" ")
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,@%+".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    // Nothing ends the block that it stands in.
    let line: String = word.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    format!("'{}'", line.replace('\'', r"'\''"))
}

fn notes(arguments: &CompareArguments, rows: &[Row]) -> Vec<String> {
    let mut notes = vec![
        "Load generator, proxies and maybe the upstream share this machine: absolute times are higher than over a network of \
         idle machines; compare columns."
            .to_owned(),
    ];
    notes.push(match arguments.workload.workload {
        WorkloadKind::File => {
            "The requests are the file's own, the same words in each measurement: an upstream's prefix cache may know them from \
             the one before."
                .to_owned()
        }
        WorkloadKind::Mooncake => {
            "Arrival times, lengths and shared blocks are recorded, the words are random: answers are not what people got.".to_owned()
        }
        WorkloadKind::Azure => {
            "Arrival times and lengths are recorded, the words are random: no prompt repeats, so there is nothing to hit.".to_owned()
        }
        WorkloadKind::Chat | WorkloadKind::Tools | WorkloadKind::Agents => format!(
            "The workload is synthetic: {} % of its conversations repeat an earlier one word by word. Your share is what decides \
             what a cache is worth; this report only says what follows from that one.",
            arguments.workload.repeat * 100.0
        ),
    });
    let has_hits = rows.iter().any(|row| row.report.cache.hit_share > 0.0);
    if !has_hits {
        notes.push("Nothing was a hit: caches could only cost here.".to_owned());
    }
    let mut seen: Vec<String> =
        rows.iter().flat_map(|row| crate::bench::table::remarks(&row.report)).collect();
    seen.sort();
    seen.dedup();
    notes.extend(seen);
    notes
}

fn list(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| format!("- {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_command_line_are_quoted_where_a_shell_would_read_them_otherwise() {
        let cases = [
            ("--model", "--model"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("", "''"),
        ];
        for (word, expected) in cases {
            assert_eq!(quoted(word), expected);
        }
    }
}
