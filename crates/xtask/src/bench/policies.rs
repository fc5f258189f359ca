//! What policies cost: a call by size of the request's body, many calls of all first-party policies, memory over reloads.
//!
//! Figures come from the proxy's own histogram of calls, from its counters and from the kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::nginx::{self, Role};
use super::wrk::{self, Unique};
use super::{Bench, cpu};
use crate::child::{Server, free_port};
use crate::http::Client;
use crate::{plugins, workspace};

/// A policy in Rust, and a config that has it call the host and change the plan.
pub(crate) const RUST: &str = "tenant-scope";
pub(crate) const RUST_CONFIG: &str = "{ claim = \"groups\", missing = \"user\" }";

/// All first-party policies with a config for each.
const MIXED: [(&str, &str); 6] = [
    (RUST, RUST_CONFIG),
    ("agent-safe", "{}"),
    ("prefix-affinity", "{ by = \"system\" }"),
    ("ttl-by-intent", "{}"),
    ("strict-numbers", "{}"),
    ("ab-threshold", "{ a = 0.9, b = 0.95 }"),
];
/// What policies may do that need it.
const GRANTS: &str = "[\"key-edit\", \"rewrite\"]";

const CALLS: u32 = 10_000;
const BODY_BYTES: [usize; 3] = [1024, 32 * 1024, 256 * 1024];
const RELOADS: u32 = 1_000;
const HOSTILE_ROUNDS: usize = 3;
/// Never ends; see plugins/_hostile.
const SPIN: &str = "(loop $forever (br $forever))";
const TIMEOUT: Duration = Duration::from_secs(120);

/// Measures and prints.
pub(super) fn run(bench: &Bench) -> Result<()> {
    let stage = Stage::start(bench)?;
    println!("\n| on-request of {RUST} (Rust), body | p50 us | p99 us |\n|---|---|---|");
    for bytes in BODY_BYTES {
        let calls = stage.load(bench, RUST, bytes, 1)?;
        println!("| {} KiB | {:.1} | {:.1} |", bytes / 1024, calls.quantile_us(0.5), calls.quantile_us(0.99));
    }
    println!(
        "\n| at least {CALLS} requests each | on-request p50 us | p99 us | failures |\n|---|---|---|---|"
    );
    for (policy, _) in MIXED {
        let calls = stage.load(bench, policy, BODY_BYTES[0], CALLS)?;
        let (p50, p99) = (calls.quantile_us(0.5), calls.quantile_us(0.99));
        println!("| {policy} | {p50:.1} | {p99:.1} | {} |", stage.failures(policy)?);
    }
    beside_hostile(bench, &stage)?;
    println!("\n| reloads with a changed config of {RUST} | refrain MiB |\n|---|---|");
    for reload in 0..=RELOADS {
        if reload > 0 {
            stage.reload(reload)?;
        }
        if reload == 10 || reload % (RELOADS / 4) == 0 {
            println!("| {reload} | {} |", cpu::resident_mib(stage.refrain.pid())?);
        }
    }
    Ok(())
}

/// What others wait for while somebody keeps calling a policy that never ends. Alternates, since the machine's speed drifts.
fn beside_hostile(bench: &Bench, stage: &Stage) -> Result<()> {
    println!("\n| others' p99, hits | alone ms | beside an endless loop ms | ratio |\n|---|---|---|---|");
    let script = wrk::script(&bench.dir, "quiet", "quiet", Unique::No)?;
    let load = || {
        wrk::run((&bench.wrk, super::cases::LOAD_CORE), wrk::CONNECTIONS, (&script, &stage.url()), bench.load)
    };
    for round in 1..=HOSTILE_ROUNDS {
        let alone = load()?.p99_ms;
        let over = AtomicBool::new(false);
        let beside = std::thread::scope(|scope| {
            let caller = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    stage.ask("spin")?;
                }
                anyhow::Ok(())
            });
            let beside = load();
            over.store(true, Ordering::Relaxed);
            caller.join().map_err(|_| anyhow::anyhow!("the hostile caller panicked"))??;
            beside
        })?;
        println!("| {round} | {alone:.2} | {:.2} | {:.2} |", beside.p99_ms, beside.p99_ms / alone);
    }
    Ok(())
}

