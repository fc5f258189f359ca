//! The request path: listeners, TLS, and the stages that every request passes, in the order of this list.
//!
//! Wire formats belong to `refrain-llm`, keys and entries to `refrain-cache`, endpoints to `refrain-upstream`; config
//! files, telemetry exporters and the admin listener to the binary. Only `error_response` knows status codes.

mod connection;
mod listen;
mod server;
mod worker;

mod snapshot;
mod tenancy;
mod tls;

mod request;

mod ask;
mod audit;
mod auth;
mod cors;
mod cost;
mod crowds;
mod directives;
mod generate;
mod head;
mod ingest;
mod insight;
mod key;
mod leader;
mod limits;
mod lookup;
mod models;
mod outgoing;
mod pass;
mod paths;
mod plan;
mod policy;
mod pump;
mod redaction;
mod refresh;
mod repeats;
mod respond;
mod room;
mod route;
mod store;
mod upload;

pub mod explain;
pub mod rehearsal;

mod access;
mod affinity;
mod answer_metrics;
mod body;
mod cache_status;
mod error_response;
mod failure;
mod gaps;
mod metrics;
mod note;
mod origin;
mod tally;
mod trace;
mod upstream_headers;

pub use auth::{
    Auth, Caller, KeySetStatus, SigningKeysError, hash_key, is_key, keep_signing_keys, read_signing_keys,
};
pub use body::Body;
pub use gaps::GapStats;
pub use generate::FlightHead;
pub use limits::LimitStats;
pub use listen::Inherited;
pub use route::RouteState;
pub use server::{Pulses, Server, ServerError};
pub use snapshot::{AnswerCache, Live, Policies, Snapshot, SnapshotError, load_policies};
pub use tls::TlsError;
pub use trace::{RequestTrace, Stage, StageKind, TRACES_MAX, TraceSink};
