//! `cargo xtask soak`: hours of change in minutes. The proxy has a steady load while its configuration is reloaded every five
//! seconds and its policy replaced by another file each minute. No request may fail, no reload be refused, and memory must
//! not grow once the store is full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::bench::cpu;
use crate::bench::nginx::{self, Role};
use crate::bench::policies::{RUST, RUST_CONFIG};
use crate::child::{Server, free_port};
use crate::http::Client;
use crate::manifest::{Manifest, require};
use crate::{plugins, setup, workspace};

/// Between two reloads.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);
/// Reloads between two files of the policy.
const RELOADS_A_SWAP: u32 = 12;
/// Part of what the proxy can do that it is asked to do.
const LOAD_SHARE: f64 = 0.8;
/// How long each look at what the proxy can do takes, while as much changes as later: reloads and a new policy take their share
/// of a machine.
const CALIBRATION: Duration = Duration::from_secs(45);
/// Users who wait for each answer at the first look: what they get is the most that there is.
const CALIBRATION_USERS: &str = "512";
/// Parts of that, tried as a steady rate until one is kept up with. A rate that doesn't wait for answers takes more of the load
/// generator, and has a queue grow wherever something else takes its turn.
const TRIED_SHARES: [f64; 6] = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5];
/// A rate is kept up with if nearly all answers come within this, in milliseconds.
const KEPT_UP_MS: f64 = 1000.0;
/// Until all connections are open: a full load from one moment to the next has thousands of requests wait for them. Times
/// aren't counted meanwhile, errors are.
const WARM_UP: Duration = Duration::from_secs(5);
/// Memory may grow by this much from the second quarter of the time to the last: allocators are not exact.
const GROWTH_MAX: f64 = 1.1;
/// Requests that may wait for an answer: about what is due in a second.
const IN_FLIGHT: &str = "8192";
const TIMEOUT: Duration = Duration::from_secs(60);

/// Arguments of `cargo xtask soak`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run(&setup::Args::to_bench())?;
    let manifest = Manifest::load(&workspace::setup_dir())?;
    let dir = workspace::setup_dir().join("soak");
    fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
    let refrain = crate::run::build(crate::run::Profile::Release)?;
    let mut stage = Stage::start(require("nginx", "bench", manifest.nginx.as_ref())?, &refrain, &dir)?;
    let able = stage.able()?;
    let rate = (able * LOAD_SHARE).round();
    println!("{able:.0} a second can be kept up with; {rate:.0} are sent for {} min", args.minutes);
    let time = Duration::from_secs(args.minutes * 60) + WARM_UP;
    let load = stage.begin(rate, time)?;
    let memory = stage.change(time)?;
    let answered = load.finish()?;
    judge(&Answered { failed: answered.failed.max(stage.errors()?), ..answered }, &memory)
}

/// What a load came to.
struct Answered {
    rate: f64,
    requests: u64,
    failed: u64,
    /// Due, and not sent or not answered by the end: more was asked for than this machine can do.
    undone: u64,
    p99_ms: f64,
}

/// Nothing may fail, and memory must stay.
fn judge(answered: &Answered, memory: &[u64]) -> Result<()> {
    let Answered { requests, failed, undone, p99_ms, .. } = answered;
    let quarter = memory.len() / 4;
    let (warm, late) = (&memory[quarter..2 * quarter], &memory[3 * quarter..]);
    let most = |part: &[u64]| part.iter().copied().max().unwrap_or_default();
    println!(
        "{requests} requests, {failed} failed, {undone} undone, p99 {p99_ms:.1} ms; memory {} MiB when warm, {} MiB at the end",
        most(warm),
        most(late)
    );
    if *failed > 0 || *requests == 0 {
        bail!("{failed} requests failed, {requests} were answered");
    }
    if *undone > 0 {
        bail!("{undone} requests were due and not answered: the load was more than this machine can do");
    }
    if most(late) as f64 > most(warm) as f64 * GROWTH_MAX {
        bail!("memory grew from {} to {} MiB", most(warm), most(late));
    }
    Ok(())
}

/// The proxy before an upstream that answers at once.
struct Stage {
    refrain: Server,
    binary: PathBuf,
    /// Kept alive only.
    _upstream: Server,
    dir: PathBuf,
    ports: [u16; 3],
    component: Vec<u8>,
    /// Reloads so far.
    step: u32,
}

