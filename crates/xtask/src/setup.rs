//! `cargo xtask setup`: prepares what tests and `cargo xtask run` need, once.
//!
//! Each step has pinned versions and hashes. It builds in a staging folder, moves the result into place and leaves a stamp;
//! a step whose stamp fits is done, without network. Packages come through the developer's own pip and cargo
//! configuration.

mod apt;
mod bench;
mod clients;
mod llm;
mod model;
mod pinned;
mod plugins;
mod prerequisites;
mod prometheus;
mod python;
mod redis;
mod site;
mod stamp;
mod tools;
mod wasm_std;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::manifest::Manifest;
use crate::workspace;
pub(crate) use pinned::sha256;
use python::Python;
use site::Site;
use stamp::Stamp;

/// What to prepare.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Only this step (may be given several times); by default all but `bench`.
    #[arg(long, value_enum)]
    only: Vec<Step>,
}

impl Args {
    /// What `cargo xtask run` needs.
    pub(crate) fn to_run() -> Self {
        Self { only: vec![Step::Model, Step::Llm] }
    }

    /// What `cargo xtask plugins` needs.
    pub(crate) fn to_build_plugins() -> Self {
        Self { only: vec![Step::Plugins, Step::WasmStd] }
    }

    /// What `cargo xtask bench` needs.
    pub(crate) fn to_bench() -> Self {
        Self { only: vec![Step::Model, Step::Bench, Step::Redis] }
    }
}

/// One thing to prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    /// The embedding model and ONNX Runtime.
    Model,
    /// llama.cpp's server and a small language model.
    Llm,
    /// The openai, ollama and anthropic Python packages.
    Clients,
    /// cargo-nextest.
    Tools,
    /// What turns C, JavaScript and Python into WebAssembly components.
    Plugins,
    /// Rust's standard library for WebAssembly.
    WasmStd,
    /// Redis 8 with and without the query engine, and Redis 7.
    Redis,
    /// Prometheus and promtool.
    Prometheus,
    /// nginx and wrk, for `cargo xtask bench`.
    Bench,
}

impl Step {
    const ALL: [Self; 9] = [
        Self::Model,
        Self::Llm,
        Self::Clients,
        Self::Tools,
        Self::Plugins,
        Self::WasmStd,
        Self::Redis,
        Self::Prometheus,
        Self::Bench,
    ];
    const DEFAULT: [Self; 8] = [
        Self::Model,
        Self::Llm,
        Self::Clients,
        Self::Tools,
        Self::Plugins,
        Self::WasmStd,
        Self::Redis,
        Self::Prometheus,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Llm => "llm",
            Self::Clients => "clients",
            Self::Tools => "tools",
            Self::Plugins => "plugins",
            Self::WasmStd => "wasm-std",
            Self::Redis => "redis",
            Self::Prometheus => "prometheus",
            Self::Bench => "bench",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Model => "embedding model",
            Self::Llm => "LLM server",
            Self::Clients => "client packages",
            Self::Tools => "cargo-nextest",
            Self::Plugins => "tools for cache policies",
            Self::WasmStd => "Rust's library for WebAssembly",
            Self::Redis => "Redis servers",
            Self::Prometheus => "Prometheus",
            Self::Bench => "nginx and wrk",
        }
    }

    /// Everything that decides the result; a change of it makes the step due again.
    fn inputs(self, python: &Python) -> String {
        match self {
            Self::Model => model::inputs(),
            Self::Llm => llm::inputs(),
            Self::Clients => clients::inputs(python),
            Self::Tools => tools::inputs(),
            Self::Plugins => plugins::inputs(python),
            Self::WasmStd => wasm_std::inputs(),
            Self::Redis => redis::inputs(),
            Self::Prometheus => prometheus::inputs(),
            Self::Bench => bench::inputs(),
        }
    }

    /// Prepares it and gives the files that must be there from now on.
    fn prepare(self, site: &Site) -> Result<Vec<PathBuf>> {
        match self {
            Self::Model => model::prepare(site),
            Self::Llm => llm::prepare(site),
            Self::Clients => clients::prepare(site),
            Self::Tools => tools::prepare(site),
            Self::Plugins => plugins::prepare(site),
            Self::WasmStd => wasm_std::prepare(site),
            Self::Redis => redis::prepare(site),
            Self::Prometheus => prometheus::prepare(site),
            Self::Bench => bench::prepare(site),
        }
    }

    /// What the developer must be told once.
    fn notice(self) -> Option<&'static str> {
        (self == Self::Llm).then_some(llm::NOTICE)
    }

    /// Enters what it prepared.
    fn describe(self, site: &Site, manifest: &mut Manifest) {
        match self {
            Self::Model => model::describe(site, manifest),
            Self::Llm => llm::describe(site, manifest),
            Self::Clients => clients::describe(site, manifest),
            Self::Tools => tools::describe(site, manifest),
            Self::Plugins => plugins::describe(site, manifest),
            // The compiler knows where it is.
            Self::WasmStd => {}
            Self::Redis => redis::describe(site, manifest),
            Self::Prometheus => prometheus::describe(site, manifest),
            Self::Bench => bench::describe(manifest),
        }
    }
}

