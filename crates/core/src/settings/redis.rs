//! The store that several proxies share.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

/// A store in Redis, with a near cache in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisStore {
    /// Bytes of memory for the near cache: entries and vectors.
    pub memory_bytes_max: usize,
    /// Largest entry, in bytes of its record.
    pub entry_bytes_max: usize,
    /// File with the secret of cache keys; the same on every proxy. Made if it isn't there.
    pub secret_file: PathBuf,
    /// Servers to ask: one, or some of a cluster's.
    pub nodes: Vec<RedisNode>,
    /// Whether the nodes are of a cluster.
    pub cluster: bool,
    /// Database number; 0 in a cluster.
    pub database: u32,
    /// Who connects.
    pub credentials: RedisCredentials,
    /// TLS; none: plain.
    pub tls: Option<RedisTls>,
    /// First part of every key name: proxies with the same one share answers.
    pub prefix: String,
    /// How vectors are searched.
    pub vectors: VectorSearch,
    /// Time to connect, TLS and log-in included.
    pub connect_timeout: Duration,
    /// Time of one command.
    pub command_timeout: Duration,
    /// How long what is in this process may be served while Redis can't confirm that it wasn't purged.
    pub lease: Duration,
    /// Bytes of answers that may wait to be written.
    pub write_queue_bytes_max: usize,
    /// Whether the start fails without it.
    pub required: bool,
}

impl RedisStore {
    /// Default of `memory_bytes_max`.
    pub const MEMORY_BYTES_MAX: usize = 256 * 1024 * 1024;
    /// Default of `entry_bytes_max`.
    pub const ENTRY_BYTES_MAX: usize = 4 * 1024 * 1024;
    /// Default of `prefix`.
    pub const PREFIX: &str = "refrain";
    /// Default of `connect_timeout`.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
    /// Default of `command_timeout`.
    pub const COMMAND_TIMEOUT: Duration = Duration::from_millis(100);
    /// Default of `lease`, and the longest.
    pub const LEASE_MAX: Duration = Duration::from_secs(30);
    /// Default of `write_queue_bytes_max`.
    pub const WRITE_QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
}

/// Where a Redis server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisNode {
    /// A host and its port.
    Tcp {
        /// Host name or IP address, without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

impl std::fmt::Display for RedisNode {
    /// Without credentials: there are none in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Who connects to Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisCredentials {
    /// ACL user; none: the default one.
    pub username: Option<String>,
    /// Password; none: no log-in.
    pub password: Option<Secret>,
}

/// TLS towards Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// PEM file with the authorities that are trusted; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM files with this proxy's certificate chain and key.
    pub client: Option<RedisClientCertificate>,
    /// Name that the server's certificate must have, and that is asked for (SNI); none: the host's.
    pub server_name: Option<String>,
}

/// What this proxy shows to Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisClientCertificate {
    /// PEM file with the chain, leaf first.
    pub chain: PathBuf,
    /// PEM file with the key.
    pub key: PathBuf,
}

/// How the vectors of shared entries are searched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VectorSearch {
    /// By the server if it can (query engine first, then vector sets), else in each process.
    #[default]
    Auto,
    /// `FT.SEARCH`: Redis Stack, Redis 8, Valkey-search.
    QueryEngine,
    /// `VSIM`: Redis 8.
    VectorSets,
    /// In each process, which is told of all vectors.
    Local,
}
