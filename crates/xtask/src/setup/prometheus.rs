//! Prometheus and promtool, by which tests run each query of the dashboard and each rule: Debian's, unpacked beside the system.
//! No service is started.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::apt;
use super::site::Site;
use crate::command;
use crate::manifest::Manifest;

/// Unpinned: Debian takes versions away when it fixes them; apt checks its signatures.
const PACKAGE: &str = "prometheus";
const DIR: &str = "prometheus";
/// Programs of Go, which need no library but libc.
const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];
const VERSION: &str = "version 2.";

pub(super) fn inputs() -> String {
    format!("{PACKAGE}{PROGRAMS:?}{VERSION}")
}

pub(super) fn prepare(site: &Site) -> Result<Vec<PathBuf>> {
    let root = site.staging("prometheus-debian")?;
    apt::unpack(site, &[PACKAGE], &root)?;
    let staged = site.staging(DIR)?;
    for program in PROGRAMS {
        let from = root.join("usr/bin").join(program);
        fs::copy(&from, staged.join(program)).with_context(|| format!("no {}", from.display()))?;
    }
    fs::copy(root.join("usr/share/doc/prometheus/copyright"), staged.join("copyright"))?;
    let dir = site.install(&staged, DIR)?;
    let version = command::stdout(Command::new(dir.join(PROGRAMS[0])).arg("--version"))?;
    if !version.contains(VERSION) {
        bail!("prometheus has another version than 2: {version}");
    }
    Ok(PROGRAMS.map(|program| dir.join(program)).to_vec())
}

pub(super) fn describe(site: &Site, manifest: &mut Manifest) {
    let [prometheus, promtool] = PROGRAMS.map(|program| Some(site.dir.join(DIR).join(program)));
    (manifest.prometheus, manifest.promtool) = (prometheus, promtool);
}
