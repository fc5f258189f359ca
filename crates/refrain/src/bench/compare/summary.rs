//! What the rounds of each set-up come to: medians, and the range between the rounds.

use super::chart::{Chart, Series, figure};
use super::proxy::Usage;
use crate::bench::report::Report;

/// The kernel counts CPU time in steps of 10 ms: less than this is mostly rounding.
const CPU_US_TELLING_MIN: f64 = 200_000.0;

/// One measurement.
pub(super) struct Row {
    pub(super) arm: &'static str,
    /// From 0.
    pub(super) round: usize,
    pub(super) report: Report,
    /// Of each proxy; none where the system doesn't tell.
    pub(super) used: Option<Vec<Usage>>,
}

/// Median, least and greatest.
pub(super) type Range = [f64; 3];

/// A line of the report's table: what it is, and its value in a measurement.
pub(super) struct Figure {
    pub(super) name: &'static str,
    value: fn(&Row) -> Option<f64>,
}

/// What the report shows, in order.
pub(super) const FIGURES: [Figure; 15] = [
    Figure { name: "answered per second", value: |row| Some(row.report.requests.per_second) },
    Figure { name: "output tokens per second", value: |row| Some(row.report.tokens.output_per_second) },
    Figure { name: "time to first token, p50, ms", value: |row| row.report.ttft_ms.known(50.0) },
    Figure { name: "time to first token, p95, ms", value: |row| row.report.ttft_ms.known(95.0) },
    Figure { name: "time to first token, p99, ms", value: |row| row.report.ttft_ms.known(99.0) },
    Figure { name: "end to end, p50, ms", value: |row| row.report.e2e_ms.known(50.0) },
    Figure { name: "end to end, p95, ms", value: |row| row.report.e2e_ms.known(95.0) },
    Figure { name: "gap between chunks, p99, ms", value: |row| row.report.gap_ms.known(99.0) },
    Figure { name: "hits or joined, %", value: |row| Some(row.report.cache.hit_share * 100.0) },
    Figure {
        name: "output tokens generated, of 100 delivered",
        value: |row| share(row.report.tokens.output_generated, row.report.tokens.output),
    },
    Figure {
        name: "prompt tokens from the upstream's prefix cache",
        value: |row| Some(float(row.report.tokens.prompt_cached_upstream)),
    },
    Figure {
        name: "good, % (the objective)",
        value: |row| row.report.goodput.as_ref().map(|goodput| goodput.share * 100.0),
    },
    Figure {
        name: "failed, unfinished or never sent",
        value: |row| Some(float(row.report.requests.due - row.report.requests.answered)),
    },
    Figure { name: "CPU of the proxies, us a request", value: Row::cpu_us },
    Figure { name: "memory of a proxy at most, MiB", value: Row::memory_mib },
];

impl Figure {
    /// Over the rounds of a set-up; none where nothing was measured.
    pub(super) fn over_rounds(&self, arm: &str, rows: &[Row]) -> Option<Range> {
        let mut values: Vec<f64> = rows.iter().filter(|row| row.arm == arm).filter_map(self.value).collect();
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (values.first()?, values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some([f64::midpoint(low, high), *least, *greatest])
    }
}

impl Row {
    /// For the CSV: which measurement, what the proxies took, and its results.
    pub(super) fn cells(&self, results: Vec<(String, String)>) -> Vec<(String, String)> {
        let value = |number: Option<f64>| number.map(figure).unwrap_or_default();
        let own = [
            ("setup", self.arm.to_owned()),
            ("round", (self.round + 1).to_string()),
            ("proxy_cpu_us_per_request", value(self.cpu_us())),
            ("proxy_memory_mib_max", value(self.memory_mib())),
        ];
        own.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(results).collect()
    }

    fn cpu_us(&self) -> Option<f64> {
        let micros: f64 = self.used.as_ref()?.iter().map(|used| used.cpu.as_secs_f64() * 1e6).sum();
        if micros < CPU_US_TELLING_MIN {
            return None;
        }
        let requests = &self.report.requests;
        let asked = requests.answered + requests.failed + requests.warm_up;
        (asked > 0).then(|| micros / float(asked))
    }

    fn memory_mib(&self) -> Option<f64> {
        self.used.as_ref()?.iter().map(|used| used.memory_kib).max().map(|kib| float(kib) / 1024.0)
    }
}

/// A chart without the names of its set-ups.
pub(super) struct Drawing {
    title: &'static str,
    unit: &'static str,
    series: Vec<Series>,
}

impl Drawing {
    pub(super) fn write(&self, names: &[&str], file: &std::path::Path) -> anyhow::Result<()> {
        Chart { title: self.title, unit: self.unit, names, series: &self.series }.write(file)
    }
}

/// Which latency the chart shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Latency {
    /// To the first token.
    FirstToken,
    /// To the end: nothing was streamed.
    Whole,
}

/// Which latency there is to be shown.
pub(super) fn latency_chart(rows: &[Row]) -> Latency {
    let is_streamed = rows.iter().any(|row| row.report.ttft_ms.count > 0);
    if is_streamed { Latency::FirstToken } else { Latency::Whole }
}

/// The report's charts and their files.
pub(super) fn charts(arms: &[&str], rows: &[Row]) -> [(&'static str, Drawing); 2] {
    let series = |name, value| {
        let figure = Figure { name, value };
        Series { name, values: arms.iter().map(|arm| figure.over_rounds(arm, rows)).collect() }
    };
    let (file, latency, title) = match latency_chart(rows) {
        Latency::FirstToken => {
            let p50 = series("p50", |row: &Row| row.report.ttft_ms.known(50.0));
            let p95 = series("p95", |row: &Row| row.report.ttft_ms.known(95.0));
            ("ttft.svg", vec![p50, p95], "Time to first token (less is better)")
        }
        Latency::Whole => {
            let p50 = series("p50", |row: &Row| row.report.e2e_ms.known(50.0));
            let p95 = series("p95", |row: &Row| row.report.e2e_ms.known(95.0));
            ("e2e.svg", vec![p50, p95], "End to end (less is better)")
        }
    };
    let throughput = vec![series("tokens", |row: &Row| Some(row.report.tokens.output_per_second))];
    [
        (file, Drawing { title, unit: "milliseconds", series: latency }),
        (
            "throughput.svg",
            Drawing {
                title: "Output tokens per second (more is better)",
                unit: "tokens / s",
                series: throughput,
            },
        ),
    ]
}

fn share(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| float(part) * 100.0 / float(of))
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}
