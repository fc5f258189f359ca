//! The measured paths: nginx, and Refrain passing through, missing and hitting.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::nginx::{self, Role};
use super::wrk::{self, Unique};
use super::{Bench, cpu};
use crate::child::{Server, free_port};

/// Where the proxy under test runs.
pub(super) const PROXY_CORE: usize = 0;
/// Where wrk and the upstream run.
pub(super) const LOAD_CORE: usize = 1;

/// One measured path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Nginx,
    PassThrough,
    Miss,
    PolicyMiss,
    ExactHit,
}

impl Case {
    /// In the order of a round; nginx first.
    pub(super) const ALL: [Self; 5] =
        [Self::Nginx, Self::PassThrough, Self::Miss, Self::PolicyMiss, Self::ExactHit];

    /// The header that selects the route.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::PassThrough => "pass",
            Self::Miss => "miss",
            Self::PolicyMiss => "policy",
            Self::ExactHit => "hit",
        }
    }

    /// The name in the table.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Nginx => "nginx, pass-through",
            Self::PassThrough => "refrain, pass-through",
            Self::Miss => "refrain, miss (parse, key, look-up, tee, store)",
            Self::PolicyMiss => "refrain, miss with a policy in Rust",
            Self::ExactHit => "refrain, exact hit",
        }
    }

    fn unique(self) -> Unique {
        if matches!(self, Self::Miss | Self::PolicyMiss) { Unique::Yes } else { Unique::No }
    }
}

/// One measurement.
pub(super) struct Figures {
    /// CPU microseconds of the proxy a request.
    pub(super) cpu_us: f64,
    /// Requests a second.
    pub(super) rate: f64,
}

/// All servers of a run.
pub(super) struct Stage {
    nginx: Server,
    refrain: Server,
    /// Kept alive only.
    _upstream: Server,
    upstream_port: u16,
    nginx_port: u16,
    refrain_port: u16,
    scripts: Vec<PathBuf>,
}

impl Stage {
    /// Starts the upstream, nginx and Refrain.
    pub(super) fn start(bench: &Bench) -> Result<Self> {
        let (upstream, port) = nginx::start(&bench.nginx, &bench.dir, Role::Upstream)?;
        let (nginx, nginx_port) = nginx::start(&bench.nginx, &bench.dir, Role::Proxy { upstream: port })?;
        let (refrain, refrain_port) = start_refrain(bench, port)?;
        let script = |case: Case| wrk::script(&bench.dir, case.name(), case.name(), case.unique());
        let scripts = Case::ALL.into_iter().map(script).collect::<Result<_>>()?;
        Ok(Self {
            nginx,
            refrain,
            _upstream: upstream,
            upstream_port: port,
            nginx_port,
            refrain_port,
            scripts,
        })
    }

    /// Loads one case and gives what it cost.
    pub(super) fn measure(&self, bench: &Bench, case: Case) -> Result<Figures> {
        let (server, port) = match case {
            Case::Nginx => (&self.nginx, self.nginx_port),
            Case::PassThrough | Case::Miss | Case::PolicyMiss | Case::ExactHit => {
                (&self.refrain, self.refrain_port)
            }
        };
        let url = format!("http://127.0.0.1:{port}/v1/chat/completions");
        let script = &self.scripts[case as usize];
        let before = cpu::on_cpu(server.pid())?;
        let counted = wrk::run((&bench.wrk, LOAD_CORE), wrk::CONNECTIONS, (script, &url), bench.load)?;
        let used = cpu::on_cpu(server.pid())?.saturating_sub(before);
        #[expect(clippy::cast_precision_loss, reason = "counts of a few million")]
        let cpu_us = used.as_secs_f64() * 1e6 / counted.requests as f64;
        Ok(Figures { cpu_us, rate: counted.rate })
    }

    /// Asks one after the other over one connection; half of the requests took less, in microseconds. No case: the upstream
    /// itself.
    pub(super) fn alone(&self, bench: &Bench, case: Option<Case>) -> Result<f64> {
        let port = match case {
            None => self.upstream_port,
            Some(Case::Nginx) => self.nginx_port,
            Some(_) => self.refrain_port,
        };
        let url = format!("http://127.0.0.1:{port}/v1/chat/completions");
        let script = &self.scripts[case.unwrap_or(Case::Nginx) as usize];
        Ok(wrk::run((&bench.wrk, LOAD_CORE), 1, (script, &url), bench.load)?.p50_ms * 1e3)
    }

    pub(super) fn refrain_mib(&self) -> Result<u64> {
        cpu::resident_mib(self.refrain.pid())
    }

    pub(super) fn nginx_mib(&self) -> Result<u64> {
        cpu::resident_mib(self.nginx.pid())
    }
}

fn start_refrain(bench: &Bench, upstream: u16) -> Result<(Server, u16)> {
    let (data, admin) = (free_port()?, free_port()?);
    let config = format!(
        "# Written by `cargo xtask bench`.\n\
         [listener.main]\naddress = \"127.0.0.1:{data}\"\n\
         [admin]\naddress = \"127.0.0.1:{admin}\"\n\
         [runtime]\nworkers = 1\n\
         [log]\naccess_sample = 0\n\
         [store]\nmemory = \"64 MiB\"\n\
         [pool.up]\nendpoints = [\"http://127.0.0.1:{upstream}\"]\nidle_connections = 256\n\
         [route.pass]\npool = \"up\"\nheaders = {{ x-bench = \"pass\" }}\ncache = false\n\
         [route.cached]\npool = \"up\"\n\
         [plugin.bench]\nfile = {policy:?}\nconfig = {config}\n\
         [route.policy]\npool = \"up\"\nheaders = {{ x-bench = \"policy\" }}\nplugins = [\"bench\"]\n",
        policy = bench.policy,
        config = super::policies::RUST_CONFIG,
    );
    let file = bench.dir.join("refrain.toml");
    fs::write(&file, config)?;
    let mut command = Command::new("taskset");
    command.args(["-c", &PROXY_CORE.to_string()]).arg(&bench.refrain).arg("--config").arg(&file);
    let ready = format!("http://127.0.0.1:{admin}/readyz");
    Ok((Server::start("refrain", &mut command, bench.dir.join("refrain.log"), &ready)?, data))
}
