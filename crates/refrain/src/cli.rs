//! The command line, and its help: the page that an operator reads first, and at night.

mod bench;
mod cost;
mod key;
mod plugin;
mod purge;
mod store;
mod upstreams;
mod why;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use bench::{
    Arrivals, AskingArguments, BenchArguments, BenchCommand, CompareArguments, LoadArguments,
    WorkloadArguments, WorkloadKind,
};
pub(crate) use cost::CostArguments;
#[cfg(test)]
pub(crate) use key::Operator;
pub(crate) use key::{KeyCommand, KeyPlace, Kind, NewKeyArguments, RevokeKeyArguments};
pub(crate) use plugin::{
    BenchPluginArguments, BuildPluginArguments, InspectPluginArguments, Language, NewPluginArguments,
    PluginCommand, PolicyArguments, RouteOfFile, RunPluginArguments, TestPluginArguments,
};
pub(crate) use purge::PurgeArguments;
pub(crate) use store::{CollectStoreArguments, DropStoreArguments, StoreCommand};
pub(crate) use upstreams::{EndpointName, UpstreamsArguments, UpstreamsCommand};
pub(crate) use why::{
    AskedArguments, ExplainArguments, FeedbackArguments, MissesArguments, Said, TuneArguments,
};

const EXAMPLES: &str = "\
Examples:
  refrain --upstream http://127.0.0.1:11434         cache in front of the Ollama on this machine; no file needed
  refrain --config /etc/refrain.toml                serve what the file says
  refrain check --config /etc/refrain.toml          is the file right, and does everything in it answer?
  refrain key new --tenant acme --kind service      a new API key, and what to write into the file
  refrain key list --config /etc/refrain.toml       who has keys
  refrain plugin new tenant-scope --lang rust       a cache policy of your own: docs/plugins.md
  refrain purge --route chat --older-than 2h        how many stored answers that is; with --yes they are removed
  refrain bench --url http://127.0.0.1:8080 ...     how fast it answers under load, and how much of it from the cache
  refrain explain --request req.json --as acme/ann  would this request hit? from what, or why not?
  refrain misses                                    what keeps requests apart
  refrain feedback --id chatcmpl-7f3a               an answer is wrong: who was served it? with --yes it is removed
  refrain upstreams                                 the servers: who is well, how busy, what went wrong last
  refrain cost                                      what the servers cost, and what the cache is worth
  refrain store ls --config /etc/refrain.toml       what proxies share in Redis

While it runs:
  curl http://127.0.0.1:8080/v1/chat/completions    clients ask here; look at `Cache-Status` of the answers
  curl http://127.0.0.1:9090/readyz                 is it ready, and is anything degraded?
  curl http://127.0.0.1:9090/metrics                numbers for Prometheus
  curl http://127.0.0.1:9090/config                 what is in force, without secrets
  curl -X POST http://127.0.0.1:9090/reload         read the file again (as does SIGHUP, and saving the file)

Ports:    8080 is for clients, 9090 for operators (no login unless config has tokens: keep it on this machine).
Stopping: SIGTERM or Ctrl-C lets answers under way finish (30 s, runtime.drain_timeout); a second one stops at once.
Logs:     on stderr. --log debug for more, --log warn for less.
Exit:     0 well, 1 something failed, 2 the configuration or the command line is wrong.
Docs:     https://github.com/refrain-proxy/refrain/tree/main/docs; all settings: refrain schema";

