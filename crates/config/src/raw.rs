//! The config file as written: one struct a table.
//!
//! Every key is optional here, also those that the schema requires: the walk has reported by now what is missing or
//! wrong, and the rules that span keys are still checked on what is left, so that one start shows all problems.
//! Doc comments here are the schema's descriptions, which editors show. Defaults are in `refrain_core::settings`.

mod cost;
mod discover;
mod identity;
mod plugin;
mod pool;
mod quota;
mod route;
mod store;
mod telemetry;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

use crate::error::{Problems, Suggestion};
use crate::text::{Address, Bytes, FilePath, Network, NonEmpty, TimeSpan};
use crate::tree::Origin;

pub(crate) use cost::Cost;
pub(crate) use discover::{Discover, DiscoverKind, PortChoice, RunPodVia, Scheme};
pub(crate) use identity::{
    AdminToken, Algorithm, CertificateRule, ClientAuth, Jwt, Key, KeyKind, KeysFile, OperatorRole, Tenant,
};
pub(crate) use plugin::{
    Grant, Isolation, OnError, Plugin, PluginConfig, PluginHost, PluginLimits, RoutePlugin,
};
pub(crate) use pool::{
    Balance, Endpoint, Gpu, GpuUnit, HashBy, Health, HttpVersion, Pool, PoolKind, PoolLimits, Tenancy,
    Timeouts, UpstreamTls,
};
pub(crate) use quota::{HitCost, Limit, LimitBy, LimitNumbers, OnLimitError, Priority};
pub(crate) use route::{Cache, Directive, Regenerate, Route, Sampled, Scope, Semantic, Veto};
pub(crate) use store::{RedisTls, Store, StoreKind, VectorSearch, WhenLocked};
pub(crate) use telemetry::{Otlp, RouteLog};

/// Refrain: proxy and answer cache for LLM servers. Relative paths are relative to the folder of the file.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where clients connect, by name. Without any: `main` on 127.0.0.1:8080.
    pub(crate) listener: BTreeMap<String, Listener>,
    /// Where operators connect: health, metrics, reload. On by default; `admin = false` switches it off.
    pub(crate) admin: Option<Switch<Admin>>,
    /// Threads and shutdown.
    pub(crate) runtime: Runtime,
    /// Bounds on what a client may send.
    pub(crate) limits: Limits,
    /// How much callers may ask for, by name. A route has those that its `limits` name.
    pub(crate) limit: BTreeMap<String, Limit>,
    /// Where answers are kept.
    pub(crate) store: Store,
    /// The embedding model, needed by routes with a semantic tier.
    pub(crate) embedder: Option<Embedder>,
    /// Groups of upstream servers that serve the same models, by name. At least one.
    pub(crate) pool: BTreeMap<String, Pool>,
    /// Other proxies in front of the same servers.
    pub(crate) fleet: Fleet,
    /// What is done with which requests, by name. At least one; longest path first, then more conditions first.
    pub(crate) route: BTreeMap<String, Route>,
    /// What runs cache policies.
    pub(crate) plugin_host: PluginHost,
    /// What the whole costs, for `refrain cost`.
    pub(crate) cost: Cost,
    /// Cache policies, by name. A route runs those that its `plugins` name.
    pub(crate) plugin: BTreeMap<String, Plugin>,
    /// API keys, by name.
    pub(crate) key: BTreeMap<String, Key>,
    /// File with more of them, in the same form: `refrain key` writes it, and it is watched.
    pub(crate) keys_file: Option<FilePath>,
    /// Who signs tokens, by name.
    pub(crate) jwt: BTreeMap<String, Jwt>,
    /// Whose client certificates are, by name.
    pub(crate) certificate: BTreeMap<String, CertificateRule>,
    /// What all callers of a tenant may have, by its name.
    pub(crate) tenant: BTreeMap<String, Tenant>,
    /// Logs and the access line.
    pub(crate) log: Log,
    /// An OpenTelemetry collector. Without it, no trace and no metric is sent anywhere.
    pub(crate) otlp: Option<Otlp>,
}

