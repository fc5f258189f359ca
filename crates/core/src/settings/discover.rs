//! Where a pool learns of endpoints that config does not list.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Endpoint, Secret};

/// One source of a pool's endpoints, with what it says made into endpoints by a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Its name, unique in the pool; the first part of the ids of what it finds.
    pub name: String,
    /// Who is asked.
    pub source: DiscoverySource,
    /// What endpoints are made like. Id, host and port are replaced; scheme and weight, where the source tells them.
    pub template: Endpoint,
    /// Time between two looks; none: as long as the source says that it holds (a TTL).
    pub interval: Option<Duration>,
    /// How fast the list may shrink.
    pub shrinking: Shrinking,
}

/// How much of a list may leave it, whatever the source says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shrinking {
    /// Thousandths of the known endpoints that may leave within [`Shrinking::WINDOW`]; one always may.
    pub permille_max: u32,
    /// Whether a list without any endpoint is believed; else it changes nothing.
    pub allow_empty: bool,
}

/// Who knows a pool's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoverySource {
    /// Addresses of a name (A and AAAA records).
    Dns(DnsSource),
    /// Targets of a service name (SRV records, RFC 2782).
    Srv(SrvSource),
    /// A list in a JSON or TOML file.
    File(PathBuf),
    /// EndpointSlices of a Kubernetes service.
    Kubernetes(KubernetesSource),
    /// Instances rented at vast.ai.
    Vast(VastSource),
    /// Pods of RunPod.
    RunPod(RunPodSource),
}

/// Addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSource {
    /// The name.
    pub host: String,
    /// Port of every address.
    pub port: u16,
    /// Who is asked; none: the system's name servers.
    pub name_server: Option<SocketAddr>,
}

/// Targets of a service name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvSource {
    /// The name: `_http._tcp.llm.example.com`.
    pub host: String,
    /// Who is asked; none: the system's name servers.
    pub name_server: Option<SocketAddr>,
}

/// EndpointSlices of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesSource {
    /// The service's namespace.
    pub namespace: String,
    /// The service.
    pub service: String,
    /// Which of the service's ports; none: the only one.
    pub port: Option<ServicePort>,
    /// The API server.
    pub api: Endpoint,
    /// Who asks.
    pub token: Token,
}

/// A port of a Kubernetes service, as its EndpointSlices have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServicePort {
    /// By name.
    Name(String),
    /// By number (the pod's, `targetPort`).
    Number(u16),
}

/// A bearer token, without the word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// It does not change.
    Fixed(Secret),
    /// A file, read anew for every look: tokens of service accounts last an hour.
    File(PathBuf),
}

/// Instances at vast.ai.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VastSource {
    /// Only instances with this label; none: all.
    pub label: Option<String>,
    /// The container's port that the server listens on; vast.ai maps it to another.
    pub port: u16,
    /// The API, key included.
    pub api: Endpoint,
}

/// Pods of RunPod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPodSource {
    /// Only pods whose name begins so; empty: all.
    pub name_prefix: String,
    /// The container's port that the server listens on.
    pub port: u16,
    /// How pods are reached.
    pub via: RunPodVia,
    /// The API, key included.
    pub api: Endpoint,
}

/// How pods of RunPod are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RunPodVia {
    /// By RunPod's HTTPS proxy, which may cut answers that pause for a minute or two.
    #[default]
    Proxy,
    /// By public address and mapped TCP port.
    Tcp,
}

impl Discovery {
    /// Time between two looks at a list that says nothing of how long it holds, if config doesn't say.
    pub const INTERVAL: Duration = Duration::from_secs(10);
    /// The same for files, which are near.
    pub const INTERVAL_OF_FILES: Duration = Duration::from_secs(1);
    /// Shortest and longest time for which a TTL is honoured.
    pub const TTL_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
}

impl DiscoverySource {
    /// The word for it in config, logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::Srv(_) => "srv",
            Self::File(_) => "file",
            Self::Kubernetes(_) => "kubernetes",
            Self::Vast(_) => "vast",
            Self::RunPod(_) => "runpod",
        }
    }

    /// Time between two looks, if config doesn't say; none: as the source says.
    pub fn interval(&self) -> Option<Duration> {
        match self {
            Self::Dns(_) | Self::Srv(_) => None,
            Self::File(_) => Some(Discovery::INTERVAL_OF_FILES),
            Self::Kubernetes(_) | Self::Vast(_) | Self::RunPod(_) => Some(Discovery::INTERVAL),
        }
    }
}

impl Shrinking {
    /// What `permille_max` is about.
    pub const WINDOW: Duration = Duration::from_secs(60);
}

impl Default for Shrinking {
    fn default() -> Self {
        Self { permille_max: 500, allow_empty: false }
    }
}
