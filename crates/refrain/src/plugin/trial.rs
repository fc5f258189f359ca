//! A policy as config would have it, without a config: a route that runs it alone, and the host.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use anyhow::{Context as _, anyhow, bail};
use refrain_config::{Errors, Loaded, Source};
use refrain_core::settings::{Grant, Route};
use refrain_plugin::PluginHost;
use toml::{Table, Value};

use crate::cli::{PolicyArguments, RouteOfFile};

/// Largest component that is read, in bytes. SpiderMonkey's and CPython's have 10 to 20 MiB.
const COMPONENT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The pool of the route. Nothing is ever sent there.
const POOL: &str = "upstream";

/// Variables that say where the user's caches are, and so where compiled code is kept.
const PLACES: [&str; 2] = ["HOME", "XDG_CACHE_HOME"];

/// What config would say.
#[derive(Clone, Debug, Default)]
pub(super) struct Trial {
    /// `[plugin.NAME]` without its file.
    pub(super) plugin: Table,
    /// `[route.NAME]` without pool and plugins.
    pub(super) route: Table,
    /// The route's name.
    pub(super) route_name: String,
}

/// The name of a route that the user didn't name.
pub(super) const ROUTE: &str = "chat";

/// The host, with compiled code kept where a Refrain without a store keeps it.
pub(super) fn host() -> anyhow::Result<Arc<PluginHost>> {
    let loaded = load(&document(Path::new("policy.wasm"), &Trial::default()))?;
    Ok(PluginHost::start(&loaded.settings.plugin_host)?)
}

/// A component's bytes.
pub(super) fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let read = || -> io::Result<Vec<u8>> {
        let bytes = fs::metadata(file)?.len();
        if bytes > COMPONENT_BYTES_MAX {
            return Err(io::Error::other(format!("larger than {COMPONENT_BYTES_MAX} bytes")));
        }
        fs::read(file)
    };
    read().with_context(|| format!("can't read {}", file.display()))
}

/// The route of the command line: of a file, or one with all defaults.
pub(super) fn route_of_arguments(arguments: &PolicyArguments) -> anyhow::Result<Route> {
    let PolicyArguments { file, config, grants, route_config } = arguments;
    let trial = Trial::with_grants(grants);
    let own = trial.route(file)?;
    let mut route = match route_config {
        Some(route_config) => Route { plugins: own.plugins, ..route_of_file(route_config)? },
        None => own,
    };
    if let (Some(config), Some(on_route)) = (config, route.plugins.first_mut()) {
        on_route.config.clone_from(config);
    }
    Ok(route)
}

impl Trial {
    /// All defaults but for grants.
    pub(super) fn with_grants(grants: &[Grant]) -> Self {
        let words = grants.iter().map(|grant| Value::from(grant.as_str())).collect();
        Self { plugin: Table::from_iter([("grants".to_owned(), Value::Array(words))]), ..Self::default() }
    }

    /// A route that runs the policy alone.
    ///
    /// # Errors
    /// What config would refuse.
    pub(super) fn route(&self, file: &Path) -> anyhow::Result<Route> {
        let loaded = load(&document(file, self))?;
        let route = loaded.settings.routes.first().context("no route")?;
        Ok(Route::clone(route))
    }
}

/// The name of a policy in config: of its file, as far as config takes it.
pub(super) fn name_of(file: &Path) -> String {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let name: String = stem.chars().map(|letter| if fits(letter) { letter } else { '-' }).take(64).collect();
    if name.is_empty() { "policy".to_owned() } else { name }
}