/// The versions of what builds policies: other ones may give other components.
pub(crate) fn plugin_pins() -> String {
    plugins::pins()
}

/// Prepares the chosen steps that are not done yet and writes the manifest.
pub(crate) fn run(args: &Args) -> Result<()> {
    let steps = if args.only.is_empty() { Step::DEFAULT.to_vec() } else { args.only.clone() };
    let progress = Progress { total: steps.len() + 1 };
    let dir = workspace::setup_dir();
    std::fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
    let _lock = site::lock(&dir)?;

    let site = progress
        .step(1, "prerequisites", || Ok((Site::new(dir, Python::find()?), Outcome::Done { notice: None })))?;
    if steps.iter().any(|step| is_due(*step, &site)) {
        prerequisites::check(&site)?;
    }
    for (index, step) in steps.iter().enumerate() {
        progress.step(index + 2, step.title(), || Ok(((), ensure(*step, &site)?)))?;
    }
    describe_all(&site).save(&site.dir)?;
    println!("ready: {}", site.dir.join("manifest.json").display());
    Ok(())
}

enum Outcome {
    Done { notice: Option<&'static str> },
    AlreadyThere,
}

struct Progress {
    total: usize,
}

impl Progress {
    fn step<T>(&self, number: usize, title: &str, work: impl FnOnce() -> Result<(T, Outcome)>) -> Result<T> {
        print!("[{number}/{}] {title} ... ", self.total);
        std::io::stdout().flush()?;
        let start = Instant::now();
        let (value, outcome) =
            work().inspect_err(|_| println!("failed")).with_context(|| title.to_owned())?;
        match outcome {
            Outcome::Done { notice } => {
                println!("{:.1} s", start.elapsed().as_secs_f32());
                notice.into_iter().for_each(|text| println!("{text}"));
            }
            Outcome::AlreadyThere => println!("already there"),
        }
        Ok(value)
    }
}

fn fingerprint(step: Step, site: &Site) -> String {
    sha256(step.inputs(&site.python).as_bytes())
}

fn is_due(step: Step, site: &Site) -> bool {
    !Stamp::fits(site, step.name(), &fingerprint(step, site))
}

fn ensure(step: Step, site: &Site) -> Result<Outcome> {
    if !is_due(step, site) {
        return Ok(Outcome::AlreadyThere);
    }
    Stamp::remove(site, step.name())?;
    let files = step.prepare(site)?;
    Stamp::of(fingerprint(step, site), files)?.save(site, step.name())?;
    site.remove_staging()?;
    Ok(Outcome::Done { notice: step.notice() })
}

/// The manifest of every step that is done, those of earlier runs included.
fn describe_all(site: &Site) -> Manifest {
    let mut manifest = Manifest::new();
    for step in Step::ALL {
        if !is_due(step, site) {
            step.describe(site, &mut manifest);
        }
    }
    manifest
}