impl Config {
    /// The tables of a document that was checked against the schema.
    pub(crate) fn of(checked: toml::Value, problems: &mut Problems<'_>) -> Option<Self> {
        Self::deserialize(checked)
            .map_err(|error| {
                problems.at(&Origin::Span(0..0), "", error.message().to_owned(), None::<Suggestion>)
            })
            .ok()
    }
}

/// Other proxies in front of the same servers.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Fleet {
    /// How many proxies there are, this one included: each takes its part of the pools' limits. With a shared store they
    /// count each other. Default 1.
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) proxies: Option<u32>,
}

/// A listener.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Listener {
    /// IP address and port; port 0 takes any free one. Default "127.0.0.1:8080".
    pub(crate) address: Option<Address>,
    /// TLS. Without it: plain HTTP.
    pub(crate) tls: Option<Tls>,
    /// Serve callers without credentials, as one anonymous user. Default false; always so on loopback without keys.
    pub(crate) allow_anonymous: Option<bool>,
    /// What the anonymous user may do. Default "admin" on loopback without keys, else "caller".
    pub(crate) anonymous_role: Option<Role>,
}

/// TLS of a listener.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// Chosen by the name that the client asks for (SNI); the first is the default.
    #[schemars(required)]
    pub(crate) certificates: Option<Vec<Certificate>>,
    /// PEM file of the authorities that vouch for clients; it is watched. Default: clients show no certificates.
    pub(crate) client_ca: Option<FilePath>,
    /// Whether a client must show one. Default: required, with client_ca.
    pub(crate) client_auth: Option<ClientAuth>,
}

/// A certificate chain and its key, as PEM files.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Certificate {
    /// PEM file with the chain, leaf first.
    #[schemars(required)]
    pub(crate) chain: Option<FilePath>,
    /// PEM file with the key (PKCS#8, PKCS#1 or SEC1).
    #[schemars(required)]
    pub(crate) key: Option<FilePath>,
}

/// Where a secret is.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SecretSource {
    /// Name of an environment variable; white space at the end of its value is cut.
    Env(NonEmpty),
    /// A file; white space at its end is cut.
    File(FilePath),
    /// The value itself. Prefer `env` or `file`.
    Value(NonEmpty),
}

/// What a caller may do.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Ask for answers.
    Caller,
    /// Also change or inspect upstream servers.
    Admin,
}

/// The admin listener.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    /// IP address and port. Default "127.0.0.1:9090". Elsewhere than on loopback it needs a token, or allow_anonymous = true.
    pub(crate) address: Option<Address>,
    /// Tokens that let operators in, by name. Default: none, and everybody who can connect is let in.
    pub(crate) token: BTreeMap<String, AdminToken>,
    /// Ask for no token at `/metrics`, as at `/livez` and for a short `/readyz`. Default false.
    pub(crate) open_metrics: Option<bool>,
    /// Let in everybody who can connect, though other machines can. Default false.
    pub(crate) allow_anonymous: Option<bool>,
}

/// Threads and shutdown.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Runtime {
    /// Data threads, each with its own upstream connections. Default: one a CPU.
    #[schemars(range(min = 1, max = 1024))]
    pub(crate) workers: Option<u32>,
    /// From SIGTERM (not ready any more) to the end of accepting, for balancers to look elsewhere. Default: none.
    pub(crate) shutdown_delay: Option<TimeSpan>,
    /// How long shutdown waits for requests in flight. Default "30s".
    pub(crate) drain_timeout: Option<TimeSpan>,
}

