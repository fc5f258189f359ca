//! `[store]`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Certificate, SecretSource};
use crate::text::{Bytes, FilePath, KeyPrefix, NonEmpty, RedisUrl, ServerName, TimeSpan};

/// Where answers are kept.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Store {
    /// What keeps answers. Default "embedded".
    pub(crate) kind: Option<StoreKind>,
    /// Memory for entries and vectors; with Redis, for those that are also kept here. Default "256 MiB".
    pub(crate) memory: Option<Bytes>,
    /// Folder for entries that survive a restart and for the secret of cache keys. Default: memory only.
    pub(crate) dir: Option<FilePath>,
    /// Space on disk. Default "4 GiB".
    pub(crate) disk: Option<Bytes>,
    /// Largest entry. Default "4 MiB".
    pub(crate) entry_max: Option<Bytes>,
    /// What to do while another process has `dir`. Default "refuse".
    pub(crate) when_locked: Option<WhenLocked>,
    /// With Redis: file with the secret of cache keys, the same on every proxy. Made, readable by its owner alone, if
    /// it isn't there. Default: "cache.secret" in `dir`.
    pub(crate) secret_file: Option<FilePath>,
    /// Redis, with kind "redis".
    pub(crate) redis: Option<Redis>,
}

/// What a store does while another process has its folder.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WhenLocked {
    /// Don't start.
    Refuse,
    /// Begin in memory and take the folder over when the other lets go: for upgrades without downtime.
    Wait,
}

/// What keeps answers.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StoreKind {
    /// This process.
    Embedded,
    /// Redis, shared with other proxies.
    Redis,
    /// Nothing: no route caches.
    Off,
}

/// Redis.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Redis {
    /// The server: redis://, rediss:// (TLS) or redis+unix:// URL. Default: environment variable `REDIS_URL`.
    pub(crate) url: Option<RedisUrl>,
    /// Some servers of a cluster, in place of `url`: whichever answers first tells of the others.
    pub(crate) urls: Option<Vec<RedisUrl>>,
    /// Whether the server is one of a cluster. Default false.
    pub(crate) cluster: Option<bool>,
    /// ACL user, before the URL's. Default: Redis's default user.
    pub(crate) username: Option<NonEmpty>,
    /// Password, before the URL's. Not percent-encoded. Default: none.
    pub(crate) password: Option<SecretSource>,
    /// Bounds on whom to trust, with rediss:// URLs.
    pub(crate) tls: Option<RedisTls>,
    /// First part of every key name: proxies with the same one share answers. 1 to 64 letters, digits, "-", "_", "."
    /// or ":". Default "refrain".
    pub(crate) prefix: Option<KeyPrefix>,
    /// How similar questions are searched for. Default "auto".
    pub(crate) vectors: Option<VectorSearch>,
    /// To connect, TLS and log-in included, at most 30 s. Default "500ms".
    pub(crate) connect_timeout: Option<TimeSpan>,
    /// One command, at most 30 s: the longest that a request waits for Redis. Default "100ms".
    pub(crate) timeout: Option<TimeSpan>,
    /// While Redis is away, how long what is in memory may be served though it may have been purged, at most 30 s.
    /// Default "30s".
    pub(crate) lease: Option<TimeSpan>,
    /// Memory for answers that wait to be written. Default "32 MiB".
    pub(crate) write_queue: Option<Bytes>,
    /// Don't start without Redis. Default false: start, pass requests on, and use Redis once it is there.
    pub(crate) require_store: Option<bool>,
}

/// TLS towards Redis.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RedisTls {
    /// PEM file with the authorities that are trusted. Default: the system's.
    pub(crate) ca_file: Option<FilePath>,
    /// What this proxy shows of itself. Default: nothing.
    pub(crate) client_certificate: Option<Certificate>,
    /// Name that is asked for (SNI) and that the server's certificate must have. Default: the URL's host.
    pub(crate) server_name: Option<ServerName>,
}

/// How similar questions are searched for.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum VectorSearch {
    /// By the server if it can: query engine, else vector sets, else local.
    Auto,
    /// By the server's query engine (FT.SEARCH). Not in a cluster.
    QueryEngine,
    /// By the server's vector sets (VSIM, Redis 8).
    VectorSets,
    /// In each process, which keeps all vectors in memory.
    Local,
}
