//! `cargo xtask lint`: everything that can be judged without running the product.
//!
//! All checks run even if one fails, so that one look shows all there is to do.

mod dependencies;
mod directions;
mod metadata;
mod policy_reference;
mod schema;

use anyhow::{Result, bail};

use crate::command;
use metadata::Metadata;

pub(crate) use policy_reference::regenerate as regenerate_policy_reference;
pub(crate) use schema::regenerate as regenerate_schema;

type Check = fn() -> Result<()>;

/// From the quickest to the slowest.
const CHECKS: [(&str, Check); 6] = [
    ("format", format),
    ("crate dependency directions", check_directions),
    ("licenses and sources of dependencies", check_dependencies),
    ("config schema", schema::check),
    ("policy reference", policy_reference::check),
    ("clippy", clippy),
];

/// Runs every check and fails naming those that failed.
pub(crate) fn run() -> Result<()> {
    let mut failed = Vec::new();
    for (title, check) in CHECKS {
        println!("lint: {title}");
        if let Err(error) = check() {
            eprintln!("error: {title}: {error:#}");
            failed.push(title);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// `cargo xtask check-deps`: which crate of ours uses which.
pub(crate) fn check_directions() -> Result<()> {
    report(directions::violations(&Metadata::of_workspace()?))
}

fn check_dependencies() -> Result<()> {
    report(dependencies::violations(&Metadata::of_everything()?))
}

fn format() -> Result<()> {
    command::run(command::cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    command::run(command::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn report(violations: Vec<String>) -> Result<()> {
    if violations.is_empty() {
        return Ok(());
    }
    bail!("\n  {}", violations.join("\n  "))
}
