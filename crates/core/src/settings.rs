//! The validated configuration: made by `refrain-config`, read by everybody, holding no dangling name.
//!
//! Every limit of the product has its name and its default here.

mod cost;
mod discover;
mod edge;
mod endpoint;
mod fleet;
mod gpu;
mod identity;
mod plugin;
mod pool;
mod quota;
mod redis;
mod telemetry;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{Freshness, LimitId, ListenerId, PluginId, PoolId, Role, RouteId, Scope, TenantId, Veto};

pub use cost::{Cost, MicroDollars, PoolCost, TokenPrices};
pub use discover::{
    Discovery, DiscoverySource, DnsSource, KubernetesSource, RunPodSource, RunPodVia, ServicePort, Shrinking,
    SrvSource, Token, VastSource,
};
pub use edge::{Limits, Network, Runtime};
pub use endpoint::{EndpointTls, HttpVersion};
pub use fleet::{Admission, Balance, Fleet, HashBy, Health, Sessions, Tenancy};
pub use gpu::{GpuExporter, GpuUnit};
pub use identity::{
    AdminToken, ApiKey, AuthMethod, CertificateName, CertificateRule, CertificateUser, ClaimValue, KeyHash,
    KeyKind, KeySetUrl, OperatorRole, SigningKeys, Tenant, TokenAlgorithm, TokenIssuer, TokenPlace,
    TokenTenant,
};
pub use plugin::{Grant, Isolation, OnError, Plugin, PluginHost, PluginLimits, RoutePlugin};
pub use pool::{Endpoint, Pool, PoolKind, Secret, Timeouts};
pub use quota::{
    HitCost, LimitBy, LimitPlace, Measure, OnLimitError, Priority, Quota, Rate, RateLimit, Window,
};
pub use redis::{RedisClientCertificate, RedisCredentials, RedisNode, RedisStore, RedisTls, VectorSearch};
pub use telemetry::{Otlp, ParentContext, PromptLog, Traces};

/// Everything that one run of Refrain is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients connect. At least one.
    pub listeners: Vec<Listener>,
    /// Where operators connect; none: no admin listener.
    pub admin: Option<Admin>,
    /// Threads and shutdown.
    pub runtime: Runtime,
    /// Bounds on what a client may send.
    pub limits: Limits,
    /// Where answers are kept.
    pub store: Store,
    /// The embedding model; none: no semantic tier anywhere.
    pub embedder: Option<Embedder>,
    /// How much callers may ask for, by name. A route has those that it names.
    pub rate_limits: BTreeMap<LimitId, Arc<RateLimit>>,
    /// API keys. Never the keys themselves.
    pub keys: Vec<ApiKey>,
    /// Whether there may be keys, though there are none at present: a file of keys that is empty knows no key, which isn't the
    /// same as asking for none.
    pub has_keys_file: bool,
    /// Who signs tokens.
    pub tokens: Vec<TokenIssuer>,
    /// Whose client certificates are, those that name one alone first.
    pub certificates: Vec<CertificateRule>,
    /// What all callers of a tenant may have.
    pub tenants: BTreeMap<TenantId, Tenant>,
    /// What runs policies.
    pub plugin_host: PluginHost,
    /// Policies, by name.
    pub plugins: BTreeMap<PluginId, Arc<Plugin>>,
    /// Named groups of upstream endpoints.
    pub pools: BTreeMap<PoolId, Arc<Pool>>,
    /// Other proxies.
    pub fleet: Fleet,
    /// What the whole costs.
    pub cost: Cost,
    /// In the order in which they are tried: longest path first, then more conditions first, then name.
    pub routes: Vec<Arc<Route>>,
    /// Logs and the access line.
    pub log: Log,
    /// Where traces and metrics are sent; none: nowhere.
    pub otlp: Option<Otlp>,
}

/// One data listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name in config.
    pub id: ListenerId,
    /// Where it listens; port 0 takes any free port.
    pub address: SocketAddr,
    /// TLS, if it terminates it.
    pub tls: Option<Tls>,
    /// Whether callers without credentials are served, as one anonymous user. Always so on loopback without keys.
    pub allow_anonymous: bool,
    /// What the anonymous user may do.
    pub anonymous_role: Role,
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Chosen by SNI; the first is the default.
    pub certificates: Vec<Certificate>,
    /// Whether clients show certificates; none: they are not asked to.
    pub clients: Option<ClientCertificates>,
}

/// Certificates of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// PEM file of the authorities that vouch for clients.
    pub ca_file: PathBuf,
    /// Whether a client without one is let in, for another credential.
    pub need: ClientCertificateNeed,
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificateNeed {
    /// Without one there is no connection.
    Required,
    /// Without one, another credential may do.
    Optional,
}

