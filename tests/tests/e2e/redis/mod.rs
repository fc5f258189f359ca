//! The store that proxies share: the real binary, real Redis servers, two proxies where sharing is meant.

mod away;
mod chaos;
mod check;
mod cluster;
mod connections;
mod herd;
mod purge;
mod rights;
mod shared;
mod upkeep;
mod values;

use std::path::Path;

use refrain_tests::fake::FakeUpstream;
use refrain_tests::redis::RedisServer;
use refrain_tests::{Ask, Config, Refrain, Reply, eventually, refrain_binary, within_time};
use serde_json::Value;
use tempfile::TempDir;

const LOOKUPS: &str = "refrain_store_lookups_total";
const WRITES: &str = "refrain_store_redis_writes_total";
const ERRORS: &str = "refrain_store_redis_errors_total";
const REFUSED: &str = "refrain_store_redis_refused_values_total";

/// A command walks over a small store and reads a model's files.
const COMMAND_DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

const QUESTION: &str = "How do I reset my password?";
const PARAPHRASE: &str = "How can I reset my password?";

/// A deadline that a busy machine keeps, with everything else as it is by default.
const CALM: &str = "timeout = \"2s\"\nconnect_timeout = \"5s\"";

/// What proxies share: an upstream, the secret of their keys, and where Redis is.
struct Fleet {
    fake: FakeUpstream,
    dir: TempDir,
    lines: String,
}

impl Fleet {
    /// In one Redis.
    async fn of(redis: &RedisServer) -> Self {
        Self::at(&redis.url()).await
    }

    /// In the Redis at a URL.
    async fn at(url: &str) -> Self {
        Self::with(&format!("url = {url:?}\n{CALM}")).await
    }

    /// With these lines for `[store.redis]`.
    async fn with(lines: &str) -> Self {
        let (fake, dir) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
        Self { fake, dir, lines: lines.to_owned() }
    }

    /// What each of its proxies is started with.
    fn config(&self) -> Config {
        Config::new(&self.fake.url()).redis(&self.dir.path().join("cache.secret"), &self.lines)
    }

    /// A proxy that has joined Redis.
    async fn proxy(&self) -> Refrain {
        self.proxy_with(|config| config).await
    }

    /// The same with other settings.
    async fn proxy_with(&self, change: impl FnOnce(Config) -> Config) -> Refrain {
        let refrain = Refrain::start(&change(self.config())).await;
        up(&refrain).await;
        refrain
    }

    /// Two of them.
    async fn pair(&self) -> [Refrain; 2] {
        self.pair_with(|config| config).await
    }

    /// Two with the same other settings.
    async fn pair_with(&self, change: impl Fn(Config) -> Config) -> [Refrain; 2] {
        [self.proxy_with(&change).await, self.proxy_with(&change).await]
    }
}

/// What `/readyz` says of Redis.
async fn report(refrain: &Refrain) -> Value {
    refrain.readiness().await["store"]["redis"].clone()
}

/// Waits until a proxy uses Redis.
async fn up(refrain: &Refrain) {
    eventually("a proxy that uses Redis", async || (report(refrain).await["state"] == "up").then_some(()))
        .await;
    assert_eq!(refrain.readiness().await["store"]["state"], "ok");
}

/// Waits until a proxy goes on without Redis, for this reason, and has counted it.
async fn away(refrain: &Refrain, reason: &str) {
    let found = async || {
        let report = report(refrain).await;
        let text = report["reason"].as_str().unwrap_or_default();
        (report["state"] == "away" && text.starts_with(reason)).then_some(())
    };
    eventually(&format!("a proxy without Redis: {reason}"), found).await;
    refrain.counted(ERRORS, &[("reason", reason)], 1.0).await;
}

/// Waits until a proxy has written everything.
async fn written(refrain: &Refrain) {
    let nothing_waits =
        async || (refrain.metrics().await.sum("refrain_store_redis_queued_bytes", &[]) < 0.5).then_some(());
    eventually("an empty write queue", nothing_waits).await;
}

/// Asks for the first time, and waits until the answer is in Redis.
async fn stored(refrain: &Refrain, ask: &Ask) -> Reply {
    written(refrain).await;
    let writes = refrain.metrics().await.sum(WRITES, &[("result", "written")]);
    let reply = refrain.send(ask).await;
    assert_eq!((reply.status, reply.cache_status().as_str()), (200, "refrain; fwd=miss"), "{ask:?}");
    refrain.counted(WRITES, &[("result", "written")], writes + 1.0).await;
    reply
}

/// Asks without storing what comes.
async fn look(refrain: &Refrain, ask: &Ask) -> Reply {
    let reply = refrain.send(&ask.clone().cache_control("no-store")).await;
    assert_eq!(reply.status, 200, "{ask:?}: {}", reply.text());
    reply
}

fn detail(reply: &Reply) -> String {
    let status = reply.cache_status();
    let detail = status.strip_prefix("refrain; hit; ").and_then(|hit| hit.split_once("detail="));
    detail.unwrap_or_else(|| panic!("no hit: {status}")).1.to_owned()
}

async fn check_miss(refrain: &Refrain, ask: &Ask) {
    assert_eq!(look(refrain, ask).await.cache_status(), "refrain; fwd=miss", "{ask:?}");
}

/// Names of all entries.
async fn entries(redis: &RedisServer) -> Vec<String> {
    let names = redis.command(&["KEYS", "refrain:*:e:*"]).await;
    names.items().iter().map(refrain_tests::redis::Value::text).collect()
}

/// Runs a command of the program with a config file: whether it succeeded, and all that it said.
async fn run(config: &Path, command: &str) -> (bool, String) {
    let mut process = tokio::process::Command::new(refrain_binary());
    process.args(command.split(' ')).arg("--config").arg(config).kill_on_drop(true);
    let output = within_time(COMMAND_DEADLINE, command, process.output()).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Runs a command that must succeed with a proxy's config file; all that it said.
async fn runs(refrain: &Refrain, command: &str) -> String {
    let (has_succeeded, said) = run(&refrain.config_path(), command).await;
    assert!(has_succeeded, "refrain {command}:\n{said}");
    said
}
