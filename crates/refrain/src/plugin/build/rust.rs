//! Rust: cargo for `wasm32-unknown-unknown`, then wasm-tools.
//!
//! Where rustup can't fetch that target, Debian's compiler, which installs beside rustup's, compiles the standard library
//! from its own sources.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::tool::{Tool, on_path};
use super::{Project, Steps};

const TARGET: &str = "wasm32-unknown-unknown";
const DEBIAN_BIN: &str = "/usr/bin";
const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";

pub(super) fn build(project: &Project, component: &Path) -> Result<()> {
    let mut componentize = Tool::WasmTools.command()?;
    let mut cargo = Toolchain::find(&project.dir)?.cargo()?;
    cargo.current_dir(&project.dir).args([
        "build",
        "--release",
        "--target",
        TARGET,
        "--message-format",
        "json-render-diagnostics",
    ]);
    let mut steps = Steps::of(2);
    let messages = steps.run_shown("cargo build", &mut cargo)?;
    let module = module(&messages, &project.dir.join("Cargo.toml")).with_context(
        || "cargo built no WebAssembly: Cargo.toml needs `[lib]` with `crate-type = [\"cdylib\"]`",
    )?;
    componentize.args(["component", "new"]).arg(module).arg("--output").arg(component);
    steps.run("wasm-tools component new", &mut componentize)
}

/// Who has a standard library for the target.
enum Toolchain {
    /// The one on PATH.
    Installed,
    /// Debian's, which makes one, with the linker of the one on PATH.
    Debian { linker_dir: PathBuf },
}

impl Toolchain {
    fn find(dir: &Path) -> Result<Self> {
        if has_target(dir) {
            return Ok(Self::Installed);
        }
        let debian = ["cargo", "rustc"].iter().all(|program| Path::new(DEBIAN_BIN).join(program).is_file());
        if !debian || !Path::new(DEBIAN_SOURCES).is_file() {
            bail!(
                "Rust has no standard library for {TARGET}: `rustup target add {TARGET}`; where rustup can't fetch it, on \
                 Debian: `apt-get install --no-install-recommends rust-web-src rustc-web cargo-web`"
            );
        }
        let linker_dir = linker_dir(dir).context("no rust-lld: rustup's Rust has it, so install that too")?;
        Ok(Self::Debian { linker_dir })
    }

    fn cargo(self) -> Result<Command> {
        let Self::Debian { linker_dir } = self else { return Ok(Command::new("cargo")) };
        let bin = Path::new(DEBIAN_BIN);
        let mut cargo = Command::new(bin.join("cargo"));
        cargo
            .env("PATH", path_with(linker_dir)?)
            .env("RUSTC", bin.join("rustc"))
            .env("RUSTDOC", bin.join("rustdoc"))
            // What builds a standard library is no stable feature of cargo.
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["-Z", "build-std=std,panic_abort"]);
        Ok(cargo)
    }
}

fn has_target(dir: &Path) -> bool {
    let library = ask_rustc(dir, &["--print", "target-libdir", "--target", TARGET]);
    library.is_some_and(|library| Path::new(&library).is_dir())
}

fn linker_dir(dir: &Path) -> Option<PathBuf> {
    let version = ask_rustc(dir, &["--version", "--verbose"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "))?;
    let sysroot = PathBuf::from(ask_rustc(dir, &["--print", "sysroot"])?);
    let own = sysroot.join("lib/rustlib").join(host).join("bin");
    if own.join("rust-lld").is_file() {
        return Some(own);
    }
    on_path("rust-lld")?.parent().map(Path::to_owned)
}

fn ask_rustc(dir: &Path, question: &[&str]) -> Option<String> {
    let output = Command::new("rustc").current_dir(dir).args(question).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| answer.trim_end().to_owned())
}

fn path_with(first: PathBuf) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths(std::iter::once(first).chain(env::split_paths(&path)))?)
}

/// The module that cargo says it built of this package.
fn module(messages: &str, manifest: &Path) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut own = messages.filter(|message| {
        message["reason"] == "compiler-artifact"
            && message["manifest_path"].as_str().map(Path::new) == Some(manifest)
    });
    own.find_map(|message| {
        let files = message["filenames"].as_array()?.iter().filter_map(|file| file.as_str());
        files.map(PathBuf::from).find(|file| file.extension().is_some_and(|extension| extension == "wasm"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_own_module_is_found_among_cargos_messages() {
        let artifact = |manifest: &str, files: &str| {
            format!(r#"{{"reason":"compiler-artifact","manifest_path":"{manifest}","filenames":[{files}]}}"#)
        };
        let messages = [
            artifact("/a/dependency/Cargo.toml", r#""/t/dependency.wasm""#),
            "not JSON".to_owned(),
            artifact("/a/Cargo.toml", r#""/t/libpolicy.rlib", "/t/policy.wasm""#),
        ];
        let found = module(&messages.join("\n"), Path::new("/a/Cargo.toml"));
        assert_eq!(found, Some(PathBuf::from("/t/policy.wasm")));
        assert_eq!(module(&messages[..2].join("\n"), Path::new("/a/Cargo.toml")), None, "no cdylib");
    }
}
