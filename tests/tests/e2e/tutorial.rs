//! The page about policies, followed to the letter: every command of its ten minutes, in the order of the page.

use std::path::{Path, PathBuf};
use std::process::Command;

use refrain_tests::fake::FakeUpstream;
use refrain_tests::{Ask, Config, Manifest, Refrain, refrain_binary};

const PAGE: &str = include_str!("../../../docs/plugins.md");

#[tokio::test]
async fn a_policy_in_rust_is_made_and_serves_as_the_page_says() {
    serves(follow("### In Rust").path()).await;
}

#[tokio::test]
async fn a_policy_in_javascript_is_made_and_serves_as_the_page_says() {
    serves(follow("### In JavaScript").path()).await;
}

/// With the page's table of the policy; the upstream is a fake one.
async fn serves(dir: &Path) {
    let (_, rest) = PAGE.split_once("### And then it serves").unwrap();
    let (_, table) = rest.split_once("```toml\n").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let table = table.replace("fresh-today/", &format!("{}/fresh-today/", dir.display()));
    let fake = FakeUpstream::start().await;
    let config = Config::new(&fake.url()).route("plugins = [\"fresh-today\"]").tables(&table);
    let refrain = Refrain::start(&config).await;
    let ask = Ask::chat("Why is the sky blue?");
    refrain.send(&ask).await;
    let again = refrain.send(&ask).await.cache_status();
    let ttl = again.split("ttl=").nth(1).and_then(|rest| rest.split(';').next()?.parse::<u32>().ok());
    assert!(again.contains("hit") && ttl.is_some_and(|ttl| (200..=300).contains(&ttl)), "{again}");
    let tonight = refrain.send(&Ask::chat("Who is on call tonight?")).await.cache_status();
    assert_eq!(tonight, "refrain; fwd=bypass; detail=policy");
}

/// Runs a section's shell blocks, one after the other, in one shell and a folder of its own.
fn follow(section: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let commands = commands(section);
    assert!(commands.contains("refrain plugin test"), "{section}: no commands");
    let output = shell(dir.path()).arg(format!("set -eux\n{commands}")).output().unwrap();
    let told =
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
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
