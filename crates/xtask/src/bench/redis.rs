//! The shared store beside bare commands to the same Redis: with the query engine, and with vector sets.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::child::{Server, free_port};
use crate::manifest::{Manifest, require};
use crate::{command, workspace};

/// Starts each kind of server, and runs the benchmark of `refrain-cache` against it.
pub(super) fn run(manifest: &Manifest, dir: &Path, vectors: usize) -> Result<()> {
    let server = require("Redis 8", "redis", manifest.redis_server.as_ref())?;
    let engine = require("redisearch.so", "redis", manifest.redisearch.as_ref())?;
    println!("\nThe shared store; one connection, medians of latency");
    for with_engine in [true, false] {
        let port = free_port()?;
        let mut command = Command::new(server);
        command.current_dir(dir).args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        if with_engine {
            command.arg("--loadmodule").arg(engine);
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let _redis = Server::start_listening("redis-server", &mut command, dir.join("redis.log"), address)?;
        measure(address, vectors)?;
    }
    Ok(())
}

fn measure(address: SocketAddr, vectors: usize) -> Result<()> {
    let status = command::cargo()
        .args(["bench", "--quiet", "--package", "refrain-cache", "--bench", "shared"])
        .env("REDIS_URL", format!("redis://{address}"))
        .env("VECTORS", vectors.to_string())
        .current_dir(workspace::root())
        .status()?;
    if !status.success() {
        bail!("the benchmark of the shared store ended with {status}");
    }
    Ok(())
}
