//! The arguments of `refrain purge`.

use clap::{ArgGroup, Args};

use super::AdminArguments;

const EXAMPLES: &str = "\
Nothing is removed without --yes: first look, then mean it.

Examples:
  refrain purge --tag price-list                  how many answers with this tag of a policy, by route
  refrain purge --tag price-list --yes            remove them
  refrain purge --route chat --older-than 2h      conditions are met together
  refrain purge --tenant acme --user ann --yes    all that ann of acme asked first
  refrain purge --model llama3.3 --soft --yes     let them expire: stale windows go on, so upstreams get no rush
  refrain purge --everything --yes

A purge takes effect at once: similar questions find nothing either, what is being generated meanwhile is not stored if
it is meant too, and nobody who asks from then on joins it. The command returns when the answers are off the disk.

Other users' answers may hold the same text: what was asked by two users in scopes of their own is stored twice.
Exit: 0 done (also if nothing matched), 1 it could not be done, 2 the command line is wrong.";

/// What to purge.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group(ArgGroup::new("selection").required(true).multiple(true)
    .args(["tag", "route", "model", "tenant", "user", "key", "older_than", "everything"])))]
pub struct PurgeArguments {
    /// Answers that a policy gave this tag
    #[arg(long, value_name = "TAG")]
    pub tag: Option<String>,
    /// Answers that this route stored
    #[arg(long, value_name = "ROUTE")]
    pub route: Option<String>,
    /// Answers of this model, as the upstream calls it
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Answers that a caller of this tenant asked for first
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// Answers that this user asked for first (of any tenant: name that too)
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// One answer: an admin's request with `x-refrain-debug: 1` is told its key in `refrain-debug`
    #[arg(long, value_name = "HEX", value_parser = key)]
    pub key: Option<String>,
    /// Answers stored longer ago than this, such as 30m or 2h
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub older_than: Option<String>,
    /// All answers
    #[arg(long, conflicts_with_all = ["tag", "route", "model", "tenant", "user", "key", "older_than"])]
    pub everything: bool,
    /// Let them expire instead of removing them: within stale windows they are served while one request refreshes each
    #[arg(long)]
    pub soft: bool,
    /// Do it; without this they are only counted
    #[arg(long)]
    pub yes: bool,
    /// How to reach it
    #[command(flatten)]
    pub admin: AdminArguments,
}

fn key(text: &str) -> Result<String, String> {
    crate::purge::parse_key(text).map(|_| text.to_owned())
}

fn age(text: &str) -> Result<String, String> {
    crate::purge::parse_age(text).map(|_| text.to_owned())
}
