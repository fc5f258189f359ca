//! What Refrain's balance does for a fleet in an hour: recorded traffic, simulated servers and clock, and the product's own
//! choice of endpoints.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of this is tests; clippy's own exception holds only within functions marked as such"
)]

#[expect(clippy::print_stdout, reason = "figures, for whoever runs them by hand")]
mod fleet;
