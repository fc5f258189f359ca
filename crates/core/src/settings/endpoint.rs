//! How an upstream server is spoken to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Certificate, Endpoint};
use crate::EndpointId;

/// TLS towards an upstream server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointTls {
    /// PEM file with the authorities that are trusted; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// What this proxy shows of itself; none: nothing.
    pub client: Option<Certificate>,
    /// Name that the server's certificate must have, and that is asked for (SNI); none: the host's.
    pub server_name: Option<String>,
    /// Whether the server's certificate is looked at. If not, anybody on the way can read and answer.
    pub verify: bool,
}

impl Default for EndpointTls {
    fn default() -> Self {
        Self { ca_file: None, client: None, server_name: None, verify: true }
    }
}

/// Which HTTP an upstream server is spoken to with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HttpVersion {
    /// What the server chooses over TLS (ALPN), HTTP/2 offered first; HTTP/1.1 otherwise.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without TLS too (prior knowledge, RFC 9113, section 3.3).
    Http2,
}

impl Endpoint {
    /// A server spoken to without TLS, credentials or a base path, of weight 1.
    pub fn plain(id: impl Into<EndpointId>, host: impl Into<String>, port: u16) -> Self {
        Self {
            id: id.into(),
            tls: None,
            http: HttpVersion::Auto,
            host: host.into(),
            port,
            base_path: String::new(),
            weight: 1,
            authorization: None,
            headers: BTreeMap::new(),
        }
    }
}