fn document(file: &Path, trial: &Trial) -> Table {
    let table = |entries: Vec<(&str, Value)>| -> Value {
        Value::Table(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    };
    let pool = table(vec![("endpoints", Value::Array(vec!["http://127.0.0.1:1".into()]))]);
    let name = name_of(file);
    let mut plugin = trial.plugin.clone();
    // Absolute, since the document has no folder.
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    plugin.insert("file".to_owned(), file.to_string_lossy().into_owned().into());
    let mut route = trial.route.clone();
    route.insert("pool".to_owned(), POOL.into());
    route.insert("plugins".to_owned(), Value::Array(vec![name.as_str().into()]));
    let route_name = if trial.route_name.is_empty() { ROUTE } else { &trial.route_name };
    let mut document = vec![
        ("pool", table(vec![(POOL, pool)])),
        ("plugin", table(vec![(&name, Value::Table(plugin))])),
        ("route", table(vec![(route_name, Value::Table(route))])),
    ];
    if trial.route.get("cache").and_then(|cache| cache.get("semantic")).is_some() {
        // Config wants one to be named. Nothing is embedded.
        document.push(("embedder", table(vec![("model_dir", ".".into()), ("runtime_library", ".".into())])));
    }
    document.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Loads a document that was made here: its lines say nothing to anybody, its paths do.
fn load(document: &Table) -> anyhow::Result<Loaded> {
    let environment = refrain_config::process_environment();
    let places = environment.into_iter().filter(|(name, _)| PLACES.contains(&name.as_str()));
    let source = Source::from_text("", toml::to_string(document)?, places);
    refrain_config::load(&source).map_err(|errors| anyhow!(without_lines(&errors)))
}

fn without_lines(errors: &Errors) -> String {
    let line = |problem: &refrain_config::Problem| match &problem.suggestion {
        Some(suggestion) => format!("{}: {}; {suggestion}", problem.path, problem.message),
        None => format!("{}: {}", problem.path, problem.message),
    };
    errors.problems().iter().map(line).collect::<Vec<_>>().join("\n")
}

fn route_of_file(named: &RouteOfFile) -> anyhow::Result<Route> {
    let source = Source::read(named.file.clone(), refrain_config::process_environment())?;
    let settings = refrain_config::load(&source)?.settings;
    match settings.routes.iter().find(|route| route.id.as_str() == named.route) {
        Some(route) => Ok(Route::clone(route)),
        None => {
            let known: Vec<&str> = settings.routes.iter().map(|route| route.id.as_str()).collect();
            bail!("{}: unknown route {:?}; known: {}", named.file.display(), named.route, known.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use refrain_core::settings::OnError;

    use super::*;

    #[test]
    fn a_trial_is_a_route_with_the_policy_alone() {
        let trial = Trial::with_grants(&[Grant::Pool]);
        let route = trial.route(Path::new("x/tenant scope.wasm")).unwrap();
        let [on_route] = route.plugins.as_slice() else { panic!("one plugin") };
        assert_eq!((route.id.as_str(), on_route.plugin.id.as_str()), ("chat", "tenant-scope"));
        assert!(on_route.plugin.file.is_absolute() && on_route.plugin.file.ends_with("x/tenant scope.wasm"));
        assert_eq!(on_route.plugin.on_error, OnError::Reject);
    }

    #[test]
    fn what_config_would_refuse_is_told_with_its_path() {
        let route: Table = toml::from_str("cache = { ttl = \"1h\", ttl_max = \"1m\" }").unwrap();
        let error = Trial { route, ..Trial::default() }.route(Path::new("p.wasm")).unwrap_err().to_string();
        assert_eq!(error, "route.chat.cache.ttl_max: can't be below ttl, \"1h\"; raise it, or leave it out");
    }

    #[test]
    fn a_semantic_route_needs_no_embedder_here() {
        let route: Table = toml::from_str("cache.semantic = {}").unwrap();
        let route = Trial { route, ..Trial::default() }.route(Path::new("p.wasm")).unwrap();
        assert!(route.cache.semantic.is_some());
    }

    #[test]
    fn a_route_of_a_file_keeps_its_bounds_and_gets_the_policy() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("refrain.toml");
        let text =
            "[pool.p]\nendpoints = [\"http://a\"]\n[route.r]\npool = \"p\"\ncache = { ttl = \"5m\" }\n";
        fs::write(&file, text).unwrap();
        let arguments = |route: &str| PolicyArguments {
            file: "p.wasm".into(),
            config: Some("{\"a\":1}".into()),
            grants: Vec::new(),
            route_config: Some(RouteOfFile { file: file.clone(), route: route.into() }),
        };
        let route = route_of_arguments(&arguments("r")).unwrap();
        assert_eq!(
            (route.cache.freshness.ttl.as_secs(), route.plugins[0].config.as_str()),
            (300, "{\"a\":1}")
        );
        let error = route_of_arguments(&arguments("x")).unwrap_err().to_string();
        assert!(error.ends_with("unknown route \"x\"; known: r"), "{error}");
    }
}
