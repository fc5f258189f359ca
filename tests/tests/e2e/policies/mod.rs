//! Policies act: what they plan, choose and keep is what clients get, within the operator's bounds.

mod answers;
mod bounds;
mod failures;
mod keys;
mod plans;
mod swap;
mod upstreams;

use refrain_tests::fake::FakeUpstream;
use refrain_tests::{Ask, Config, Policy, Refrain, Reply};

/// A Refrain whose route asks one policy.
async fn with_policy(policy: &Policy) -> (FakeUpstream, Refrain) {
    with_granted(policy, "").await
}

/// The same, with lines for the policy's table.
async fn with_granted(policy: &Policy, lines: &str) -> (FakeUpstream, Refrain) {
    crate::start_with(|config| config.policy("test", policy, lines)).await
}

/// What comes when it is asked twice.
async fn twice(refrain: &Refrain, ask: &Ask) -> [Reply; 2] {
    [refrain.send(ask).await, refrain.send(ask).await]
}

/// The status line of the second of two.
async fn second_status(config: &Config) -> String {
    let refrain = Refrain::start(config).await;
    let [_, second] = twice(&refrain, &Ask::chat("what now?")).await;
    second.cache_status()
}
