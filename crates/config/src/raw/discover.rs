//! `[[pool.NAME.discover]]`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use super::{HttpVersion, SecretSource, UpstreamTls};
use crate::text::{Address, FilePath, NonEmpty, TimeSpan, UpstreamUrl, UrlPath};

/// A source of servers that are not listed here. Which keys it takes depends on its kind.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Discover {
    /// Who knows the servers.
    #[schemars(required)]
    pub(crate) kind: Option<DiscoverKind>,
    /// Its name, in the names of servers, in metrics and logs. Default: its kind.
    pub(crate) name: Option<NonEmpty>,
    /// Time between two looks. Default: with "dns" and "srv" the records' TTL, from 1 s to 5 min; with "file" "1s"; else
    /// "10s".
    pub(crate) interval: Option<TimeSpan>,
    /// Share of the known servers that may leave within a minute, whatever the source says; one always may. Default 0.5.
    #[schemars(range(min = 0, max = 1))]
    pub(crate) max_shrink: Option<f64>,
    /// Whether a list without any server is believed; else it changes nothing. Default false.
    pub(crate) allow_empty: Option<bool>,

    /// Kinds "dns" and "srv": the name, such as "llm.example.com" or "_http._tcp.llm.example.com".
    pub(crate) host: Option<NonEmpty>,
    /// Kinds "dns" and "srv": who is asked. Default: the system's name servers.
    pub(crate) name_server: Option<Address>,
    /// Kind "file": a JSON or TOML list.
    pub(crate) file: Option<FilePath>,
    /// Kind "kubernetes": the service.
    pub(crate) service: Option<NonEmpty>,
    /// Kind "kubernetes": the service's namespace. Default: the pod's own.
    pub(crate) namespace: Option<NonEmpty>,
    /// Kind "kubernetes": bearer token. A file is read anew for each look. Default: that of the pod's service account.
    pub(crate) token: Option<SecretSource>,
    /// Kind "kubernetes": PEM file with the authorities that vouch for the API. Default: the cluster's for the pod's own
    /// cluster, else the system's.
    pub(crate) ca_file: Option<FilePath>,
    /// Kind "vast": only instances with this label. Default: all.
    pub(crate) label: Option<NonEmpty>,
    /// Kind "runpod": only pods whose name begins so. Default: all.
    pub(crate) name_prefix: Option<NonEmpty>,
    /// Kind "runpod": how pods are reached. Default: by its proxy.
    pub(crate) via: Option<RunPodVia>,
    /// Kinds "vast" and "runpod": the account's API key.
    pub(crate) api_key: Option<SecretSource>,
    /// Kinds "kubernetes", "vast" and "runpod": the API's URL. Default: that of the pod's cluster, or the provider's.
    pub(crate) api_url: Option<UpstreamUrl>,

    /// Port of the servers; with "kubernetes" a number or a name (default: the only one), with "vast" and "runpod" the
    /// container's. Not with "srv" and "file", which say it.
    pub(crate) port: Option<PortChoice>,
    /// How to speak to the servers. Default "http".
    pub(crate) scheme: Option<Scheme>,
    /// Path prefix of the servers. Default: none.
    pub(crate) base_path: Option<UrlPath>,
    /// Share of the load of each server; not with "srv", whose records say it. Default 1.
    #[schemars(range(min = 1, max = 1_000))]
    pub(crate) weight: Option<u32>,
    /// Which HTTP the servers are spoken to with. Default: the pool's.
    pub(crate) http_version: Option<HttpVersion>,
    /// TLS of the servers, with scheme "https". Keys that are not here are the pool's.
    pub(crate) tls: Option<UpstreamTls>,
    /// `Authorization` header to send to the servers, scheme included: `Bearer sk-...`. Default: the pool's.
    pub(crate) authorization: Option<SecretSource>,
    /// Other headers to send to the servers, beside the pool's.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, SecretSource>,
}

/// Who knows the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DiscoverKind {
    /// A and AAAA records of `host`.
    Dns,
    /// SRV records of `host`.
    Srv,
    /// A JSON or TOML file.
    File,
    /// EndpointSlices of a Kubernetes service.
    Kubernetes,
    /// Running instances at vast.ai.
    Vast,
    /// Running pods of RunPod.
    Runpod,
}

/// How pods of RunPod are reached.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RunPodVia {
    /// RunPod's HTTPS proxy.
    Proxy,
    /// Public address and mapped TCP port.
    Tcp,
}

/// How to speak to a server.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scheme {
    /// Plain.
    Http,
    /// TLS.
    Https,
}

/// A port by number or name.
pub(crate) enum PortChoice {
    /// Its number.
    Number(u16),
    /// Its name, in Kubernetes.
    Name(String),
}

impl<'de> Deserialize<'de> for PortChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PortVisitor;

        impl Visitor<'_> for PortVisitor {
            type Value = PortChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port's number or name")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<PortChoice, E> {
                u16::try_from(number).map(PortChoice::Number).map_err(E::custom)
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<PortChoice, E> {
                Ok(PortChoice::Name(name.to_owned()))
            }
        }

        deserializer.deserialize_any(PortVisitor)
    }
}

impl JsonSchema for PortChoice {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PortChoice".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": 65_535 },
                { "type": "string", "format": "non-empty", "examples": ["http"] },
            ]
        })
    }
}