/// The proxy before an upstream that answers at once, with a route a policy.
struct Stage {
    refrain: Server,
    /// Kept alive only.
    _upstream: Server,
    client: Client,
    data: u16,
    admin: u16,
    file: PathBuf,
}

impl Stage {
    fn start(bench: &Bench) -> Result<Self> {
        let (upstream, port) = nginx::start(&bench.nginx, &bench.dir, Role::Upstream)?;
        let (data, admin) = (free_port()?, free_port()?);
        let file = bench.dir.join("policies.toml");
        fs::write(&file, config(bench, port, data, admin)?)?;
        let mut command = Command::new(&bench.refrain);
        command.arg("--config").arg(&file);
        let ready = format!("http://127.0.0.1:{admin}/readyz");
        let refrain = Server::start("refrain", &mut command, bench.dir.join("policies.log"), &ready)?;
        Ok(Self { refrain, _upstream: upstream, client: Client::new(TIMEOUT), data, admin, file })
    }

    /// Loads a route until its policy was called so often: each request asks the policy, one the upstream.
    fn load(&self, bench: &Bench, policy: &str, bytes: usize, calls_min: u32) -> Result<Calls> {
        let script = wrk::plain(&bench.dir, "policy", policy, &body(bytes))?;
        let before = self.calls(policy)?;
        loop {
            wrk::run(
                (&bench.wrk, super::cases::LOAD_CORE),
                wrk::CONNECTIONS,
                (&script, &self.url()),
                bench.load,
            )?;
            let calls = self.calls(policy)?.since(&before);
            if calls.count() >= f64::from(calls_min) {
                return Ok(calls);
            }
        }
    }

    fn ask(&self, policy: &str) -> Result<()> {
        let answer = self.client.post(&self.url(), &body(BODY_BYTES[0]), &[("x-bench", policy)])?;
        if answer.status != 200 {
            bail!("{policy}: status {}: {}", answer.status, answer.body);
        }
        Ok(())
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1/chat/completions", self.data)
    }

    fn metrics(&self) -> Result<String> {
        self.client.get(&format!("http://127.0.0.1:{}/metrics", self.admin))
    }

    fn calls(&self, policy: &str) -> Result<Calls> {
        Ok(Calls::read(&self.metrics()?, policy))
    }

    fn failures(&self, policy: &str) -> Result<f64> {
        let of_policy = format!("plugin=\"{policy}\"");
        let metrics = self.metrics()?;
        let lines = metrics.lines().filter(|line| line.starts_with("refrain_policy_failures_total{"));
        Ok(lines
            .filter(|line| line.contains(&of_policy))
            .filter_map(value)
            .fold(0.0, |sum, count| sum + count))
    }

    /// Another config, so that the policy is made anew.
    fn reload(&self, nth: u32) -> Result<()> {
        let text = fs::read_to_string(&self.file)?;
        let (head, tail) = text.split_once("# reload").context("the config lost its mark")?;
        let tail = tail.split_once('\n').map_or("", |(_, rest)| rest);
        let claim = format!("# reload {nth}\nconfig.claim = \"claim-{nth}\"\n");
        let tail = tail.split_once('\n').map_or("", |(_, rest)| rest);
        fs::write(&self.file, format!("{head}{claim}{tail}"))?;
        let answer = self.client.post(&format!("http://127.0.0.1:{}/reload", self.admin), "", &[])?;
        if answer.status != 200 {
            bail!("reload {nth}: {}", answer.body);
        }
        Ok(())
    }
}

/// A chat with one question of about so many bytes.
fn body(bytes: usize) -> String {
    let question = "Please tell me more about this text. ".repeat(bytes / 37);
    let messages = json!([{ "role": "user", "content": question }]);
    json!({ "model": "bench", "temperature": 0, "messages": messages }).to_string()
}