/// A certificate chain and its key, as PEM files. The names it serves are read from the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// PEM chain, leaf first.
    pub chain: PathBuf,
    /// PEM key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

/// The admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who may come in; empty: everybody who can connect.
    pub tokens: Vec<AdminToken>,
    /// Whether `/metrics` asks for no token, as `/livez` and a short `/readyz` never do.
    pub open_metrics: bool,
}

/// Where answers are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Store {
    /// Nowhere: no route caches.
    Off,
    /// In this process, and on its disk if a directory is given.
    Embedded(EmbeddedStore),
    /// In Redis, shared with other proxies.
    Redis(RedisStore),
}

impl Store {
    /// Largest entry, in bytes of its record; 0: nothing is stored.
    pub fn entry_bytes_max(&self) -> usize {
        match self {
            Self::Off => 0,
            Self::Embedded(store) => store.entry_bytes_max,
            Self::Redis(store) => store.entry_bytes_max,
        }
    }
}

/// The embedded store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedStore {
    /// Bytes of memory for entries and vectors.
    pub memory_bytes_max: usize,
    /// Directory for entries that survive a restart and for the key secret; none: memory only.
    pub dir: Option<PathBuf>,
    /// Bytes on disk.
    pub disk_bytes_max: u64,
    /// Largest entry, in bytes of its record.
    pub entry_bytes_max: usize,
    /// What to do while another process has the directory.
    pub when_locked: WhenLocked,
}

/// What a store does while another process has its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WhenLocked {
    /// The start fails: two processes in one directory are a mistake.
    #[default]
    Refuse,
    /// It begins in memory and takes the directory over when the other process lets go.
    Wait,
}

/// The embedding model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedder {
    /// Directory with `model.onnx`, `tokenizer.json`, `config.json`, `special_tokens_map.json`, `tokenizer_config.json`.
    pub model_dir: PathBuf,
    /// ONNX Runtime's shared library.
    pub runtime_library: PathBuf,
    /// Threads, one session each.
    pub threads: usize,
    /// Prompts that may wait.
    pub queue_max: usize,
    /// Longest time a request waits for its vector, queueing included.
    pub budget: Duration,
    /// The model's window, in word pieces with the special ones.
    pub window_tokens: usize,
}

/// What requests a route takes and what happens to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name in config.
    pub id: RouteId,
    /// What it takes.
    pub matches: RouteMatch,
    /// Where misses go.
    pub pool: PoolId,
    /// Kinds of credentials that it accepts; none: all that there are.
    pub auth: Option<Vec<AuthMethod>>,
    /// Paths outside the known inference APIs that are passed through (exact).
    pub extra_paths: Vec<String>,
    /// Pass the client's own credentials to the upstream.
    pub forward_credentials: bool,
    /// Origins that browsers may call from: `*` alone, or exact origins; empty: no CORS answer.
    pub cors_origins: Vec<String>,
    /// Overrides of the pool's time-outs.
    pub timeouts: Timeouts,
    /// What callers may ask of it: all of these hold.
    pub limits: Vec<LimitId>,
    /// Whose turn it is where model servers are at their limits.
    pub priority: Priority,
    /// Whether its prompts are logged; none: never.
    pub prompt_log: Option<PromptLog>,
    /// What is cached.
    pub cache: RouteCache,
    /// Policies that decide within those bounds, in their order.
    pub plugins: Vec<RoutePlugin>,
}

/// Which requests a route takes: all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteMatch {
    /// Listeners; empty: all.
    pub listeners: Vec<ListenerId>,
    /// Hosts, lower case, without port; `*.example.com` for one label below; empty: all.
    pub hosts: Vec<String>,
    /// Path prefix at segment borders; `/` takes all.
    pub path: String,
    /// Upper-case methods; empty: all.
    pub methods: Vec<String>,
    /// Header name (lower case) -> exact value.
    pub headers: BTreeMap<String, String>,
}