impl Stage {
    fn start(nginx: &Path, binary: &Path, dir: &Path) -> Result<Self> {
        let (upstream, port) = nginx::start(nginx, dir, Role::Upstream)?;
        let ports = [port, free_port()?, free_port()?];
        let component = fs::read(plugins::component(RUST, binary)?)?;
        write(&dir.join("policy.wasm"), &component)?;
        write(&dir.join("refrain.toml"), config(dir, ports, 0).as_bytes())?;
        let mut command = Command::new(binary);
        command.arg("--config").arg(dir.join("refrain.toml"));
        let ready = format!("http://127.0.0.1:{}/readyz", ports[2]);
        let refrain = Server::start("refrain", &mut command, dir.join("refrain.log"), &ready)?;
        Ok(Self {
            refrain,
            binary: binary.to_owned(),
            _upstream: upstream,
            dir: dir.to_owned(),
            ports,
            component,
            step: 0,
        })
    }

    /// The highest tried rate that is kept up with. Nearly all requests are misses: each reload changes the keys, and the store
    /// is full within a second.
    fn able(&mut self) -> Result<f64> {
        let time = seconds(CALIBRATION);
        let load = self.load(&["--repeat", "0", "--concurrency", CALIBRATION_USERS, "--duration", &time])?;
        self.change(CALIBRATION)?;
        let most = load.finish()?.rate;
        println!("{most:.0} requests a second if {CALIBRATION_USERS} users wait for each answer");
        for share in TRIED_SHARES {
            let rate = (most * share).round();
            let load = self.begin(rate, CALIBRATION)?;
            self.change(CALIBRATION)?;
            let Answered { failed, undone, p99_ms, .. } = load.finish()?;
            println!("{rate:.0} a second: {failed} failed, {undone} undone, p99 {p99_ms:.0} ms");
            if failed > 0 {
                bail!(
                    "{failed} requests failed at {rate:.0} a second: too much load may delay an answer, not break it"
                );
            }
            if undone == 0 && p99_ms <= KEPT_UP_MS {
                return Ok(rate);
            }
        }
        bail!("no rate is kept up with: this machine is too busy")
    }

    /// Begins the steady load.
    fn begin(&self, rate: f64, time: Duration) -> Result<Load> {
        let (rate, time, warm_up) = (rate.to_string(), seconds(time), seconds(WARM_UP));
        let pace = ["--repeat", "0.3", "--rate", &rate, "--in-flight", IN_FLIGHT];
        self.load(&[&pace[..], &["--duration", &time, "--warm-up", &warm_up]].concat())
    }

    /// Responses since the start that the proxy itself counts as errors, the warm-up's too.
    fn errors(&self) -> Result<u64> {
        let metrics = Client::new(TIMEOUT).get(&format!("http://127.0.0.1:{}/metrics", self.ports[2]))?;
        errors(&metrics)
    }

    /// Begins a load of conversations.
    fn load(&self, how: &[&str]) -> Result<Load> {
        let report = self.dir.join("load.json");
        let mut command = Command::new(&self.binary);
        let url = format!("http://127.0.0.1:{}", self.ports[1]);
        command.args(["bench", "--url", &url, "--model", "bench", "--whole", "--json"]);
        command.arg(&report).args(how);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        Ok(Load { child, report })
    }

    /// Reloads, and replaces the policy, for so long; memory after each step, in MiB.
    fn change(&mut self, time: Duration) -> Result<Vec<u64>> {
        let (begun, mut memory) = (Instant::now(), Vec::new());
        let mut slowest = Duration::ZERO;
        for nth in 1_u32.. {
            if begun.elapsed() + RELOAD_INTERVAL > time {
                break;
            }
            wait_until(begun + RELOAD_INTERVAL * nth);
            self.step += 1;
            // In the middle of each minute: its compiling shall be over when the time is.
            if nth % RELOADS_A_SWAP == RELOADS_A_SWAP / 2 {
                write(&self.dir.join("policy.wasm"), &stamped(&self.component, self.step))?;
            }
            write(&self.dir.join("refrain.toml"), config(&self.dir, self.ports, self.step).as_bytes())?;
            let asked = Instant::now();
            self.reload(self.step)?;
            slowest = slowest.max(asked.elapsed());
            memory.push(cpu::resident_mib(self.refrain.pid())?);
            if nth.is_multiple_of(RELOADS_A_SWAP) {
                let (minute, now) = (nth / RELOADS_A_SWAP, memory.last().unwrap_or(&0));
                println!("  {minute} min: {now} MiB, slowest reload {slowest:.1?}");
                slowest = Duration::ZERO;
            }
        }
        Ok(memory)
    }

    /// Over a connection of its own: the admin listener closes those that are old.
    fn reload(&self, step: u32) -> Result<()> {
        let client = Client::new(TIMEOUT);
        let answer = client.post(&format!("http://127.0.0.1:{}/reload", self.ports[2]), "", &[])?;
        if answer.status != 200 {
            bail!("reload {step} was refused: {}", answer.body);
        }
        let config = client.get(&format!("http://127.0.0.1:{}/config", self.ports[2]))?;
        let config: Value = serde_json::from_str(&config)?;
        if config["pool"]["up"]["revision"].as_str() != Some(step.to_string().as_str()) {
            bail!("reload {step} is not in force");
        }
        Ok(())
    }
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}

