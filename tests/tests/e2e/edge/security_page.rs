//! SECURITY.md promises nothing without a test: every line of its threat model names one, and every one that it names is there.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The rows of all tables of a section, as cells.
fn rows<'a>(page: &'a str, section: &str) -> Vec<Vec<&'a str>> {
    let from = page.find(section).unwrap_or_else(|| panic!("no {section:?}"));
    let body = &page[from + section.len()..];
    let body = body.find("\n## ").map_or(body, |end| &body[..end]);
    let lines = body.lines().filter(|line| line.starts_with('|'));
    let cells = lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    cells.filter(|cells| !cells[0].starts_with("---") && cells[1] != "held by").collect()
}

/// What stands in backticks.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_line_of_the_threat_model_has_its_test() {
    let page = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let rows = rows(&page, "\n## Threat model");
    assert!(rows.len() > 30, "{} rows", rows.len());
    for row in rows {
        let tests: Vec<&str> = code(row[2]).collect();
        assert!(!tests.is_empty(), "no test: {row:?}");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{test:?} is no FILE::TEST"));
            let text =
                fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            let at = text.find(&format!("fn {name}(")).unwrap_or_else(|| panic!("{file} has no {name}"));
            let attributes = text[..at].rsplit("\n\n").next().unwrap();
            assert!(attributes.contains("test"), "{test} is no test: {attributes}");
        }
    }
}

#[test]
fn each_party_has_its_section() {
    let page = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    for party in
        ["A plugin", "A tenant or user", "An upstream", "A neighbour in Redis", "The network", "The host"]
    {
        assert!(!rows(&page, &format!("\n### {party}")).is_empty(), "{party}");
    }
}