/// What a route does about caching.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteCache {
    /// Off: everything is passed through.
    pub enabled: bool,
    /// Partition of the key; by default the route's name.
    pub namespace: String,
    /// Who may share.
    pub scope: Scope,
    /// Lifetime of an entry, without policies.
    pub freshness: Freshness,
    /// The most that policies may make of it.
    pub freshness_max: Freshness,
    /// Whether requests with a temperature above zero are cached.
    pub sampled: Sampled,
    /// What an identical request by the same user within a short time means.
    pub regenerate: Regenerate,
    /// Join identical requests in flight.
    pub collapse: bool,
    /// Store answers to requests that offered tools.
    pub store_tool_offers: bool,
    /// The semantic tier.
    pub semantic: Option<RouteSemantic>,
    /// Which `Cache-Control` request directives are honoured.
    pub directives: DirectivesAllowed,
    /// Upstream response headers that are stored and replayed (lower case). `set-cookie` is refused.
    pub replay_headers: Vec<String>,
    /// Part of the questions whose misses are noted, with digests of their keys' parts; 0 to 1.
    pub miss_sample: f32,
}

/// Whether sampled requests are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Sampled {
    /// Look up and store.
    #[default]
    Store,
    /// Neither.
    Skip,
}

/// What a repeated request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Regenerate {
    /// The same question: the stored answer serves.
    #[default]
    Never,
    /// Within this window, the same user's identical request asks for another answer.
    Repeat {
        /// How soon.
        window: Duration,
    },
}

/// Similar questions on a route.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteSemantic {
    /// Smallest cosine similarity of a hit, without policies.
    pub threshold: f32,
    /// The least that policies may make of it.
    pub threshold_floor: f32,
    /// Neighbours looked at.
    pub candidates: usize,
    /// What forbids a hit.
    pub vetoes: Vec<Veto>,
    /// Only report.
    pub shadow: bool,
    /// Part of the hits of which an upstream is asked too, to compare the answers; 0 to 1.
    pub audit: f32,
}

/// Which `Cache-Control` request directives a route honours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectivesAllowed {
    /// `no-cache`.
    pub no_cache: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `max-age`.
    pub max_age: bool,
    /// `only-if-cached`; only ever within scope `user`.
    pub only_if_cached: bool,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Filter, in `tracing`'s directive syntax.
    pub filter: String,
    /// One line of text, or one of JSON.
    pub format: LogFormat,
    /// One of this many requests gets an access line; 0: none. Errors always do.
    pub access_sample: u32,
}

/// Shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For collectors.
    Json,
}

impl Default for EmbeddedStore {
    fn default() -> Self {
        Self {
            memory_bytes_max: 256 * 1024 * 1024,
            dir: None,
            disk_bytes_max: 4 * 1024 * 1024 * 1024,
            entry_bytes_max: 4 * 1024 * 1024,
            when_locked: WhenLocked::default(),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090),
            tokens: Vec::new(),
            open_metrics: false,
        }
    }
}

impl Default for RouteSemantic {
    fn default() -> Self {
        Self {
            threshold: 0.90,
            threshold_floor: 0.90,
            candidates: 8,
            vetoes: Veto::ALL.to_vec(),
            shadow: false,
            audit: 0.0,
        }
    }
}

impl Embedder {
    /// Threads, if config names none.
    pub const THREADS: usize = 1;
    /// Prompts that may wait, if config doesn't say.
    pub const QUEUE_MAX: usize = 64;
    /// Wait for a vector, if config doesn't say.
    pub const BUDGET: Duration = Duration::from_millis(100);
    /// Window of all-MiniLM-L6-v2.
    pub const WINDOW_TOKENS: usize = 256;
}

impl Regenerate {
    /// The window of `repeat`, if config doesn't say.
    pub const WINDOW: Duration = Duration::from_secs(60);
}

impl Default for DirectivesAllowed {
    fn default() -> Self {
        Self { no_cache: true, no_store: true, max_age: true, only_if_cached: true }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Text, access_sample: 100 }
    }
}

impl RouteCache {
    /// Lifetime of an entry, if config doesn't say.
    pub const TTL: Duration = Duration::from_secs(3600);
    /// Part of the questions whose misses are noted, if config doesn't say.
    pub const MISS_SAMPLE: f32 = 0.1;

    /// The default: exact answers for one user, one hour.
    pub fn exact(namespace: impl Into<String>) -> Self {
        Self {
            enabled: true,
            namespace: namespace.into(),
            scope: Scope::User,
            freshness: Freshness::of_ttl(Self::TTL),
            freshness_max: Freshness::of_ttl(Self::TTL),
            sampled: Sampled::default(),
            regenerate: Regenerate::default(),
            collapse: true,
            store_tool_offers: false,
            semantic: None,
            directives: DirectivesAllowed::default(),
            replay_headers: Vec::new(),
            miss_sample: Self::MISS_SAMPLE,
        }
    }
}

impl Listener {
    /// Where a listener listens, if config doesn't say.
    pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

    /// Whether it can be reached from this machine only.
    pub fn is_loopback(&self) -> bool {
        self.address.ip().is_loopback()
    }
}
