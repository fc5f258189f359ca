//! The page about benchmarks: each of its commands runs, with servers of the test in the place of the page's.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use refrain_tests::fake::FakeUpstream;
use refrain_tests::redis::{Flavour, RedisServer};
use refrain_tests::{Config, Refrain, refrain_binary, within_time};
use tokio::process::Command;

use super::{DEADLINE, told};

const PAGE: &str = include_str!("../../../../docs/benchmarks.md");

#[tokio::test]
async fn bench_commands_of_the_page_run() {
    let fakes = [FakeUpstream::start().await, FakeUpstream::start().await];
    let refrain = Refrain::start(&Config::new(&fakes[0].url())).await;
    let redis = RedisServer::start(Flavour::Plain).await;
    let dir = tempfile::tempdir().unwrap();
    traces(dir.path());
    let script: String =
        PAGE.split("```sh\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    assert!(script.contains("refrain bench --url") && script.contains("refrain bench compare"));
    let script = [
        ("http://127.0.0.1:8080", refrain.url()),
        ("http://10.0.0.7:8000", fakes[0].url()),
        ("http://10.0.0.8:8000", fakes[1].url()),
        ("redis://127.0.0.1:6379", redis.url()),
        ("30s", "300ms".to_owned()),
        ("--speed 10", "--speed 1000".to_owned()),
    ]
    .iter()
    .fold(script, |script, (of_the_page, own)| script.replace(of_the_page, own));
    let path = std::env::join_paths(
        refrain_binary()
            .parent()
            .map(PathBuf::from)
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let mut shell = Command::new("sh");
    shell.current_dir(dir.path()).env("PATH", path.unwrap()).args(["-euxc", &script]).stdin(Stdio::null());
    let output =
        within_time(DEADLINE, "the page's commands", shell.kill_on_drop(true).output()).await.unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert!(dir.path().join("report/report.md").exists());
}

/// What the page takes for granted.
fn traces(dir: &Path) {
    let whole =
        zstd::decode_all(&include_bytes!("../../../data/mooncake_conversation.jsonl.zst")[..]).unwrap();
    let lines: Vec<&str> = std::str::from_utf8(&whole).unwrap().lines().take(5).collect();
    std::fs::write(dir.join("conversation.jsonl"), lines.join("\n")).unwrap();
    std::fs::write(dir.join("azure.csv"), include_str!("../../../data/azure_conv_head.csv")).unwrap();
    std::fs::write(dir.join("questions.tsv"), "How do I pay?\tHow can I pay?\n").unwrap();
}
