//! Config files of the tests: one pool, one route, and what a test adds.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::{Manifest, Person, Policy};

/// Everything that could be of interest when a test fails.
const VERBOSE: &str = "filter = \"debug\"\naccess_sample = 1";
/// Next to nothing.
const QUIET: &str = "filter = \"warn\"\naccess_sample = 0";

/// A config file to be. Addresses and the data folder are filled in when it is written.
#[derive(Clone)]
pub struct Config {
    upstreams: Vec<String>,
    kind: &'static str,
    pool: String,
    route: String,
    cache: String,
    caches: bool,
    semantic: Option<String>,
    listener: String,
    runtime: String,
    anonymous: bool,
    on_disk: bool,
    people: Vec<Person>,
    policies: Vec<(String, Policy, String)>,
    tables: String,
    top: String,
    admin: Option<String>,
    model_dir: Option<PathBuf>,
    log: &'static str,
    environment: Vec<(String, String)>,
}

impl Config {
    /// Exact caching in memory, in front of a server at this URL; anonymous callers are welcome.
    pub fn new(upstream: &str) -> Self {
        Self {
            upstreams: vec![upstream.to_owned()],
            kind: "generic",
            pool: String::new(),
            route: String::new(),
            cache: String::new(),
            caches: true,
            semantic: None,
            listener: String::new(),
            runtime: String::new(),
            anonymous: true,
            on_disk: false,
            people: Vec::new(),
            policies: Vec::new(),
            tables: String::new(),
            top: String::new(),
            admin: None,
            model_dir: None,
            log: VERBOSE,
            environment: Vec::new(),
        }
    }

    /// The server is an Ollama.
    pub fn ollama(mut self) -> Self {
        self.kind = "ollama";
        self
    }

    /// Another server.
    pub fn upstream(self, url: &str) -> Self {
        self.upstreams(&[url.to_owned()])
    }

    /// Several servers in its place.
    pub fn upstreams(mut self, urls: &[String]) -> Self {
        self.upstreams = urls.to_vec();
        self
    }

    /// Lines for `[pool.llm]`.
    pub fn pool(mut self, lines: &str) -> Self {
        writeln!(self.pool, "{lines}").unwrap();
        self
    }

    /// Lines for `[route.all]`.
    pub fn route(mut self, lines: &str) -> Self {
        writeln!(self.route, "{lines}").unwrap();
        self
    }

    /// Lines for `[route.all.cache]`.
    pub fn cache(mut self, lines: &str) -> Self {
        writeln!(self.cache, "{lines}").unwrap();
        self
    }

    /// The route says nothing of caching.
    pub fn without_cache(mut self) -> Self {
        self.caches = false;
        self
    }

    /// The semantic tier with the prepared model, and lines for its table.
    pub fn semantic(mut self, lines: &str) -> Self {
        self.semantic = Some(lines.to_owned());
        self
    }

    /// With another model in the place of the prepared one.
    pub fn model_dir(mut self, dir: &Path) -> Self {
        self.model_dir = Some(dir.to_owned());
        self
    }

    /// A store in Redis; with the file of the secret that its proxies share, and lines for `[store.redis]` and its tables.
    pub fn redis(self, secret: &Path, lines: &str) -> Self {
        let text = format!("[store]\nkind = \"redis\"\nsecret_file = {secret:?}\n\n[store.redis]\n{lines}\n");
        self.tables(&text)
    }

    /// Logs no requests: for tests with very many.
    pub fn quiet(mut self) -> Self {
        self.log = QUIET;
        self
    }

    /// An environment variable of the process.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lines for `[listener.main]`.
    pub fn listener(mut self, lines: &str) -> Self {
        writeln!(self.listener, "{lines}").unwrap();
        self
    }

    /// Lines for `[runtime]`.
    pub fn runtime(mut self, lines: &str) -> Self {
        writeln!(self.runtime, "{lines}").unwrap();
        self
    }

    /// Only callers with keys: these.
    pub fn people(mut self, people: &[&Person]) -> Self {
        self.anonymous = false;
        self.people.extend(people.iter().map(|person| (*person).clone()));
        self
    }

    /// Entries that survive a restart.
    pub fn on_disk(mut self) -> Self {
        self.on_disk = true;
        self
    }

    /// The route asks this policy, after those that were added before; with lines for its table.
    pub fn policy(mut self, name: &str, policy: &Policy, lines: &str) -> Self {
        self.policies.push((name.to_owned(), policy.clone(), lines.to_owned()));
        self
    }

    /// Whole tables.
    pub fn tables(mut self, text: &str) -> Self {
        writeln!(self.tables, "{text}").unwrap();
        self
    }

    /// Lines before the first table.
    pub fn top(mut self, lines: &str) -> Self {
        writeln!(self.top, "{lines}").unwrap();
        self
    }

    /// Lines in the place of those of `[admin]`: for configs that must be refused.
    pub fn admin(mut self, lines: &str) -> Self {
        self.admin = Some(lines.to_owned());
        self
    }

    pub(crate) fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// Writes it into a folder, for commands that read it and serve nothing.
    pub fn write(&self, dir: &Path) -> PathBuf {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let path = dir.join("refrain.toml");
        std::fs::write(&path, self.render(any, any, dir)).unwrap();
        path
    }

    pub(crate) fn render(&self, data: SocketAddr, admin: SocketAddr, dir: &Path) -> String {
        let names: Vec<&str> = self.policies.iter().map(|(name, ..)| name.as_str()).collect();
        let plugins = if names.is_empty() { String::new() } else { format!("plugins = {names:?}\n") };
        let Self { upstreams, kind, pool, route, cache, listener, runtime, anonymous, tables, log, .. } =
            self;
        let admin = self.admin.clone().unwrap_or_else(|| format!("address = \"{admin}\""));
        let top = &self.top;
        let mut text = format!(
            "{top}\n[listener.main]\naddress = \"{data}\"\nallow_anonymous = {anonymous}\n{listener}\n\
             [admin]\n{admin}\n\n\
             [runtime]\nworkers = 2\n{runtime}\n\
             [pool.llm]\nkind = {kind:?}\nendpoints = {upstreams:?}\n{pool}\n\
             [route.all]\npool = \"llm\"\n{plugins}{route}\n\
             [log]\n{log}\n\n"
        );
        if self.caches {
            writeln!(text, "[route.all.cache]\n{cache}").unwrap();
        }
        if self.on_disk {
            writeln!(text, "[store]\ndir = {:?}\n", dir.join("data")).unwrap();
        }
        if let Some(semantic) = &self.semantic {
            text.push_str(&self.semantic_tables(semantic));
        }
        if !self.policies.is_empty() {
            writeln!(text, "[plugin_host]\ncode_dir = {:?}\n", dir.join("code")).unwrap();
        }
        for (name, policy, lines) in &self.policies {
            text.push_str(&policy.table(dir, name, lines));
        }
        for person in &self.people {
            writeln!(text, "{}", person.table()).unwrap();
        }
        text + tables
    }

    /// The budget is generous: a loaded machine must not turn a semantic hit into a miss.
    fn semantic_tables(&self, semantic: &str) -> String {
        let manifest = Manifest::load();
        let model = self.model_dir.as_deref().unwrap_or(manifest.model_dir());
        let library = manifest.onnxruntime();
        format!(
            "[route.all.cache.semantic]\n{semantic}\n\n\
             [embedder]\nmodel_dir = {model:?}\nruntime_library = {library:?}\nbudget = \"10s\"\n\n"
        )
    }
}
