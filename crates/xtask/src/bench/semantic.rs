//! How long a semantic hit takes, by how many entries share its scope: one connection, embedding included.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::cases::PROXY_CORE;
use super::median;
use crate::child::{Server, free_port};
use crate::http::Client;
use crate::manifest::{Manifest, require};

/// Hits measured at each size.
const HITS: usize = 300;
/// Connections that fill the store.
const FILLERS: usize = 4;

const SUBJECTS: [&str; 20] = [
    "garden", "printer", "bicycle", "kitchen", "engine", "camera", "piano", "window", "battery", "harbour",
    "forest", "library", "market", "bridge", "island", "tunnel", "castle", "museum", "station", "valley",
];
const VERBS: [&str; 20] = [
    "clean",
    "repair",
    "describe",
    "measure",
    "paint",
    "sell",
    "photograph",
    "visit",
    "move",
    "protect",
    "inspect",
    "insure",
    "map",
    "restore",
    "light",
    "heat",
    "secure",
    "advertise",
    "rent",
    "survey",
];
const MANNERS: [&str; 20] = [
    "quickly",
    "cheaply",
    "in winter",
    "with children",
    "at night",
    "by hand",
    "without tools",
    "for guests",
    "safely",
    "in the rain",
    "before sunrise",
    "on a budget",
    "with a friend",
    "for a film",
    "after a storm",
    "in silence",
    "for the first time",
    "like a professional",
    "with recycled material",
    "during a strike",
];

/// Fills a scope to each size in turn and prints the median time of a semantic hit.
pub(super) fn run(refrain: &Path, dir: &Path, manifest: &Manifest, sizes: &[usize]) -> Result<()> {
    let (upstream, port) = super::nginx::start(
        require("nginx", "bench", manifest.nginx.as_ref())?,
        dir,
        super::nginx::Role::Upstream,
    )?;
    let (server, url) = start(refrain, dir, manifest, port)?;
    println!("\n| entries in the scope | semantic hit, p50 ms | hits of {HITS} |\n|---|---|---|");
    let mut filled = 0;
    for &size in sizes {
        fill(&url, filled, size)?;
        filled = filled.max(size);
        let (p50, hits) = measure(&url, size)?;
        println!("| {filled} | {p50:.2} | {hits} |");
    }
    drop((server, upstream));
    Ok(())
}

fn start(refrain: &Path, dir: &Path, manifest: &Manifest, upstream: u16) -> Result<(Server, String)> {
    let (data, admin) = (free_port()?, free_port()?);
    let text = |path: &Path| serde_json::to_string(&path.to_string_lossy());
    let config = format!(
        "# Written by `cargo xtask bench`.\n\
         [listener.main]\naddress = \"127.0.0.1:{data}\"\n\
         [admin]\naddress = \"127.0.0.1:{admin}\"\n\
         [runtime]\nworkers = 1\n\
         [log]\naccess_sample = 0\n\
         [store]\nmemory = \"2 GiB\"\n\
         [embedder]\nmodel_dir = {}\nruntime_library = {}\nbudget = \"5s\"\n\
         [pool.up]\nendpoints = [\"http://127.0.0.1:{upstream}\"]\n\
         [route.chat]\npool = \"up\"\n\
         [route.chat.cache]\nttl = \"1day\"\n\
         [route.chat.cache.semantic]\nthreshold = 0.9\n",
        text(require("embedding model", "model", manifest.model_dir.as_ref())?)?,
        text(require("ONNX Runtime", "model", manifest.onnxruntime.as_ref())?)?,
    );
    let file = dir.join("semantic.toml");
    fs::write(&file, config)?;
    let mut command = Command::new("taskset");
    command.args(["-c", &PROXY_CORE.to_string()]).arg(refrain).arg("--config").arg(&file);
    let server = Server::start(
        "refrain",
        &mut command,
        dir.join("semantic.log"),
        &format!("http://127.0.0.1:{admin}/readyz"),
    )?;
    Ok((server, format!("http://127.0.0.1:{data}/v1/chat/completions")))
}

fn fill(url: &str, from: usize, to: usize) -> Result<()> {
    std::thread::scope(|scope| {
        let fillers: Vec<_> =
            (0..FILLERS).map(|nth| scope.spawn(move || fill_share(url, from + nth, to))).collect();
        for filler in fillers {
            filler.join().map_err(|_| anyhow::anyhow!("a filler panicked"))??;
        }
        Ok(())
    })
}

fn fill_share(url: &str, from: usize, to: usize) -> Result<()> {
    let client = Client::new(Duration::from_secs(30));
    for nth in (from..to).step_by(FILLERS) {
        let answer = client.post(url, &body(&question(nth)), &[])?;
        ensure!(answer.status == 200, "filling failed with status {}", answer.status);
    }
    Ok(())
}

/// Asks stored questions in other words; only semantic hits are timed.
fn measure(url: &str, size: usize) -> Result<(f64, usize)> {
    let client = Client::new(Duration::from_secs(30));
    let mut times = Vec::new();
    for nth in 0..HITS {
        let stored = question((nth * 7919) % size);
        let asked = body(&format!("{stored} Please."));
        let begun = Instant::now();
        // `no-store`: what is measured must not grow.
        let answer = client.post(url, &asked, &[("cache-control", "no-store")])?;
        let took = begun.elapsed().as_secs_f64() * 1e3;
        if answer.cache_status.contains("detail=semantic") {
            times.push(took);
        }
    }
    Ok((median(times.iter().copied()), times.len()))
}

/// About 15 word pieces; differs from every other.
fn question(nth: usize) -> String {
    let pick = |words: &[&'static str; 20], nth: usize| words[nth % 20];
    let other = nth / 8000;
    format!(
        "How do I {} my {} {}{}?",
        pick(&VERBS, nth),
        pick(&SUBJECTS, nth / 20),
        pick(&MANNERS, nth / 400),
        if other == 0 {
            String::new()
        } else {
            format!(" and {} the {}", pick(&VERBS, other), pick(&SUBJECTS, other / 20))
        }
    )
}

fn body(question: &str) -> String {
    serde_json::json!({"model": "bench", "temperature": 0, "messages": [{"role": "user", "content": question}]})
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_differ() {
        let all: std::collections::HashSet<_> = (0..100_000).map(question).collect();
        assert_eq!(all.len(), 100_000);
    }
}
