//! What must be there before set-up begins: a platform with prebuilt packages, a C compiler, pip, disk space.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::site::Site;
use crate::command;

/// Measured peak with all steps, staging included, and some air for the build.
const FREE_BYTES_MIN: u64 = 3 << 30;

/// Fails with what to do about the first thing that is missing.
pub(super) fn check(site: &Site) -> Result<()> {
    check_platform()?;
    check_compiler()?;
    check_pip(site)?;
    check_space(&site.dir)
}

fn check_platform() -> Result<()> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    if (os, arch) != ("linux", "x86_64") {
        bail!(
            "the pinned packages (ONNX Runtime, llama-server) are for Linux on x86_64, this is {os} on {arch}"
        );
    }
    Ok(())
}

fn check_compiler() -> Result<()> {
    if command::find_on_path("cc").is_none() {
        bail!("no C compiler (`cc`) on PATH: install one, on Debian with `apt-get install gcc libc6-dev`");
    }
    Ok(())
}

fn check_pip(site: &Site) -> Result<()> {
    let python = &site.python.executable;
    let found = Command::new(python)
        .args(["-m", "pip", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        bail!("{} has no pip: install it, on Debian with `apt-get install python3-pip`", python.display());
    }
    Ok(())
}

fn check_space(dir: &Path) -> Result<()> {
    let stat =
        rustix::fs::statvfs(dir).with_context(|| format!("no free space known of {}", dir.display()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < FREE_BYTES_MIN {
        bail!(
            "{} has {} MiB free, set-up needs {}: make room, or name another folder in {}",
            dir.display(),
            free >> 20,
            FREE_BYTES_MIN >> 20,
            crate::workspace::SETUP_DIR_ENV
        );
    }
    Ok(())
}
