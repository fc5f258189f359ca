//! The arguments of `refrain upstreams`.

use clap::{Args, Subcommand};

use super::AdminArguments;

const EXAMPLES: &str = "\
Examples:
  refrain upstreams                       who is there, how they do, what they cost, what went wrong last
  refrain upstreams --json                the same with more, for programs
  refrain upstreams drain gpu/rented-1    no new requests go there; then watch until its load is 0, and stop it
  refrain upstreams undrain gpu/rented-1  back in service

States:  healthy; on_trial: one request finds out whether it is back; ejected: it failed too often, or asked to be left
         alone; down: it can't be reached, or isn't ready; awaited: new, and not ready yet; draining: by your word.
A drain holds for the proxy that is told, until it is taken back, the endpoint's settings change, or the proxy restarts.";

/// What to show or change.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct UpstreamsArguments {
    /// Without it: show them.
    #[command(subcommand)]
    pub command: Option<UpstreamsCommand>,
    /// As JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// How to reach refrain
    #[command(flatten)]
    pub admin: AdminArguments,
}

/// What to change.
#[derive(Clone, Debug, Subcommand)]
pub enum UpstreamsCommand {
    /// Send an endpoint no new requests; those under way end
    Drain(WhichEndpoint),
    /// Put a drained endpoint back in service
    Undrain(WhichEndpoint),
}

/// Which endpoint.
#[derive(Clone, Debug, Args)]
pub struct WhichEndpoint {
    /// As `refrain upstreams` shows them
    #[arg(value_name = "POOL/ENDPOINT", value_parser = endpoint_name)]
    pub endpoint: EndpointName,
}

/// An endpoint's name and its pool's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointName {
    /// The pool.
    pub pool: String,
    /// The endpoint in it.
    pub endpoint: String,
}

/// Names of pools have no slash; those of endpoints may.
fn endpoint_name(text: &str) -> Result<EndpointName, String> {
    let (pool, endpoint) = text.split_once('/').unwrap_or_default();
    if pool.is_empty() || endpoint.is_empty() {
        return Err("name both the pool and the endpoint, such as gpu/10.0.0.2:8000".to_owned());
    }
    Ok(EndpointName { pool: pool.to_owned(), endpoint: endpoint.to_owned() })
}