/// A load that runs.
struct Load {
    child: Child,
    report: PathBuf,
}

impl Load {
    /// Waits for its end.
    fn finish(mut self) -> Result<Answered> {
        let status = self.child.wait()?;
        if !status.success() {
            bail!("refrain bench ended with {status}");
        }
        let report: Value = serde_json::from_slice(&fs::read(&self.report)?)?;
        let count = |name: &str| report["requests"][name].as_u64().context("a report of refrain bench");
        Ok(Answered {
            rate: report["requests"]["per_second"].as_f64().context("a rate")?,
            requests: count("answered")?,
            failed: count("failed")?,
            undone: count("unfinished")? + count("unsent")?,
            p99_ms: report["e2e_ms"]["p99"].as_f64().context("a latency")?,
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Responses with a status of an error, by a scrape.
fn errors(metrics: &str) -> Result<u64> {
    let heads = metrics.lines().filter(|line| line.starts_with("refrain_response_heads_total{"));
    let is_error =
        |line: &&str| ["4xx", "5xx"].iter().any(|class| line.contains(&format!("status=\"{class}\"")));
    let counts =
        heads.filter(is_error).map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<u64>());
    let counts = counts.collect::<Result<Vec<_>, _>>().context("a count of responses can't be read")?;
    if counts.is_empty() {
        bail!("the proxy doesn't count its responses");
    }
    Ok(counts.iter().sum())
}

/// Replaces a file at once, as editors and deployments do.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    let next = path.with_extension("next");
    fs::write(&next, content)?;
    fs::rename(&next, path).with_context(|| format!("can't write {}", path.display()))
}

/// The same component as another file: with a custom section that says so.
fn stamped(component: &[u8], step: u32) -> Vec<u8> {
    let name = b"soak";
    let mut section = vec![0, 1 + 4 + 4, 4];
    section.extend(name);
    section.extend(step.to_le_bytes());
    [component, &section].concat()
}

/// Each step has other keys, another lifetime and another number of connections. The upstream has room for all that the load
/// may have in flight: it is one that answers at once, and what a full pool does is tested elsewhere.
fn config(dir: &Path, [upstream, data, admin]: [u16; 3], step: u32) -> String {
    format!(
        "# Written by `cargo xtask soak`.\n\
         [listener.main]\naddress = \"127.0.0.1:{data}\"\n\
         [admin]\naddress = \"127.0.0.1:{admin}\"\n\
         [limits]\nconnections_per_address = 10000\n\
         [log]\naccess_sample = 0\n\
         [store]\nmemory = \"32 MiB\"\n\
         [pool.up]\nendpoints = [\"http://127.0.0.1:{upstream}\"]\nrevision = \"{step}\"\nidle_connections = {idle}\n\
         limits = {{ concurrency = 3072, queue = 8192 }}\n\
         [plugin.soak]\nfile = {policy:?}\nconfig = {RUST_CONFIG}\n\
         [route.all]\npool = \"up\"\nplugins = [\"soak\"]\n[route.all.cache]\nttl = \"{ttl}s\"\n",
        idle = 512 + step % 64,
        policy = dir.join("policy.wasm"),
        ttl = 60 + step % 60,
    )
}

#[expect(clippy::disallowed_methods, reason = "a steady pace is what it is for")]
fn wait_until(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(requests: u64, failed: u64) -> Answered {
        Answered { rate: 1.0, requests, failed, undone: 0, p99_ms: 1.0 }
    }

    #[test]
    fn the_proxys_own_count_of_errors_is_added_up() {
        let scrape = "# TYPE refrain_response_heads_total counter\n\
                      refrain_response_heads_total{route=\"all\",status=\"2xx\"} 7\n\
                      refrain_response_heads_total{route=\"all\",status=\"4xx\"} 2\n\
                      refrain_response_heads_total{route=\"all\",status=\"5xx\"} 3\n";
        assert_eq!(errors(scrape).unwrap(), 5);
        errors("").unwrap_err();
    }

    #[test]
    fn a_soak_fails_by_a_failed_request_by_none_and_by_growing_memory() {
        let flat = vec![100; 40];
        judge(&answered(1000, 0), &flat).unwrap();
        judge(&answered(1000, 1), &flat).unwrap_err();
        judge(&answered(0, 0), &flat).unwrap_err();
        judge(&Answered { undone: 1, ..answered(1000, 0) }, &flat).unwrap_err();
        let grows: Vec<u64> = (100..140).collect();
        judge(&answered(1000, 0), &grows).unwrap_err();
        let filled_at_first: Vec<u64> = (0..40).map(|step| 60 + 4 * std::cmp::min(step, 10)).collect();
        judge(&answered(1000, 0), &filled_at_first).unwrap();
    }
}
