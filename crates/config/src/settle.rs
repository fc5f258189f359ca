//! Typed tables -> [`Settings`]: every name resolved, every rule that spans keys checked.

mod admin;
mod cache;
mod certificates;
mod cost;
mod endpoints;
mod fleet;
mod hash;
mod keys;
mod listeners;
mod plugins;
mod pools;
mod process;
mod quota;
mod routes;
mod secrets;
mod store;
mod telemetry;
mod tenants;
mod tokens;
mod url;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use refrain_core::Settings;
use refrain_core::settings::{ApiKey, CertificateRule, TokenIssuer};

use crate::Loaded;
use crate::error::{Errors, Place, Problem, Problems, Suggestion};
use crate::raw::{self, Config};
use crate::source::Source;
use crate::text::FilePath;
use crate::tree::Node;

pub use hash::parse_key_hash;
pub(crate) use hash::parse_sha256;
pub(crate) use url::endpoint_of_url;

/// How many known names are shown, rather than the closest one.
const NAMES_SHOWN_MAX: usize = 8;

/// Longest name of a route, pool, listener, plugin or key. Names are labels of metrics.
const NAME_BYTES_MAX: usize = 64;

/// Makes settings, or gives all problems, those found before included.
pub(crate) fn settle(
    raw: Config,
    tree: &Node,
    source: &Source,
    problems: Problems<'_>,
) -> Result<Loaded, Errors> {
    let mut context = Context::new(tree, source, problems);
    context.check_names();
    let admin = admin::settle(&mut context, raw.admin);
    let has_keys_file = context.has_keys_file();
    let identities = identities(&mut context, (raw.key, raw.keys_file), raw.jwt, raw.certificate);
    let has_credentials = identities.are_configured(&context);
    let listeners = listeners::settle(&mut context, raw.listener, admin.as_ref(), has_credentials);
    let store_dir = raw.store.dir.as_ref().map(|dir| source.resolve(&dir.0));
    let store = store::settle(&mut context, raw.store);
    let embedder = raw.embedder.and_then(|embedder| process::embedder(&context, embedder));
    let pools = pools::settle(&mut context, raw.pool, &fleet::Tenants::of(&identities));
    let otlp = raw.otlp.and_then(|otlp| telemetry::otlp(&mut context, otlp));
    let plugin_host = plugins::host(&context, raw.plugin_host, store_dir.as_deref());
    let plugins = plugins::settle(&mut context, raw.plugin, &plugin_host);
    let rate_limits = quota::settle(&mut context, raw.limit, &store, &identities.keys);
    let routes = routes::settle(&mut context, raw.route, &pools, &plugins, &store);
    let settings = Settings {
        listeners,
        admin,
        runtime: process::runtime(raw.runtime),
        limits: process::limits(&mut context, raw.limits),
        store,
        embedder,
        rate_limits,
        keys: identities.keys,
        has_keys_file,
        tokens: identities.tokens,
        certificates: identities.certificates,
        tenants: tenants::settle(&mut context, raw.tenant),
        plugin_host,
        plugins: plugins.by_name,
        pools,
        fleet: fleet::fleet(&raw.fleet),
        cost: cost::settle(&raw.cost),
        routes,
        log: process::log(raw.log),
        otlp,
    };
    context.finish(settings)
}

/// Whoever may ask.
struct Identities {
    keys: Vec<ApiKey>,
    tokens: Vec<TokenIssuer>,
    certificates: Vec<CertificateRule>,
}

impl Identities {
    /// Whether the file asks for credentials, be they right or wrong.
    fn are_configured(&self, context: &Context<'_>) -> bool {
        let named = |table| !context.names(table).is_empty();
        context.has_keys_file() || named("key") || named("certificate") || named("jwt")
    }
}

