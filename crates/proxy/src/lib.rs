//! The request path: listeners, TLS, and the stages that every request passes, in the order of this list.
//!
//! Wire formats belong to `refrain-llm`, keys and entries to `refrain-cache`, endpoints to `refrain-upstream`; config
//! files, telemetry exporters and the admin listener to the binary. Only `error_response` knows status codes.

mod server;
mod connection;
mod worker;

mod snapshot;
mod tls;

mod request;

mod head;
mod paths;
mod route;
mod cors;
mod auth;
mod ingest;
mod ask;
mod directives;
mod plan;
mod lookup;
mod pass;
mod generate;
mod pump;
mod respond;
mod store;

mod access;
mod body;
mod cache_status;
mod clock;
mod error_response;
mod failure;
mod metrics;
mod upstream_headers;

pub use auth::{Caller, Keys, hash_key};
pub use route::RouteState;
pub use server::{Server, ServerError};
pub use snapshot::{Live, Snapshot, SnapshotError};
pub use tls::TlsError;
