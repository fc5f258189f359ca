//! `cargo xtask run`: the real proxy in front of a real LLM server, shown by a few requests.
//!
//! Prints what the cache did with each and how long the upstream and Refrain itself took. Stays up for more, or with
//! `--once` ends: successfully only if every row was as expected.

mod proxy;
mod relay;
mod rows;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::child::{check_free, free_port};
use crate::llama::LlamaServer;
use crate::manifest::Manifest;
use crate::{plugins, setup, workspace};
use proxy::Proxy;
pub(crate) use proxy::{Profile, build};
use relay::Relay;
pub(crate) use rows::body;
#[cfg(test)]
pub(crate) use rows::questions;

const DATA_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9090;
/// Of plugins/: decides on one of the routes.
const POLICY: &str = "ttl-by-intent";

/// How to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// End after the requests; fail if one was not as expected. Takes free ports.
    #[arg(long)]
    once: bool,
    /// Ask this server (http://host:port, with an OpenAI API) instead of our own llama-server.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Model to ask for.
    #[arg(long, default_value = "gemma-3-270m")]
    model: String,
    /// Run this binary instead of building it for release.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where clients connect [default: 8080].
    #[arg(long)]
    port: Option<u16>,
    /// Where operators connect [default: 9090].
    #[arg(long)]
    admin_port: Option<u16>,
}

/// Builds, starts, asks, and reports.
pub(crate) fn run(args: &Args) -> Result<()> {
    let data = address("--port", args.port, DATA_PORT, args.once)?;
    let admin = address("--admin-port", args.admin_port, ADMIN_PORT, args.once)?;
    setup::run(&setup::Args::to_run())?;
    let setup_dir = workspace::setup_dir();
    let manifest = Manifest::load(&setup_dir)?;
    let program = args.binary.clone().map_or_else(|| build(Profile::Release), Ok)?;

    let policy = plugins::component(POLICY, &program)?;

    let dir = setup_dir.join("run");
    std::fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
    let upstream = Upstream::start(args.upstream.as_deref(), &manifest, &dir)?;
    let relay = Relay::start(upstream.authority())?;
    let config = proxy::config(&manifest, (data, admin), relay.address(), &policy)?;
    let mut proxy = Proxy::start(&program, &config, &dir, admin)?;

    let wrong = rows::ask_all(data, &args.model, &relay)?;
    println!("logs and config: {}", dir.display());
    if !args.once {
        println!(
            "\nup at http://{data} (operators: http://{admin}); end it with Ctrl-C. Try:\n{}",
            curl(data, &args.model)
        );
        bail!("refrain ended: {}", proxy.wait()?);
    }
    if wrong > 0 {
        bail!("{wrong} rows were not as expected (log: {})", proxy.log().display());
    }
    Ok(())
}

/// The server that answers misses.
enum Upstream {
    Own(LlamaServer),
    Other(String),
}

impl Upstream {
    fn start(url: Option<&str>, manifest: &Manifest, dir: &Path) -> Result<Self> {
        match url {
            Some(url) => Ok(Self::Other(authority(url)?.to_owned())),
            None => {
                println!("starting llama-server ...");
                Ok(Self::Own(LlamaServer::start(manifest, dir)?))
            }
        }
    }

    fn authority(&self) -> String {
        match self {
            Self::Own(server) => server.authority(),
            Self::Other(authority) => authority.clone(),
        }
    }
}

fn authority(url: &str) -> Result<&str> {
    let authority = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    match authority {
        Some(authority) if authority.contains(':') && !authority.contains('/') => Ok(authority),
        _ => bail!("--upstream {url}: give it as http://host:port"),
    }
}

fn address(option: &str, port: Option<u16>, default: u16, once: bool) -> Result<SocketAddr> {
    let port = match port {
        Some(port) => port,
        None if once => free_port()?,
        None => default,
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    check_free(address, option)?;
    Ok(address)
}

fn curl(data: SocketAddr, model: &str) -> String {
    let body = body(model, "How do I reset my password?", false);
    format!("  curl -i http://{data}/v1/chat/completions -H 'content-type: application/json' -d '{body}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_a_plain_server_url() {
        assert_eq!(authority("http://gpu:8000/").unwrap(), "gpu:8000");
        for url in ["https://gpu:8000", "gpu:8000", "http://gpu", "http://gpu:8000/v1"] {
            assert!(authority(url).is_err(), "{url}");
        }
    }
}
