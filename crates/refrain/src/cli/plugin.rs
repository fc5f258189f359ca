//! Arguments of `refrain plugin`: what one does with cache policies from the first line to the figures.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use refrain_core::settings::Grant;

/// Calls that a benchmark makes of each hook and body, if it isn't told.
const BENCH_CALLS: u32 = 1000;

/// What to do with cache policies.
#[derive(Clone, Debug, Subcommand)]
pub enum PluginCommand {
    /// Write the folder of a new policy, ready to build
    New(NewPluginArguments),
    /// Build the policy of a folder into a component
    Build(BuildPluginArguments),
    /// Show what a component is, the grants that it needs, and the block for the config file
    Inspect(InspectPluginArguments),
    /// Ask a policy about one request, and show what it decides
    Run(RunPluginArguments),
    /// Check a policy against a file of cases
    Test(TestPluginArguments),
    /// Measure how long a policy takes, and how much memory
    Bench(BenchPluginArguments),
}

/// The policy to begin.
#[derive(Clone, Debug, Args)]
pub struct NewPluginArguments {
    /// Its name, and the name of its new folder
    #[arg(value_name = "NAME", value_parser = plugin_name)]
    pub name: String,
    /// What it is written in
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    pub lang: Language,
}

/// What a policy is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// Rust: small and fast
    Rust,
    /// JavaScript, on QuickJS
    Js,
    /// Python, on CPython
    Python,
    /// C
    C,
}

/// The policy to build.
#[derive(Clone, Debug, Args)]
pub struct BuildPluginArguments {
    /// Its folder
    #[arg(value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Where the component is written [default: NAME.wasm in its folder]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// The component to look at.
#[derive(Clone, Debug, Args)]
pub struct InspectPluginArguments {
    /// The component
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// As JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// A component, and what config would say of it.
#[derive(Clone, Debug, Args)]
pub struct PolicyArguments {
    /// The component
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What it is told, as JSON: an object [default: {}]
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    pub config: Option<String>,
    /// What it may do beside tightening, such as `shared-scope,pool` [default: nothing]
    #[arg(long, value_name = "GRANTS", value_delimiter = ',', value_parser = grant)]
    pub grants: Vec<Grant>,
    /// A route of a config file, whose bounds hold [default: a route with all defaults]
    #[arg(long, value_name = "FILE#ROUTE", value_parser = route_of_file)]
    pub route_config: Option<RouteOfFile>,
}

/// A route of a config file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteOfFile {
    /// The file.
    pub file: PathBuf,
    /// The route's name in it.
    pub route: String,
}

/// What to ask a policy.
#[derive(Clone, Debug, Args)]
pub struct RunPluginArguments {
    /// The policy.
    #[command(flatten)]
    pub policy: PolicyArguments,
    /// JSON file: { "path", "method", "headers", "caller": { "tenant", "user", "claims" }, "body" }, or a chat's body alone
    #[arg(long, value_name = "FILE")]
    pub request: PathBuf,
    /// As JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// What to check.
#[derive(Clone, Debug, Args)]
pub struct TestPluginArguments {
    /// The component
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// TOML file with the cases
    #[arg(value_name = "CASES")]
    pub cases: PathBuf,
}

/// What to measure.
#[derive(Clone, Debug, Args)]
pub struct BenchPluginArguments {
    /// The policy.
    #[command(flatten)]
    pub policy: PolicyArguments,
    /// A request of one's own, as `refrain plugin run` takes it [default: chats of 1 KB and of 256 KB]
    #[arg(long, value_name = "FILE")]
    pub request: Option<PathBuf>,
    /// Calls of each hook
    #[arg(long, value_name = "N", default_value_t = BENCH_CALLS, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub calls: u32,
}

/// A name for config, a folder and a package of every language.
fn plugin_name(text: &str) -> Result<String, String> {
    let fits = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    let begins = text.chars().next().is_some_and(|letter| letter.is_ascii_lowercase());
    if !begins || !text.chars().all(fits) || text.ends_with('-') || text.len() > 64 {
        return Err(
            "a policy's name begins with a letter and has lower-case letters, digits and -".to_owned()
        );
    }
    Ok(text.to_owned())
}

fn json_object(text: &str) -> Result<String, String> {
    match serde_json::from_str(text) {
        Ok(serde_json::Value::Object(_)) => Ok(text.to_owned()),
        Ok(_) => Err("expected an object, like {\"ttl\": 60}".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn grant(text: &str) -> Result<Grant, String> {
    let known = || Grant::ALL.map(Grant::as_str).join(", ");
    let found = Grant::ALL.into_iter().find(|grant| grant.as_str() == text);
    found.ok_or_else(|| format!("unknown grant; known: {}", known()))
}

fn route_of_file(text: &str) -> Result<RouteOfFile, String> {
    match text.rsplit_once('#') {
        Some((file, route)) if !file.is_empty() && !route.is_empty() => {
            Ok(RouteOfFile { file: file.into(), route: route.to_owned() })
        }
        _ => Err("expected a file and one of its routes, like refrain.toml#chat".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(line: &str) -> Result<PluginCommand, clap::Error> {
        let command = Cli::try_parse_from(line.split_whitespace())?.command;
        let Some(Command::Plugin { command }) = command else { panic!("no plugin command: {line}") };
        Ok(command)
    }

    #[test]
    fn a_run_takes_grants_a_config_and_a_route() {
        let line = "refrain plugin run p.wasm --request r.json --grants pool,state --config {} --route-config a#b#chat";
        let Ok(PluginCommand::Run(run)) = parse(line) else { panic!("not a run") };
        assert_eq!(run.policy.grants, [Grant::Pool, Grant::State]);
        assert_eq!(run.policy.config.as_deref(), Some("{}"));
        let route = RouteOfFile { file: "a#b".into(), route: "chat".into() };
        assert_eq!(run.policy.route_config, Some(route));
    }

    #[test]
    fn what_can_not_be_meant_is_refused_with_what_could_be() {
        for (line, expected) in [
            ("refrain plugin run p --request r --grants pol", "shared-scope, refuse, key-edit"),
            ("refrain plugin run p --request r --config []", "expected an object"),
            ("refrain plugin run p --request r --config {x}", "key must be a string"),
            ("refrain plugin run p --request r --route-config a.toml", "like refrain.toml#chat"),
            ("refrain plugin new Tenant_Scope", "lower-case letters"),
            ("refrain plugin new -a", "unexpected argument"),
            ("refrain plugin bench p --calls 0", "0 is not in"),
            ("refrain plugin test p", "<CASES>"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn a_new_policy_is_rust_unless_it_is_said_otherwise() {
        let Ok(PluginCommand::New(new)) = parse("refrain plugin new tenant-scope") else { panic!("not new") };
        assert_eq!((new.name.as_str(), new.lang), ("tenant-scope", Language::Rust));
        let Ok(PluginCommand::New(new)) = parse("refrain plugin new a --lang js") else { panic!("not new") };
        assert_eq!(new.lang, Language::Js);
        let Ok(PluginCommand::Build(build)) = parse("refrain plugin build") else { panic!("no build") };
        assert_eq!((build.dir, build.output), (".".into(), None));
    }
}
