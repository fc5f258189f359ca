//! Refrain as its users meet it: the binary, over the wire, in front of upstreams that are real or called fake.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of this is tests; clippy's own exception holds only within functions marked as such"
)]

mod bad_answers;
mod bad_input;
mod bench;
mod boundaries;
mod bypasses;
mod clients;
mod connections;
mod cost;
mod directives;
mod drain;
mod edge;
mod exact;
mod fidelity;
mod fleet;
mod fleet_connections;
mod fleet_load;
mod identity;
mod isolation;
mod limits;
mod observability;
mod paths;
mod plugin_commands;
mod policies;
mod purge;
mod redis;
mod redis_servers;
mod reload;
mod restart;
mod semantic;
mod single_flight;
mod store;
mod telemetry;
mod tutorial;
mod upstream_requests;
mod why;

use refrain_tests::fake::FakeUpstream;
use refrain_tests::{Ask, Config, Refrain, eventually};

/// A fake upstream and a Refrain before it with default settings.
async fn start() -> (FakeUpstream, Refrain) {
    start_with(|config| config).await
}

/// The same with other settings.
async fn start_with(change: impl FnOnce(Config) -> Config) -> (FakeUpstream, Refrain) {
    let fake = FakeUpstream::start().await;
    let refrain = Refrain::start(&change(Config::new(&fake.url()))).await;
    (fake, refrain)
}

/// Waits until the digests of a fake Ollama's models are known: they are learned soon after the start, and until then
/// requests bypass the cache.
async fn model_known(refrain: &Refrain) {
    let ask = Ask::ollama_generate("warm-up");
    eventually("the model's identity", async || refrain.send(&ask).await.is_hit().then_some(())).await;
}
