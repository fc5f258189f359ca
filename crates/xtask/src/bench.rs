//! `cargo xtask bench`: what the proxy costs beside nginx on the same upstream, in one run.
//!
//! The figure is CPU microseconds a request: the kernel's on-CPU time of all threads of the proxy under test, divided by the
//! requests that wrk counted. It depends far less on what else the machine does than latency or throughput. The proxy has
//! one core, wrk and the upstream another; rounds alternate between the cases, and medians are printed.

mod cases;
pub(crate) mod cpu;
mod fleet;
pub(crate) mod nginx;
pub(crate) mod policies;
mod redis;
mod semantic;
mod wrk;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::manifest::{Manifest, require};
use crate::{plugins, setup, workspace};
use cases::Case;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds of load a case and round.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Rounds; the median over them is printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Entries to measure semantic hits at; several are measured in turn. Filling takes about 2 ms an entry.
    #[arg(long, default_values_t = [1000])]
    entries: Vec<usize>,
    /// Vectors to search in Redis. Filling a vector set takes up to 4 ms a vector.
    #[arg(long, default_value_t = 10_000)]
    vectors: usize,
    /// Only this part.
    #[arg(long)]
    only: Option<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Pass-through, miss and exact hit beside nginx.
    Http,
    /// Semantic hits.
    Semantic,
    /// The shared store, beside bare commands to Redis.
    Redis,
    /// Choosing an endpoint, and hashing a prompt's beginnings.
    Fleet,
    /// Cache policies: calls by size of body, mixed calls, memory over reloads.
    Policies,
}

/// What every case needs.
struct Bench {
    dir: PathBuf,
    nginx: PathBuf,
    wrk: PathBuf,
    refrain: PathBuf,
    /// The policy of the case with one: in Rust, with a config.
    policy: PathBuf,
    load: Duration,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if cpu::cores() < 2 {
        bail!("two cores are needed: one for the proxy, one for the load and the upstream");
    }
    if args.only == Some(Part::Fleet) {
        // It needs nothing but the code.
        return fleet::run();
    }
    setup::run(&setup::Args::to_bench())?;
    let manifest = Manifest::load(&workspace::setup_dir())?;
    let dir = workspace::setup_dir().join("bench");
    std::fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
    if args.only == Some(Part::Redis) {
        // It needs no proxy.
        return redis::run(&manifest, &dir, args.vectors);
    }
    let refrain = crate::run::build(crate::run::Profile::Release)?;
    let bench = Bench {
        nginx: tool("nginx", manifest.nginx.as_ref())?,
        wrk: tool("wrk", manifest.wrk.as_ref())?,
        policy: plugins::component(policies::RUST, &refrain)?,
        refrain,
        dir,
        load: Duration::from_secs(args.seconds),
    };
    let wants = |part| args.only.is_none_or(|only| only == part);
    if wants(Part::Http) {
        http(&bench, args.rounds)?;
    }
    if wants(Part::Fleet) {
        fleet::run()?;
    }
    if wants(Part::Policies) {
        policies::run(&bench)?;
    }
    if wants(Part::Redis) {
        redis::run(&manifest, &bench.dir, args.vectors)?;
    }
    if wants(Part::Semantic) {
        semantic::run(&bench.refrain, &bench.dir, &manifest, &args.entries)?;
    }
    Ok(())
}

fn tool(name: &str, path: Option<&PathBuf>) -> Result<PathBuf> {
    require(name, "bench", path).map(Path::to_owned)
}

fn http(bench: &Bench, rounds: usize) -> Result<()> {
    let stage = cases::Stage::start(bench)?;
    let mut figures: Vec<Vec<cases::Figures>> = Case::ALL.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        for (case, figures) in Case::ALL.into_iter().zip(&mut figures) {
            let measured = stage.measure(bench, case)?;
            println!("  round {round}/{rounds} {:<13} {:6.2} us", case.name(), measured.cpu_us);
            figures.push(measured);
        }
    }
    print_table(&figures);
    latency(bench, &stage, rounds)?;
    println!(
        "\nmemory after the load: refrain {} MiB, nginx {} MiB",
        stage.refrain_mib()?,
        stage.nginx_mib()?
    );
    Ok(())
}

/// What each path adds to the time of a request that is alone.
fn latency(bench: &Bench, stage: &cases::Stage, rounds: usize) -> Result<()> {
    let mut added: Vec<Vec<f64>> = Case::ALL.iter().map(|_| Vec::new()).collect();
    let mut direct = Vec::new();
    for _ in 0..rounds {
        let upstream = stage.alone(bench, None)?;
        direct.push(upstream);
        for (case, added) in Case::ALL.into_iter().zip(&mut added) {
            added.push(stage.alone(bench, Some(case))? - upstream);
        }
    }
    println!(
        "\n| one request at a time; the upstream alone: {:.0} us | added p50 us | x nginx |",
        median(direct.into_iter())
    );
    println!("|---|---|---|");
    for (case, rounds) in Case::ALL.into_iter().zip(&added) {
        let ratio = median(rounds.iter().zip(&added[0]).map(|(case, nginx)| case / nginx));
        println!("| {} | {:.0} | {ratio:.2} |", case.title(), median(rounds.iter().copied()));
    }
    Ok(())
}

fn print_table(figures: &[Vec<cases::Figures>]) {
    let Some((nginx, _)) = figures.split_first() else { return };
    println!("\n| path | CPU us a request | min-max | x nginx | requests/s |");
    println!("|---|---|---|---|---|");
    for (case, rounds) in Case::ALL.into_iter().zip(figures) {
        let costs = || rounds.iter().map(|f| f.cpu_us);
        let cpu = median(costs());
        // Within a round, since the machine's speed drifts.
        let ratio = median(rounds.iter().zip(nginx).map(|(case, nginx)| case.cpu_us / nginx.cpu_us));
        let (low, high) = (costs().fold(f64::INFINITY, f64::min), costs().fold(0.0, f64::max));
        let rate = median(rounds.iter().map(|f| f.rate));
        println!("| {} | {cpu:.1} | {low:.1}-{high:.1} | {ratio:.2} | {rate:.0} |", case.title());
    }
}

/// The middle value; the lower one of two.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.0);
        assert!(median([].into_iter()).is_nan());
    }
}
