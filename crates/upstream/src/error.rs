//! Everything that can go wrong upstream, each with whose fault it is and whether another try is safe.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use refrain_core::{Code, EndpointId, Fault, PoolId, Retry};

/// Why an upstream gave no whole answer. Cheap to clone, so that all who wait for one answer can be told.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The pool has no endpoint at all.
    #[error("pool \"{pool}\" has no endpoint to ask")]
    NoEndpoint {
        /// Which pool.
        pool: PoolId,
    },
    /// Every endpoint that could answer is at its limit, and too many wait already, or this request waited too long.
    #[error("pool \"{pool}\" is at its limits and its queue is full or slow")]
    Overloaded {
        /// Which pool.
        pool: PoolId,
        /// Whether it is the caller's tenant that waits with more than its share.
        by_tenant: bool,
        /// When there may be room.
        retry_after: Duration,
    },
    /// No address of the endpoint accepted a connection, or its name did not resolve.
    #[error("endpoint \"{endpoint}\": could not connect: {source}")]
    Connect {
        /// Which endpoint.
        endpoint: EndpointId,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Connecting, TLS included, took too long.
    #[error("endpoint \"{endpoint}\": no connection within the connect time-out")]
    ConnectTimeout {
        /// Which endpoint.
        endpoint: EndpointId,
    },
    /// All connections that the endpoint may have are busy, and none became free within the connect time-out; or too
    /// many requests wait for one.
    #[error(
        "endpoint \"{endpoint}\": no connection became free within the connect time-out; raise the pool's connections if it can take more"
    )]
    ConnectionLimit {
        /// Which endpoint.
        endpoint: EndpointId,
    },
    /// The TLS handshake failed, or the certificate is not trusted.
    #[error("endpoint \"{endpoint}\": TLS failed: {source}")]
    Tls {
        /// Which endpoint.
        endpoint: EndpointId,
        /// What rustls said.
        source: Arc<io::Error>,
    },
    /// The connection broke before the response head.
    #[error("endpoint \"{endpoint}\": connection closed before it answered")]
    Reset {
        /// Which endpoint.
        endpoint: EndpointId,
    },
    /// No response head in time.
    #[error("endpoint \"{endpoint}\": no answer within the first-byte time-out")]
    FirstByteTimeout {
        /// Which endpoint.
        endpoint: EndpointId,
    },
    /// The answer stopped coming.
    #[error("endpoint \"{endpoint}\": the answer paused for longer than the idle time-out")]
    IdleTimeout {
        /// Which endpoint.
        endpoint: EndpointId,
    },
    /// Request and answer together took too long.
    #[error("endpoint \"{endpoint}\": not done within the total time-out")]
    TotalTimeout {
        /// Which endpoint.
        endpoint: EndpointId,
    },
    /// The answer ended before its declared or framed end.
    #[error("endpoint \"{endpoint}\": the answer was cut off")]
    Cut {
        /// Which endpoint.
        endpoint: EndpointId,
    },
    /// What came is not HTTP, or breaks a limit.
    #[error("endpoint \"{endpoint}\": the answer can't be read: {detail}")]
    Malformed {
        /// Which endpoint.
        endpoint: EndpointId,
        /// What is wrong with it; never a part of it.
        detail: &'static str,
    },
    /// The request's own body broke off while it was being passed on.
    #[error("the request body ended before its end")]
    RequestBody,
    /// The endpoint's host or a configured header holds characters that no header may.
    #[error("endpoint \"{endpoint}\": host, authorization and headers must be visible ASCII")]
    Settings {
        /// Which endpoint.
        endpoint: EndpointId,
    },
    /// A file of the endpoint's TLS can't be used.
    #[error(
        "endpoint \"{endpoint}\": {file}: {reason}; tls takes PEM files: ca_file, and client_certificate's chain and key"
    )]
    TlsFile {
        /// Which endpoint.
        endpoint: EndpointId,
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No certificate can be for the endpoint's name.
    #[error("endpoint \"{endpoint}\": {name:?} can't be the name in a certificate; set tls.server_name")]
    ServerName {
        /// Which endpoint.
        endpoint: EndpointId,
        /// The name.
        name: String,
    },
    /// The path can't be sent to this endpoint.
    #[error("endpoint \"{endpoint}\": the path can't be joined to the endpoint's base path")]
    Path {
        /// Which endpoint.
        endpoint: EndpointId,
    },
}

impl UpstreamError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        self.code().fault()
    }

    /// Whether another endpoint may be asked the same.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::ConnectionLimit { .. }
            | Self::Tls { .. }
            | Self::Reset { .. } => Retry::Safe,
            _ => Retry::Never,
        }
    }

    /// What the client is told.
    pub fn code(&self) -> Code {
        match self {
            Self::NoEndpoint { .. }
            | Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Tls { .. } => Code::UpstreamUnreachable,
            Self::Overloaded { by_tenant: true, .. } => Code::TenantOverloaded,
            Self::Overloaded { .. } | Self::ConnectionLimit { .. } => Code::Overloaded,
            Self::FirstByteTimeout { .. } | Self::IdleTimeout { .. } | Self::TotalTimeout { .. } => {
                Code::UpstreamTimeout
            }
            Self::Reset { .. } | Self::Cut { .. } | Self::Malformed { .. } => Code::UpstreamBroken,
            Self::RequestBody => Code::BodyIncomplete,
            Self::Path { .. } => Code::BadRequest,
            Self::Settings { .. } | Self::TlsFile { .. } | Self::ServerName { .. } => Code::Internal,
        }
    }

    /// The label in metrics and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoEndpoint { .. } => "no_endpoint",
            Self::Overloaded { .. } => "overloaded",
            Self::Connect { .. } => "connect",
            Self::ConnectTimeout { .. } => "connect_timeout",
            Self::ConnectionLimit { .. } => "connection_limit",
            Self::Tls { .. } => "tls",
            Self::Reset { .. } => "reset",
            Self::FirstByteTimeout { .. } => "first_byte_timeout",
            Self::IdleTimeout { .. } => "idle_timeout",
            Self::TotalTimeout { .. } => "total_timeout",
            Self::Cut { .. } => "cut",
            Self::Malformed { .. } => "malformed",
            Self::RequestBody => "request_body",
            Self::Path { .. } => "path",
            Self::Settings { .. } => "settings",
            Self::TlsFile { .. } => "tls_file",
            Self::ServerName { .. } => "server_name",
        }
    }

    /// Whether nothing of the request can have reached a server.
    pub(crate) fn is_unconnected(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::ConnectTimeout { .. }
                | Self::ConnectionLimit { .. }
                | Self::Tls { .. }
        )
    }
}
