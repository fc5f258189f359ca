//! The arguments of `refrain cost`.

use clap::Args;

use super::AdminArguments;

const NOTES: &str = "\
GPU time   a server's time, shared evenly at each moment among the requests that it answers. A server counts as one GPU.
Cost       that time at the server's price: price_per_hour in [pool.NAME], or what vast.ai and RunPod say.
With idle  the whole bill of the pool, by who kept it busy.
Freed      generations that stored answers spared, at the pool's average share of a server. Money is saved only where the
           number of servers follows the load: elastic = true in [pool.NAME].
Break-even the part of what caching could spare at most that pays for the cache: cache_per_hour in [cost].
All figures are this proxy's own, since it started. Tokens are those that servers tell: of a stream past the cache, only if
its client asks for them.";

/// What to show.
#[derive(Clone, Debug, Args)]
#[command(after_help = NOTES)]
pub struct CostArguments {
    /// As JSON, with all tenants
    #[arg(long)]
    pub json: bool,
    /// How to reach it
    #[command(flatten)]
    pub admin: AdminArguments,
}
