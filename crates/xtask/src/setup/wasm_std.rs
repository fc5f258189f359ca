//! Rust's standard library for `wasm32-unknown-unknown`, for policies in Rust.
//!
//! rustup's where rustup can fetch it. Else Debian's compiler with its own library sources, beside rustup's: `refrain plugin
//! build` compiles the library with it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::apt;
use super::site::Site;
use crate::command;

const TARGET: &str = "wasm32-unknown-unknown";
const DEBIAN_PACKAGES: [&str; 3] = ["rust-web-src", "rustc-web", "cargo-web"];
const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";

/// Where it is belongs to the machine, not to the set-up folder.
pub(super) fn inputs() -> String {
    format!("{:?}", location())
}

pub(super) fn prepare(site: &Site) -> Result<Vec<PathBuf>> {
    if location().is_none() && !add_target(site) {
        apt::install(site, &DEBIAN_PACKAGES)
            .with_context(|| format!("rustup can't add {TARGET}, and Debian's compiler isn't there"))?;
    }
    Ok(vec![location().with_context(|| format!("no standard library for {TARGET}"))?])
}

/// A file of the library, compiled or as sources.
fn location() -> Option<PathBuf> {
    let debian = Some(PathBuf::from(DEBIAN_SOURCES)).filter(|sources| sources.is_file());
    installed().or(debian)
}

fn installed() -> Option<PathBuf> {
    let rustc = Command::new("rustc")
        .current_dir(crate::workspace::root())
        .args(["--print", "target-libdir", "--target", TARGET])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let dir = String::from_utf8(rustc.stdout).ok()?;
    let files = Path::new(dir.trim_end()).read_dir().ok()?;
    let core =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libcore-"));
    files.flatten().map(|entry| entry.path()).find(core)
}

fn add_target(site: &Site) -> bool {
    let mut rustup = Command::new("rustup");
    rustup.current_dir(crate::workspace::root()).args(["target", "add", TARGET]);
    command::logged(&mut rustup, &site.log()).is_ok()
}
