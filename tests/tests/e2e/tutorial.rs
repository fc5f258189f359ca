//! The page about policies, followed to the letter: every command of its ten minutes, in the order of the page.

use std::path::{Path, PathBuf};
use std::process::Command;

use refrain_tests::{Manifest, refrain_binary};

const PAGE: &str = include_str!("../../../docs/plugins.md");

#[test]
fn a_policy_in_rust_is_made_as_the_page_says() {
    let dir = follow("### In Rust");
    let component = std::fs::read(dir.path().join("fresh-today/fresh-today.wasm")).unwrap();
    assert!(component.starts_with(b"\0asm"));
}

#[test]
fn a_policy_in_javascript_is_made_as_the_page_says() {
    let dir = follow("### In JavaScript");
    let component = std::fs::read(dir.path().join("fresh-today/fresh-today.wasm")).unwrap();
    assert!(component.starts_with(b"\0asm"));
}

/// Runs a section's shell blocks, one after the other, in one shell and a folder of its own.
fn follow(section: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let commands = commands(section);
    assert!(commands.contains("refrain plugin test"), "{section}: no commands");
    let output = shell(dir.path()).arg(format!("set -eux\n{commands}")).output().unwrap();
    let told = format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{section}:\n{told}");
    assert!(told.contains(", 0 failed"), "{section}:\n{told}");
    dir
}

fn commands(section: &str) -> String {
    let start = PAGE.find(&format!("{section}\n")).unwrap() + section.len();
    let rest = &PAGE[start..];
    let end = rest.find("\n## ").into_iter().chain(rest.find("\n### ")).min().unwrap_or(rest.len());
    rest[..end].split("```sh\n").skip(1).filter_map(|block| block.split("```").next()).collect()
}

/// With the program under test and the tools that set-up prepared.
fn shell(dir: &Path) -> Command {
    let manifest = Manifest::load();
    let binary = refrain_binary();
    let own = binary.parent().map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path))).unwrap();
    let mut shell = Command::new("sh");
    shell.current_dir(dir).env("PATH", path);
    shell.env("REFRAIN_WASM_TOOLS", manifest.wasm_tools());
    shell.env("REFRAIN_COMPONENTIZE_QJS", manifest.componentize_qjs());
    // Shared with the policies of the repository: WebAssembly's standard library is built once.
    shell.env("CARGO_TARGET_DIR", manifest.plugin_target_dir());
    shell.env("XDG_CACHE_HOME", dir.join("cache")).arg("-c");
    shell
}