fn identities(
    context: &mut Context<'_>,
    (keys, keys_file): (BTreeMap<String, raw::Key>, Option<FilePath>),
    jwt: BTreeMap<String, raw::Jwt>,
    certificates: BTreeMap<String, raw::CertificateRule>,
) -> Identities {
    let tokens = tokens::settle(context, jwt);
    let keys = keys::settle(context, keys, keys_file, &tokens);
    let certificates = certificates::settle(context, certificates, &tokens);
    tokens::warn_of_idle(context, &tokens, &keys, &certificates);
    Identities { keys, tokens, certificates }
}

/// What settling needs to know beside the tables, and what it finds.
struct Context<'a> {
    tree: &'a Node,
    source: &'a Source,
    problems: Problems<'a>,
    /// How many problems were found before: what is wrong already need not be reported as missing.
    known: usize,
    warnings: Vec<Problem>,
    files: Vec<PathBuf>,
}

impl<'a> Context<'a> {
    fn new(tree: &'a Node, source: &'a Source, problems: Problems<'a>) -> Self {
        let files = vec![source.file.clone()];
        Self { tree, source, known: problems.len(), problems, warnings: Vec::new(), files }
    }

    /// Reports a problem, unless something at or below the path was wrong in itself and may be its cause.
    fn refuse(&mut self, path: &[&str], message: impl Into<String>, suggestion: Option<Suggestion>) {
        let (origin, dotted) = self.tree.locate(path);
        if !self.problems.holds(&dotted, self.known) {
            self.problems.at(origin, &dotted, message, suggestion);
        }
    }

    /// Reports a problem of a variable that stands for a key.
    fn refuse_variable(&mut self, variable: &str, dotted: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(Place::Variable(variable.to_owned()), dotted, message));
    }

    /// Whether something at or below the path was wrong in itself, so that it is missing in the raw tables.
    fn is_wrong(&self, path: &[&str]) -> bool {
        self.problems.holds(&self.tree.locate(path).1, self.known)
    }

    fn warn(&mut self, path: &[&str], message: impl Into<String>) {
        let (origin, dotted) = self.tree.locate(path);
        self.warnings.push(Problem::new(self.problems.place(origin), dotted, message));
    }

    /// Names that the document gives, also to what is otherwise wrong.
    fn names(&self, table: &str) -> Vec<&'a str> {
        self.tree.names(table)
    }

    /// Whether there may be more keys than the document has, and others tomorrow.
    fn has_keys_file(&self) -> bool {
        self.tree.table().is_some_and(|top| top.contains_key("keys_file"))
    }

    /// Reports a name that nothing has. Such names are often siblings (`gpu-a`, `gpu-b`), so a few are all shown.
    fn refuse_unknown(&mut self, path: &[&str], what: &str, name: &str, known: &[&str]) {
        let suggestion = if known.len() <= NAMES_SHOWN_MAX {
            Suggestion::Known(known.iter().map(|name| (*name).to_owned()).collect())
        } else {
            Suggestion::among(name, known.iter().copied())
        };
        self.refuse(path, format!("unknown {what} {name:?}"), Some(suggestion));
    }

    /// A path as the file means it; the file is watched.
    fn watched(&mut self, path: &Path) -> PathBuf {
        let path = self.source.resolve(path);
        if !self.files.contains(&path) {
            self.files.push(path.clone());
        }
        path
    }

    fn check_names(&mut self) {
        for table in ["listener", "pool", "route", "plugin", "key", "limit", "jwt", "certificate"] {
            for name in self.names(table) {
                if !is_name(name) {
                    self.refuse(
                        &[table, name],
                        "a name has 1 to 64 letters, digits, \"-\", \"_\" or \".\"",
                        None,
                    );
                }
            }
        }
    }

    fn finish(self, settings: Settings) -> Result<Loaded, Errors> {
        if self.problems.is_empty() {
            return Ok(Loaded { settings, warnings: self.warnings, files: self.files });
        }
        Err(self.problems.into_errors())
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}
