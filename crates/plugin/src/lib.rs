//! The host of cache policies: WebAssembly components that decide, per route, what may be cached and where a miss goes.
//!
//! The wire between host and guest is `wit/policy-0.1`; one adapter a version converts it at once to the plain types of
//! [`verdict`], so that nothing else sees versions, and no wasmtime type leaves this crate. This crate knows no HTTP, no
//! JSON body and no store: what a guest reads of a request comes through [`RequestView`], and what its answers mean is the
//! proxy's business. What it promises: a guest can neither stop, nor starve, nor read anything but what it is shown, and what
//! it answers is within the operator's bounds.

mod answer;
mod bounds;
mod chain;
mod code;
mod compiler;
mod component;
mod engine;
mod error;
mod guest;
mod health;
mod hook;
mod host;
mod inert;
mod instance;
mod merge;
mod meters;
mod policy;
mod quota;
mod site;
mod state;
mod ticker;
mod v0_1;
pub mod verdict;
mod view;

pub use chain::Chain;
pub use error::PluginError;
pub use host::{Hooks, Inspection, PluginHost, PolicyState, PolicyStatus};
pub use view::{
    Api, CandidatesView, Embedding, RequestSummary, RequestView, ResponseSummary, ResponseView, Role,
    SimilarityError,
};
