//! nginx and wrk, which `cargo xtask bench` measures with: from the system, else by apt-get, for root.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::apt;
use super::site::Site;
use crate::command;
use crate::manifest::Manifest;

const PROGRAMS: [&str; 2] = ["nginx", "wrk"];

pub(super) fn inputs() -> String {
    format!("{:?}", PROGRAMS.map(location))
}

pub(super) fn prepare(site: &Site) -> Result<Vec<PathBuf>> {
    let missing: Vec<_> = PROGRAMS.into_iter().filter(|program| location(program).is_none()).collect();
    if !missing.is_empty() {
        apt::install(site, &missing)?;
    }
    PROGRAMS.into_iter().map(|program| location(program).with_context(|| format!("no {program}"))).collect()
}

pub(super) fn describe(manifest: &mut Manifest) {
    manifest.nginx = location("nginx");
    manifest.wrk = location("wrk");
}

fn location(program: &str) -> Option<PathBuf> {
    command::find_on_path(program).or_else(|| {
        // Where Debian puts nginx, and a user's PATH does not look.
        Some(PathBuf::from("/usr/sbin").join(program)).filter(|file| file.is_file())
    })
}
