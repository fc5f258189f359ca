//! nginx and wrk, which `cargo xtask bench` measures with: from the system, else by apt-get, for root.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

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
        apt_install(site, &missing)?;
    }
    PROGRAMS.into_iter().map(|program| location(program).with_context(|| format!("no {program}"))).collect()
}

pub(super) fn describe(manifest: &mut Manifest) {
    manifest.nginx = location("nginx");
    manifest.wrk = location("wrk");
}

fn apt_install(site: &Site, packages: &[&str]) -> Result<()> {
    let apt = command::find_on_path("apt-get");
    let (Some(apt), true) = (apt, rustix::process::geteuid().is_root()) else {
        bail!("install {} yourself: that takes root and a package manager", packages.join(" and "));
    };
    command::logged(Command::new(&apt).args(["update", "-qq"]), &site.log())?;
    let mut install = Command::new(&apt);
    install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages);
    // In run level 1 Debian's packages start no service.
    command::logged(install.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1"), &site.log())
}

fn location(program: &str) -> Option<PathBuf> {
    command::find_on_path(program).or_else(|| {
        // Where Debian puts nginx, and a user's PATH does not look.
        Some(PathBuf::from("/usr/sbin").join(program)).filter(|file| file.is_file())
    })
}