fn config(bench: &Bench, upstream: u16, data: u16, admin: u16) -> Result<String> {
    let mut text = format!(
        "# Written by `cargo xtask bench`.\n\
         [listener.main]\naddress = \"127.0.0.1:{data}\"\n\
         [admin]\naddress = \"127.0.0.1:{admin}\"\n\
         [runtime]\nworkers = 1\n\
         [log]\naccess_sample = 0\n\
         [pool.up]\nendpoints = [\"http://127.0.0.1:{upstream}\"]\n\
         [plugin.reloaded]\nfile = {:?}\n# reload 0\nconfig.claim = \"claim-0\"\n\
         [route.reloaded]\npool = \"up\"\nheaders = {{ x-bench = \"reloaded\" }}\nplugins = [\"reloaded\"]\n",
        bench.policy
    );
    let spin = bench.dir.join("spin.wat");
    fs::write(&spin, spinning()?)?;
    text += &format!(
        "[plugin.spin]\nfile = {spin:?}\n\
         [route.spin]\npool = \"up\"\nheaders = {{ x-bench = \"spin\" }}\nplugins = [\"spin\"]\n\
         [route.quiet]\npool = \"up\"\nheaders = {{ x-bench = \"quiet\" }}\n"
    );
    for (policy, config) in MIXED {
        let file: &Path = &plugins::component(policy, &bench.refrain)?;
        text += &format!(
            "[plugin.{policy}]\nfile = {file:?}\nconfig = {config}\ngrants = {GRANTS}\n\
             [route.{policy}]\npool = \"up\"\nheaders = {{ x-bench = \"{policy}\" }}\nplugins = [\"{policy}\"]\n"
        );
    }
    Ok(text)
}

fn spinning() -> Result<String> {
    let hostile = workspace::root().join("plugins/_hostile");
    let read = |name: &str| fs::read_to_string(hostile.join(name)).with_context(|| format!("no {name}"));
    let policy = read("policy.wat")?.replace(";; @on-request", SPIN);
    Ok(read("world.wat")?.replace(";; @policy", &policy))
}

/// Calls of `on-request` by upper bound of their time, cumulative; empty before the first.
#[derive(Debug, PartialEq)]
struct Calls(Vec<(f64, f64)>);

impl Calls {
    fn read(metrics: &str, policy: &str) -> Self {
        let of_policy = format!("plugin=\"{policy}\"");
        let lines = metrics.lines().filter(|line| line.starts_with("refrain_policy_call_seconds_bucket{"));
        let lines = lines.filter(|line| line.contains(&of_policy) && line.contains("hook=\"on_request\""));
        let bound = |line: &str| line.split_once("le=\"")?.1.split_once('"')?.0.parse().ok();
        Self(lines.filter_map(|line| Some((bound(line)?, value(line)?))).collect())
    }

    fn since(&self, before: &Self) -> Self {
        let then = before.0.iter().map(|(_, count)| *count).chain(std::iter::repeat(0.0));
        Self(self.0.iter().zip(then).map(|(&(bound, now), then)| (bound, now - then)).collect())
    }

    fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// Within a bucket calls are taken to be spread evenly.
    fn quantile_us(&self, share: f64) -> f64 {
        let wanted = self.count() * share;
        let mut below = (0.0, 0.0);
        for &(bound, count) in &self.0 {
            if count >= wanted && count > below.1 {
                if bound.is_infinite() {
                    return bound;
                }
                return 1e6 * (below.0 + (bound - below.0) * (wanted - below.1) / (count - below.1));
            }
            below = (bound, count);
        }
        f64::NAN
    }
}

fn value(line: &str) -> Option<f64> {
    line.rsplit_once(' ')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_read_from_the_growth_of_buckets() {
        let scrape = |counts: [u32; 3]| {
            let line = |(bound, count): (&str, u32)| {
                format!(
                    "refrain_policy_call_seconds_bucket{{plugin=\"a\",hook=\"on_request\",le=\"{bound}\"}} {count}\n"
                )
            };
            ["0.000001", "0.000003", "+Inf"].into_iter().zip(counts).map(line).collect::<String>()
        };
        let before = Calls::read(&scrape([5, 5, 5]), "a");
        let after = Calls::read(&scrape([5, 105, 105]), "a");
        let calls = after.since(&before);
        assert!((calls.quantile_us(0.5) - 2.0).abs() < 1e-9, "{calls:?}");
        let never = Calls::read(&scrape([1, 1, 1]), "b");
        assert_eq!((&after.since(&never), never.quantile_us(0.5).is_nan()), (&after, true));
        let over = Calls::read(&scrape([0, 0, 9]), "a");
        assert!(over.quantile_us(0.5).is_infinite());
    }
}
