//! The arguments of `refrain key`.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

/// What to do with keys.
#[derive(Clone, Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a random key: prints it once, and the block for the config file, or adds that to a file of keys
    New(NewKeyArguments),
    /// Show who has keys; never a key
    List(KeyPlace),
    /// Remove a key from the file that has it: who uses it is refused within a second
    Revoke(RevokeKeyArguments),
}

/// The key to make.
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("owner").required(true).args(["tenant", "operator"])))]
pub struct NewKeyArguments {
    /// The organisation it belongs to: answers are never shared between tenants
    #[arg(long, value_name = "T")]
    pub tenant: Option<String>,
    /// A token of the admin listener instead, that may only look, or also purge, reload and drain
    #[arg(long, value_enum, value_name = "ROLE")]
    pub operator: Option<Operator>,
    /// Who stands behind it
    #[arg(long, value_enum, default_value_t = Kind::Personal, conflicts_with = "operator")]
    pub kind: Kind,
    /// The person, for a personal key [default: the key's name]
    #[arg(long, value_name = "U", conflicts_with = "operator")]
    pub user: Option<String>,
    /// Its name in config, logs and metrics [default: made from the tenant]
    #[arg(long, value_name = "N", value_parser = key_name)]
    pub name: Option<String>,
    /// From when on it is refused, such as 2027-01-31 or 2027-01-31T12:00:00Z [default: never]
    #[arg(long, value_name = "WHEN", value_parser = moment, conflicts_with = "operator")]
    pub expires: Option<SystemTime>,
    /// Add it to this file, which `keys_file` of the config names; it is made if it isn't there
    #[arg(long, value_name = "FILE", conflicts_with = "operator")]
    pub file: Option<PathBuf>,
}

/// Where keys are.
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("place").required(true).args(["file", "config"])))]
pub struct KeyPlace {
    /// A file of keys
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A config file, and the file of keys that it names
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The key to remove.
#[derive(Clone, Debug, Args)]
pub struct RevokeKeyArguments {
    /// Its name, as `refrain key list` shows it
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where it is.
    #[command(flatten)]
    pub place: KeyPlace,
}

/// Who stands behind a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// One person: the key is the user, and has a cache of its own
    Personal,
    /// A program that speaks for many: not cached per user
    Service,
}

/// What the owner of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Operator {
    /// See metrics, health, settings and servers
    Read,
    /// Also purge, reload, drain
    Operate,
}

impl Kind {
    /// The word in config.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Personal => "personal",
            Self::Service => "service",
        }
    }
}

impl Operator {
    /// The word in config.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

/// A name that TOML takes without quotes.
fn key_name(text: &str) -> Result<String, String> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    if text.is_empty() || !text.chars().all(fits) {
        return Err("a name consists of letters, digits, - and _".to_owned());
    }
    Ok(text.to_owned())
}

fn moment(text: &str) -> Result<SystemTime, String> {
    refrain_config::parse_moment(text)
}
