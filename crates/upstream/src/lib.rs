//! Named pools of endpoints, and the pooled HTTP client that Refrain asks them with.
//!
//! Endpoints, their load and what models they hold are shared by the process ([`Upstreams`]); connections belong to
//! one data worker ([`Client`]) and never move to another. This crate knows neither prompts nor caches, and it decides
//! nothing about what a client is told: [`UpstreamError::code`] is as far as it goes.

mod admission;
mod asking;
mod balance;
mod body;
mod budget;
mod busy;
mod client;
mod clock;
mod connect;
mod connection;
mod connections;
mod demand;
mod dial;
mod discovery;
mod endpoint;
mod error;
mod gpu;
mod headers;
mod health;
mod http1;
mod http2;
mod identity;
mod ledger;
mod models;
mod ping;
mod pool;
mod request;
mod response;
mod scaling;
mod tls;
mod upstreams;
mod watch;

pub use admission::Seat;
pub use balance::preview::{Preview, PreviewReason};
pub use balance::turns::Members;
pub use body::UpstreamStream;
pub use client::Client;
pub use clock::Millis;
pub use demand::{Affinity, Demand, Prefix};
pub use discovery::{Api as JsonApi, Discoveries, DiscoveryError, Listed, SourceStatus, keep_members};
pub use endpoint::{EndpointCondition, EndpointState, EndpointStats};
pub use error::UpstreamError;
pub use gpu::keep_gpu_use;
pub(crate) use headers::strip_hop_by_hop;
pub use ledger::{Account, Bill, Charge, Holder, Ledger, OTHERS, Purpose, Spared, Spent, Tokens};
pub use ping::Ping;
pub use pool::{PoolState, PoolStats};
pub use request::{BoxError, UpstreamBody, UpstreamRequest};
pub use response::{Timings, UpstreamResponse};
pub use scaling::keep_scaling;
pub use tls::ClientTls;
pub use upstreams::Upstreams;
pub use watch::watch;
