//! Debian packages, where a step can't be done without: only for root, and only if asked for by a step.

use std::process::Command;

use anyhow::{Result, bail};

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
