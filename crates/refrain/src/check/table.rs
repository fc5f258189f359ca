//! Findings as a table for people.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Failed, Finding, Well};

const HEAD: [&str; 5] = ["NAME", "WHAT", "RESULT", "LATENCY", "HINT"];

/// One row a finding; columns as wide as their widest cell.
pub(super) fn render(findings: &[Finding]) -> String {
    let rows: Vec<[String; 5]> =
        std::iter::once(HEAD.map(str::to_owned)).chain(findings.iter().map(cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 4] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a `String` can't fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        line.push_str(&row[4]);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
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
