//! The documentation tells the truth: its commands parse, its configuration loads.
#![expect(clippy::panic, reason = "a test fails by it")]

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use clap::error::ErrorKind;

const PAGES: [&str; 4] = ["README.md", "docs/operations.md", "docs/architecture.md", "docs/plugins.md"];
const XTASKS: [&str; 7] = ["run", "test", "setup", "lint", "check-deps", "schema", "bench"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The contents of fenced blocks of one language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// Everything that looks like a command: lines of shell blocks, and code within the text.
fn commands(page: &str) -> Vec<String> {
    let lines = blocks(page, "sh").into_iter().flat_map(str::lines).map(str::to_owned);
    let inline = page.split('`').skip(1).step_by(2).map(str::to_owned);
    let all = lines.chain(inline).map(|text| text.split("  #").next().unwrap_or_default().trim().to_owned());
    all.filter(|text| !text.contains('\n')).collect()
}

/// Whether a shell block has this command.
fn is_line(page: &str, command: &str) -> bool {
    let mut lines = blocks(page, "sh").into_iter().flat_map(str::lines);
    lines.any(|line| line.split("  #").next().unwrap_or_default().trim() == command)
}

#[test]
fn every_refrain_command_in_the_docs_parses() {
    let mut seen = 0;
    for name in PAGES {
        for command in commands(&page(name)) {
            let words: Vec<&str> = command.split_whitespace().map(|word| word.trim_matches('\'')).collect();
            let is_ours =
                words.first().is_some_and(|first| *first == "refrain" || first.ends_with("/refrain"));
            // A word of the text, such as `refrain` itself or a value of `Cache-Status`, is no command.
            if !is_ours || words.len() < 2 || words[1].ends_with(';') || command.contains("; ") {
                continue;
            }
            seen += 1;
            match refrain::Cli::try_parse_from(&words) {
                Ok(_) => {}
                // The text names a command without what it is to work on.
                Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
                    assert!(!is_line(&page(name), &command), "{name}: `{command}`: {error}");
                }
                Err(error) => panic!("{name}: `{command}`: {error}"),
            }
        }
    }
    assert!(seen >= 3, "only {seen} commands were found");
}

#[test]
fn every_developer_command_in_the_docs_exists() {
    let mut seen = 0;
    for name in PAGES {
        for command in commands(&page(name)) {
            if let Some(rest) = command.strip_prefix("cargo xtask ") {
                let task = rest.split_whitespace().next().unwrap_or_default();
                assert!(XTASKS.contains(&task), "{name}: `{command}`");
                seen += 1;
            }
        }
    }
    assert!(seen >= 3, "only {seen} commands were found");
}

#[test]
fn every_configuration_in_the_docs_loads() {
    let mut seen = 0;
    for name in PAGES {
        for text in blocks(&page(name), "toml") {
            let source = refrain_config::Source::from_text(root().join(name), text, []);
            if let Err(errors) = refrain_config::load(&source) {
                panic!("{errors}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 1, "no configuration was found");
}

#[test]
fn every_file_that_the_docs_link_to_is_there() {
    for name in PAGES {
        let text = page(name);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            // Nothing is left of a link within the page.
            if !target.contains("://") && !target.is_empty() {
                let path = root().join(name).parent().unwrap().join(target);
                assert!(path.exists(), "{name}: {target}");
            }
        }
    }
}
