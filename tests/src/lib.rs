//! Harness of the end-to-end tests: the real binary as a process, upstreams real and fake, clients polite and rude.
//!
//! Nothing here knows Refrain's crates: what is proved is what comes over the wire. Every wait has a deadline.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness fails by panicking: that is how a test fails"
)]

mod ask;
mod binary;
mod client;
mod config;
mod deadline;
pub mod fake;
pub mod h2_frames;
mod identity;
mod manifest;
pub mod otlp;
mod policy;
mod prometheus;
mod python;
mod random;
mod raw;
mod real_llm;
pub mod redis;
mod refrain;
mod scrape;
mod tls;
mod tls_front;
mod token;
pub mod wire;

pub use ask::Ask;
pub use binary::refrain_binary;
pub use client::{Client, Connection, Reply, Streaming};
pub use config::Config;
pub use deadline::{eventually, within, within_time};
pub use identity::{Kind, Person};
pub use manifest::Manifest;
pub use policy::{Policy, Scope};
pub use prometheus::Prometheus;
pub use python::python;
pub use random::Random;
pub use raw::Raw;
pub use real_llm::RealLlm;
pub use refrain::Refrain;
pub use scrape::Metrics;
pub use tls::Authority;
pub use tls_front::{Greeting, TlsFront};
pub use token::{Signer, seconds_from_now, shared_secret_token};
