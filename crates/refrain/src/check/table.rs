//! Findings as a table for people.

use std::time::Duration;

use super::{Failed, Finding, Well};
use crate::columns::columns;

const HEAD: [&str; 5] = ["NAME", "WHAT", "RESULT", "LATENCY", "HINT"];

/// One row a finding.
pub(super) fn render(findings: &[Finding]) -> String {
    let rows = std::iter::once(HEAD.map(str::to_owned)).chain(findings.iter().map(cells));
    columns(&rows.map(Vec::from).collect::<Vec<_>>())
}

fn cells(finding: &Finding) -> [String; 5] {
    let Finding { name, what, result } = finding;
    let (word, latency, hint) = match result {
        Ok(Well { latency, note }) => ("ok", latency.map(milliseconds).unwrap_or_default(), note.clone()),
        Err(Failed { hint }) => ("FAILED", String::new(), hint.clone()),
    };
    [name.clone(), what.clone(), word.to_owned(), latency, hint]
}

fn milliseconds(latency: Duration) -> String {
    format!("{:.1} ms", latency.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_failures_stand_out() {
        let well = Ok(Well { latency: Some(Duration::from_micros(1500)), note: String::new() });
        let findings = [
            Finding { name: "pool.gpu".into(), what: "GET /v1/models".into(), result: well },
            Finding {
                name: "store".into(),
                what: "write".into(),
                result: Err(Failed { hint: "chmod".into() }),
            },
        ];
        let expected = "NAME      WHAT            RESULT  LATENCY  HINT\n\
                        pool.gpu  GET /v1/models  ok      1.5 ms\n\
                        store     write           FAILED           chmod\n";
        assert_eq!(render(&findings), expected);
    }
}