/// Bounds on what a client may send and how long it may take.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Request line and headers together, at least 8 KiB. Default "64 KiB".
    pub(crate) head: Option<Bytes>,
    /// Number of request headers. Default 100.
    #[schemars(range(min = 1, max = 4096))]
    pub(crate) headers: Option<u32>,
    /// Request body. Default "16 MiB".
    pub(crate) body: Option<Bytes>,
    /// All request bodies of more than 16 KiB under way, together; of it, those of one caller have at most as much as they leave
    /// free. Default "1 GiB".
    pub(crate) bodies: Option<Bytes>,
    /// Nesting of a JSON body. Default 64.
    #[schemars(range(min = 1, max = 128))]
    pub(crate) json_depth: Option<u32>,
    /// From accept, or the first byte of a later request, to a whole request head. Default "1m".
    pub(crate) head_timeout: Option<TimeSpan>,
    /// From the end of an answer to the first byte of the next request. Default "1m15s".
    pub(crate) idle_timeout: Option<TimeSpan>,
    /// Between two reads of a request body. Default "30s".
    pub(crate) body_timeout: Option<TimeSpan>,
    /// From a request's head to the end of its body. Default "5m".
    pub(crate) upload_timeout: Option<TimeSpan>,
    /// How long a client may take nothing of what waits for it. Default "1m".
    pub(crate) write_timeout: Option<TimeSpan>,
    /// Open client connections a worker. Default 10000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) connections: Option<u32>,
    /// Open connections of one client address (IPv6: of one /64), over all workers. Default 1000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) connections_per_address: Option<u32>,
    /// Addresses of balancers, whose connections are not counted by address. Default: this machine.
    pub(crate) trusted_proxies: Option<Vec<Network>>,
    /// Concurrent HTTP/2 streams a connection. Default 128.
    #[schemars(range(min = 1, max = 65_535))]
    pub(crate) h2_streams: Option<u32>,
    /// Requests that wait for one generation of the same answer. Default 256.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) waiters: Option<u32>,
}

/// The embedding model.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Embedder {
    /// Folder with model.onnx, tokenizer.json, config.json, special_tokens_map.json and tokenizer_config.json.
    #[schemars(required)]
    pub(crate) model_dir: Option<FilePath>,
    /// ONNX Runtime's shared library.
    #[schemars(required)]
    pub(crate) runtime_library: Option<FilePath>,
    /// Threads, one session each. Default 1.
    #[schemars(range(min = 1, max = 256))]
    pub(crate) threads: Option<u32>,
    /// Prompts that may wait. Default 64.
    #[schemars(range(min = 1, max = 65_536))]
    pub(crate) queue: Option<u32>,
    /// Longest time that a request waits for its vector. Default "100ms".
    pub(crate) budget: Option<TimeSpan>,
    /// The model's window, in tokens with the special ones. Default 256.
    #[schemars(range(min = 3, max = 131_072))]
    pub(crate) window_tokens: Option<u32>,
}

/// Logs and the access line.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// What is logged, like "info" or "warn,refrain_cache=debug". Default "info".
    pub(crate) filter: Option<String>,
    /// Shape of a line. Default "text".
    pub(crate) format: Option<LogFormat>,
    /// One of this many requests gets an access line; 0: none. Errors always do. Default 100.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub(crate) access_sample: Option<u32>,
}

/// Shape of log lines.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For collectors: one JSON object a line.
    Json,
}

/// A table, or just whether there is one.
///
/// Not an untagged enum: those buffer, and then numbers can't be told from tables if `serde_json` keeps lexemes.
pub(crate) enum Switch<T> {
    /// `false`, or `true` for all defaults.
    Flag(bool),
    /// Its keys.
    Table(Box<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Switch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SwitchVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for SwitchVisitor<T> {
            type Value = Switch<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a table")
            }

            fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
                Ok(Switch::Flag(flag))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|table| Switch::Table(Box::new(table)))
            }
        }

        deserializer.deserialize_any(SwitchVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Switch<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Switch{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "boolean" }, generator.subschema_for::<T>()] })
    }
}
