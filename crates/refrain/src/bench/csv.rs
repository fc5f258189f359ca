//! The results as a line of CSV, the same columns for every measurement.

use super::report::{Report, Spread};

/// Names and values, in order.
pub(super) fn cells(report: &Report) -> Vec<(String, String)> {
    let setup = &report.setup;
    let requests = &report.requests;
    let mut cells: Vec<(String, String)> = [
        ("started", setup.started.clone()),
        ("version", setup.version.to_owned()),
        ("model", setup.model.clone()),
        ("workload", setup.workload.to_owned()),
        ("seed", setup.seed.to_string()),
        ("load", setup.load.clone()),
        ("seconds", report.seconds.to_string()),
        ("due", requests.due.to_string()),
        ("answered", requests.answered.to_string()),
        ("failed", requests.failed.to_string()),
        ("unfinished", requests.unfinished.to_string()),
        ("unsent", requests.unsent.to_string()),
        ("answered_per_second", requests.per_second.to_string()),
        ("output_tokens", report.tokens.output.to_string()),
        ("output_tokens_generated", report.tokens.output_generated.to_string()),
        ("output_tokens_per_second", report.tokens.output_per_second.to_string()),
        ("prompt_tokens", report.tokens.prompt.to_string()),
        ("prompt_tokens_cached_upstream", report.tokens.prompt_cached_upstream.to_string()),
        ("hit_share", report.cache.hit_share.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    cells.extend(
        report.cache.served.iter().map(|(name, count)| (format!("served_{name}"), count.to_string())),
    );
    let spreads = [
        ("ttft_ms", &report.ttft_ms),
        ("gap_ms", &report.gap_ms),
        ("e2e_ms", &report.e2e_ms),
        ("late_ms", &report.late_ms),
        ("cached_e2e_ms", &report.cached.e2e_ms),
        ("generated_e2e_ms", &report.generated.e2e_ms),
    ];
    cells.extend(spreads.iter().flat_map(|(name, spread)| of_spread(name, spread)));
    let goodput = report.goodput.as_ref();
    let value = |number: Option<f64>| number.map(|number| number.to_string()).unwrap_or_default();
    let objective = goodput.map(|goodput| goodput.objective.clone()).unwrap_or_default();
    cells.push(("objective".to_owned(), objective));
    cells.push(("goodput_share".to_owned(), value(goodput.map(|goodput| goodput.share))));
    cells.push(("goodput_per_second".to_owned(), value(goodput.map(|goodput| goodput.per_second))));
    cells
}

fn of_spread(name: &str, spread: &Spread) -> [(String, String); 4] {
    let named = [("p50", spread.p50), ("p95", spread.p95), ("p99", spread.p99), ("max", spread.max)];
    named.map(|(which, value)| (format!("{name}_{which}"), value.to_string()))
}

/// A header and a line for each row; all rows have the same names.
pub(super) fn lines(rows: &[Vec<(String, String)>]) -> String {
    let line = |cells: Vec<String>| cells.join(",") + "\r\n";
    let header = rows.first().map(|row| line(row.iter().map(|(name, _)| quoted(name)).collect()));
    let body = rows.iter().map(|row| line(row.iter().map(|(_, value)| quoted(value)).collect()));
    header.into_iter().chain(body).collect()
}

/// RFC 4180: what has a comma, a quote or a line's end is put in quotes.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_and_quotes_are_quoted() {
        let row = |value: &str| vec![("a".to_owned(), value.to_owned()), ("b,c".to_owned(), "1".to_owned())];
        assert_eq!(lines(&[row("x\"y"), row("z")]), "a,\"b,c\"\r\n\"x\"\"y\",1\r\nz,1\r\n");
    }
}
