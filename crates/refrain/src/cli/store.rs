//! The arguments of `refrain store`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  refrain store ls --config refrain.toml                    what is there: entries, vectors, models, layouts
  refrain store gc --config refrain.toml                    what leads nowhere: how much that is
  refrain store gc --config refrain.toml --models --yes     remove it, and the vectors of former models
  refrain store gc --config refrain.toml --layouts --yes    ... and what versions of before have left behind
  refrain store drop --config refrain.toml                  everything under the prefix: how much that is

Nothing is removed without --yes: first look, then mean it. Proxies may run meanwhile: the server is asked in small
steps, with pauses. To forget answers rather than keys, see `refrain purge`.
Exit: 0 done, 1 Redis could not be asked, 2 the command line or the configuration is wrong.";

/// What to do with what is in Redis.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum StoreCommand {
    /// Show what stands under the prefix: layouts, entries, vectors and their models, indexes, streams
    Ls(ListStoreArguments),
    /// Remove what leads nowhere: vectors without entries and, if asked to, other models and older layouts
    Gc(CollectStoreArguments),
    /// Remove everything under the prefix: proxies that run begin anew
    Drop(DropStoreArguments),
}

/// Which store.
#[derive(Clone, Debug, Args)]
pub struct ListStoreArguments {
    /// TOML file of a proxy that uses the store
    #[arg(long, value_name = "FILE", env = "REFRAIN_CONFIG")]
    pub config: PathBuf,
}

/// What to collect.
#[derive(Clone, Debug, Args)]
pub struct CollectStoreArguments {
    /// TOML file of a proxy that uses the store
    #[arg(long, value_name = "FILE", env = "REFRAIN_CONFIG")]
    pub config: PathBuf,
    /// Also remove vector sets and indexes of other models than the configured one
    #[arg(long)]
    pub models: bool,
    /// With --models, keep this one too, as `refrain store ls` shows it (may be repeated)
    #[arg(long, value_name = "MODEL", requires = "models")]
    pub keep: Vec<String>,
    /// Also remove all keys of older layouts
    #[arg(long)]
    pub layouts: bool,
    /// Do it; without this it is only counted
    #[arg(long)]
    pub yes: bool,
}

/// What to drop.
#[derive(Clone, Debug, Args)]
pub struct DropStoreArguments {
    /// TOML file of a proxy that uses the store
    #[arg(long, value_name = "FILE", env = "REFRAIN_CONFIG")]
    pub config: PathBuf,
    /// Only keys of this layout
    #[arg(long, value_name = "N")]
    pub layout: Option<u32>,
    /// Do it; without this it is only counted
    #[arg(long)]
    pub yes: bool,
}
