//! Named pools of endpoints, and the pooled HTTP client that Refrain asks them with.
//!
//! Endpoints, their load and what models they hold are shared by the process ([`Upstreams`]); connections belong to
//! one data worker ([`Client`]) and never move to another. This crate knows neither prompts nor caches, and it decides
//! nothing about what a client is told: [`UpstreamError::code`] is as far as it goes.

mod asking;
mod balance;
mod bell;
mod body;
mod budget;
mod client;
mod connect;
mod dial;
mod endpoint;
mod error;
mod headers;
mod identity;
mod idle;
mod ping;
mod pool;
mod rendezvous;
mod request;
mod response;
mod tls;

pub use body::UpstreamStream;
pub use client::Client;
pub use endpoint::{EndpointState, EndpointStats};
pub use error::UpstreamError;
pub(crate) use headers::strip_hop_by_hop;
pub use identity::keep_identities;
pub use ping::Ping;
pub use pool::{PoolState, Upstreams};
pub use request::{BoxError, UpstreamBody, UpstreamRequest};
pub use response::{Timings, UpstreamResponse};
pub use tls::ClientTls;