/// An edge proxy and answer cache for fleets of LLM servers.
#[derive(Clone, Debug, Parser)]
#[command(name = "refrain", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
#[command(
    override_usage = "refrain --upstream URL [OPTIONS]\n       refrain --config FILE [OPTIONS]\n       refrain <COMMAND>"
)]
pub struct Cli {
    /// Without a command: serve.
    #[command(flatten)]
    pub serve: ServeArguments,
    /// Everything else.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// How to serve.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArguments {
    /// TOML file that says what to serve [env: REFRAIN_CONFIG, unless --upstream is given]
    // Not clap's `env`: a variable that is set for good would conflict with every --upstream.
    #[arg(long, value_name = "FILE", conflicts_with = "upstream")]
    pub config: Option<PathBuf>,
    /// Serve this one server without a file: exact caching in memory, for this machine only
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// Where clients connect [default: the file's, else 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Where operators connect [default: the file's, else 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// What is logged, such as `debug` or `info,refrain_upstream=debug` [default: the file's, else info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// What else the program does.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Measure a server under load: first token, gaps, tokens a second, hits; compare set-ups
    Bench(Box<BenchArguments>),
    /// Check a config file, and that everything it names is there and answers
    Check(CheckArguments),
    /// Show what the servers cost, who they worked for, and what the cache is worth
    Cost(CostArguments),
    /// Say why a request would hit or not: route, caller, key part by part, similar questions, servers
    Explain(ExplainArguments),
    /// Say of an answer that it is wrong: remove it, and list whom it was served to
    Feedback(FeedbackArguments),
    /// Make, show and revoke API keys
    Key {
        /// What to do with keys.
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Say what keeps requests apart that miss
    Misses(MissesArguments),
    /// Write, build, try and measure cache policies
    Plugin {
        /// What to do with them.
        #[command(subcommand)]
        command: PluginCommand,
    },
    /// Remove stored answers of a running refrain, or let them expire
    Purge(PurgeArguments),
    /// Print the JSON schema of the config file
    Schema,
    /// Look after a store in Redis: what is there, what leads nowhere, remove all
    Store {
        /// What to do with it.
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Propose a route's threshold from labels, with the precision to expect
    Tune(TuneArguments),
    /// Show the servers behind a running refrain, or take one out of service
    Upstreams(UpstreamsArguments),
}

/// What to check.
#[derive(Clone, Debug, Args)]
pub struct CheckArguments {
    /// TOML file to check
    #[arg(long, value_name = "FILE", env = "REFRAIN_CONFIG")]
    pub config: PathBuf,
    /// Refrain runs with this file now: don't ask for free addresses
    #[arg(long)]
    pub running: bool,
}

/// How to reach a running Refrain.
#[derive(Clone, Debug, Args)]
pub struct AdminArguments {
    /// Where refrain listens for operators
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9090", global = true)]
    pub admin: SocketAddr,
    /// File with the token that lets you in, where one is needed [env: REFRAIN_ADMIN_TOKEN holds the token itself]
    #[arg(long, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.kind())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serving_needs_no_command() {
        let cli = parse(
            "refrain --upstream http://127.0.0.1:11434 --listen 127.0.0.1:0 --admin [::1]:0 --log debug",
        );
        let serve = cli.unwrap().serve;
        assert_eq!(serve.upstream.as_deref(), Some("http://127.0.0.1:11434"));
        assert_eq!(serve.listen, Some(([127, 0, 0, 1], 0).into()));
        assert_eq!(serve.admin.unwrap().to_string(), "[::1]:0");
        assert_eq!(serve.log.as_deref(), Some("debug"));
    }

    #[test]
    fn a_file_and_an_upstream_exclude_each_other() {
        assert_eq!(parse("refrain --config a --upstream http://b").unwrap_err(), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn a_listen_address_without_port_is_refused() {
        assert_eq!(
            parse("refrain --upstream http://b --listen localhost").unwrap_err(),
            ErrorKind::ValueValidation
        );
    }

    #[test]
    fn commands_have_their_arguments() {
        let Some(Command::Check(check)) = parse("refrain check --config a.toml --running").unwrap().command
        else {
            panic!("not a check");
        };
        assert!(check.running && check.config.ends_with("a.toml"));
        assert_eq!(parse("refrain key new").unwrap_err(), ErrorKind::MissingRequiredArgument);
        let name = parse("refrain key new --tenant t --name a.b");
        assert_eq!(name.unwrap_err(), ErrorKind::ValueValidation);
        assert_eq!(
            parse("refrain key new --tenant t --operator read").unwrap_err(),
            ErrorKind::ArgumentConflict
        );
        assert_eq!(parse("refrain key list").unwrap_err(), ErrorKind::MissingRequiredArgument);
        assert!(parse("refrain key revoke a --file keys.toml").is_ok());
        assert!(matches!(parse("refrain schema").unwrap().command, Some(Command::Schema)));
        let keep = parse("refrain store gc --config a --keep m");
        assert_eq!(keep.unwrap_err(), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn a_purge_selects_something_and_everything_excludes_the_rest() {
        let Some(Command::Purge(purge)) =
            parse("refrain purge --tag a --older-than 2h --soft").unwrap().command
        else {
            panic!("not a purge");
        };
        assert!(purge.soft && !purge.yes && purge.admin.admin.port() == 9090);
        assert_eq!(parse("refrain purge --yes").unwrap_err(), ErrorKind::MissingRequiredArgument);
        assert_eq!(parse("refrain purge --everything --tag a").unwrap_err(), ErrorKind::ArgumentConflict);
        for wrong in ["refrain purge --older-than 2", "refrain purge --key 1234"] {
            assert_eq!(parse(wrong).unwrap_err(), ErrorKind::ValueValidation);
        }
    }

    #[test]
    fn fleet_endpoints_are_named_with_their_pools() {
        let Some(Command::Upstreams(shown)) = parse("refrain upstreams --json").unwrap().command else {
            panic!("not upstreams");
        };
        assert!(shown.json && shown.command.is_none() && shown.admin.admin.port() == 9090);
        let line = "refrain upstreams drain gpu/k8s/a --admin 127.0.0.1:1";
        let Some(Command::Upstreams(drain)) = parse(line).unwrap().command else {
            panic!("not upstreams");
        };
        let Some(UpstreamsCommand::Drain(which)) = drain.command else { panic!("not a drain") };
        assert_eq!(
            (&*which.endpoint.pool, &*which.endpoint.endpoint, drain.admin.admin.port()),
            ("gpu", "k8s/a", 1)
        );
        assert_eq!(parse("refrain upstreams drain a").unwrap_err(), ErrorKind::ValueValidation);
    }

    #[test]
    fn help_and_version_are_there() {
        assert_eq!(parse("refrain --help").unwrap_err(), ErrorKind::DisplayHelp);
        assert_eq!(parse("refrain --version").unwrap_err(), ErrorKind::DisplayVersion);
    }
}
