//! cargo-nextest: the one on PATH, else our own build of it in the set-up folder.

use std::path::PathBuf;

use anyhow::Result;

use super::site::Site;
use crate::command;
use crate::manifest::Manifest;

const VERSION: &str = "0.9.143";
const PROGRAM: &str = "cargo-nextest";

pub(super) fn inputs() -> String {
    match command::find_on_path(PROGRAM) {
        Some(found) => format!("on PATH: {}", found.display()),
        None => VERSION.into(),
    }
}

pub(super) fn prepare(site: &Site) -> Result<Vec<PathBuf>> {
    if command::find_on_path(PROGRAM).is_none() {
        let mut cargo = command::cargo();
        cargo.args(["install", PROGRAM, "--locked", "--version", VERSION, "--root"]);
        command::logged(cargo.arg(site.dir.join("tools")), &site.log())?;
    }
    Ok(vec![location(site)])
}

pub(super) fn describe(site: &Site, manifest: &mut Manifest) {
    manifest.nextest = Some(location(site));
}

fn location(site: &Site) -> PathBuf {
    command::find_on_path(PROGRAM).unwrap_or_else(|| site.dir.join("tools/bin").join(PROGRAM))
}
