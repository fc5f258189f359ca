//! `cargo xtask plugins`: every policy in `plugins/` becomes `target/plugins/NAME.wasm`, by `refrain plugin build`.
//!
//! What was built is kept in the set-up folder under a hash of everything that decides it, so that an unchanged policy costs
//! nothing, in CI too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::manifest::{Manifest, require};
use crate::run::{Profile, build as build_refrain};
use crate::setup::{self, sha256};
use crate::{command, workspace};

/// What besides building.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Check each against its cases.toml, too.
    #[arg(long)]
    test: bool,
    /// Build with this binary instead of building one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// Files of a policy's folder that its component doesn't depend on.
const IRRELEVANT: [&str; 5] = ["README.md", "cases.toml", ".gitignore", "target", "__pycache__"];
/// What all policies depend on.
const BUILD_LOGIC: [&str; 2] = ["crates/refrain/src/plugin/build.rs", "crates/refrain/src/plugin/build"];
/// What all policies in Rust depend on.
const RUST_INPUTS: [&str; 3] = ["plugins/Cargo.toml", "plugins/Cargo.lock", "rust-toolchain.toml"];

/// Builds what has changed, and checks all if told so.
pub(crate) fn run(args: &Args) -> Result<()> {
    let plugins = Plugin::all()?;
    if plugins.iter().any(Plugin::is_due) {
        setup::run(&setup::Args::to_build_plugins())?;
    }
    if args.test || plugins.iter().any(Plugin::is_due) {
        let refrain = args.binary.clone().map_or_else(|| build_refrain(Profile::Dev), Ok)?;
        return build_and(&plugins, &refrain, args.test);
    }
    plugins.iter().try_for_each(|plugin| plugin.publish().map(drop))
}

/// Builds what has changed with this binary, and checks all. Set-up must be done.
pub(crate) fn build_and_test(refrain: &Path) -> Result<()> {
    build_and(&Plugin::all()?, refrain, true)
}

/// The component of one policy, built with this binary if it is due.
pub(crate) fn component(name: &str, refrain: &Path) -> Result<PathBuf> {
    let plugin = Plugin::of(name.to_owned(), workspace::root().join("plugins").join(name))?;
    if plugin.is_due() {
        setup::run(&setup::Args::to_build_plugins())?;
        plugin.build(refrain)?;
    }
    plugin.publish()
}

fn build_and(plugins: &[Plugin], refrain: &Path, test: bool) -> Result<()> {
    for plugin in plugins {
        if plugin.is_due() {
            plugin.build(refrain)?;
        }
        let component = plugin.publish()?;
        let cases = plugin.dir.join("cases.toml");
        if test {
            command::run(Command::new(refrain).args(["plugin", "test"]).arg(component).arg(cases))?;
        }
    }
    Ok(())
}

struct Plugin {
    name: String,
    dir: PathBuf,
    /// Of everything that decides the component.
    hash: String,
}

impl Plugin {
    /// By name. A folder that begins with `_` holds something else.
    fn all() -> Result<Vec<Self>> {
        let dirs = entries(&workspace::root().join("plugins"))?.into_iter();
        let dirs = dirs.filter(|dir| dir.join("wit").is_dir());
        let named = dirs.map(|dir| (dir.file_name().unwrap_or_default().to_string_lossy().into_owned(), dir));
        named.filter(|(name, _)| !name.starts_with('_')).map(|(name, dir)| Self::of(name, dir)).collect()
    }

    fn of(name: String, dir: PathBuf) -> Result<Self> {
        let is_rust = dir.join("Cargo.toml").is_file();
        let shared = BUILD_LOGIC.iter().chain(RUST_INPUTS.iter().filter(|_| is_rust));
        let mut facts = setup::plugin_pins();
        for path in shared.map(|path| workspace::root().join(path)).chain([dir.clone()]) {
            add(&path, &mut facts)?;
        }
        Ok(Self { name, dir, hash: sha256(facts.as_bytes()) })
    }

    /// Where it is kept; the name says what it was made of.
    fn kept(&self) -> PathBuf {
        store().join(format!("{}-{}.wasm", self.name, &self.hash[..16]))
    }

    fn is_due(&self) -> bool {
        !self.kept().is_file()
    }

    fn build(&self, refrain: &Path) -> Result<()> {
        println!("plugin: {}", self.name);
        fs::create_dir_all(store())?;
        self.forget_older()?;
        let manifest = Manifest::load(&workspace::setup_dir())?;
        let mut build = Command::new(refrain);
        build.args(["plugin", "build"]).arg(&self.dir).arg("--output").arg(self.kept());
        for (variable, tool) in [
            ("REFRAIN_WASM_TOOLS", &manifest.wasm_tools),
            ("REFRAIN_ZIG", &manifest.zig),
            ("REFRAIN_COMPONENTIZE_PY", &manifest.componentize_py),
            ("REFRAIN_COMPONENTIZE_QJS", &manifest.componentize_qjs),
        ] {
            build.env(variable, require("tool for cache policies", "plugins", tool.as_ref())?);
        }
        // All policies in Rust share one standard library, and CI keeps it.
        build.env("CARGO_TARGET_DIR", store().join("cargo"));
        command::clean_environment(&mut build);
        command::run(&mut build)
    }

    fn forget_older(&self) -> Result<()> {
        let prefix = format!("{}-", self.name);
        for path in entries(&store())? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let hash = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".wasm"));
            if hash.is_some_and(|hash| hash.len() == 16 && !hash.contains('-')) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Copies it to where tests and examples look.
    fn publish(&self) -> Result<PathBuf> {
        let dir = workspace::root().join("target/plugins");
        let (public, part) =
            (dir.join(format!("{}.wasm", self.name)), dir.join(format!(".{}.part", self.name)));
        fs::create_dir_all(&dir)?;
        fs::copy(self.kept(), &part).with_context(|| format!("no component of {}", self.name))?;
        fs::rename(part, &public)?;
        Ok(public)
    }
}

fn store() -> PathBuf {
    workspace::setup_dir().join("plugins")
}

/// Adds names and hashes of a file, or of everything in a folder.
fn add(path: &Path, facts: &mut String) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if IRRELEVANT.contains(&&*name) {
        return Ok(());
    }
    facts.push_str(&format!("\n{name}"));
    if path.is_dir() {
        return entries(path)?.iter().try_for_each(|entry| add(entry, facts));
    }
    let bytes = fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    facts.push_str(&format!(" {}", sha256(&bytes)));
    Ok(())
}

/// Sorted; links are followed.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("can't read {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(dir: &Path) -> String {
        Plugin::of("a".into(), dir.to_owned()).unwrap().hash
    }

    #[test]
    fn a_component_is_due_when_what_decides_it_changes_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("app.py"), "a = 1").unwrap();
        let before = hash(dir.path());

        fs::write(dir.path().join("README.md"), "words").unwrap();
        assert_eq!(before, hash(dir.path()), "words");
        fs::write(dir.path().join("app.py"), "a = 2").unwrap();
        let after = hash(dir.path());
        assert_ne!(before, after, "code");
        fs::create_dir(dir.path().join("wit")).unwrap();
        fs::write(dir.path().join("wit/world.wit"), "").unwrap();
        assert_ne!(after, hash(dir.path()), "the interface");
    }

    #[test]
    fn what_is_no_policy_is_left_out() {
        let names: Vec<_> = Plugin::all().unwrap().into_iter().map(|plugin| plugin.name).collect();
        assert!(names.contains(&"tenant-scope".to_owned()), "{names:?}");
        assert!(!names.iter().any(|name| name.starts_with('_')), "{names:?}");
    }
}
