//! Debian packages, where a step can't be done without: installed only for root, and only if asked for by a step, or unpacked
//! beside the system.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::site::Site;
use crate::command;

/// Installs packages, or says that one must do it oneself.
pub(super) fn install(site: &Site, packages: &[&str]) -> Result<()> {
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

/// Downloads packages and unpacks them under a folder; nothing is installed. Anybody may, where root once updated apt's lists.
pub(super) fn unpack(site: &Site, packages: &[&str], root: &Path) -> Result<()> {
    let Some(apt) = command::find_on_path("apt-get") else {
        bail!("no apt-get to download {} with: this takes Debian or Ubuntu", packages.join(", "));
    };
    if rustix::process::geteuid().is_root() {
        command::logged(Command::new(&apt).args(["update", "-qq"]), &site.log())?;
    }
    let archives = site.staging("debian-archives")?;
    command::logged(
        Command::new(&apt).args(["download", "-q"]).args(packages).current_dir(&archives),
        &site.log(),
    )
    .context("`apt-get update`, as root, may help")?;
    for entry in fs::read_dir(&archives)? {
        let archive = entry?.path();
        command::logged(Command::new("dpkg").arg("-x").arg(&archive).arg(root), &site.log())?;
    }
    Ok(())
}
