//! Endpoints that config does not list: who knows them, what they say, and how much of it is believed.
//!
//! A source ([`source`]) lists what is there; the [`guard`] decides which of it become members, so that a source that
//! errs or forgets never empties a pool; the [`keeper`] runs both for every source of the live configuration and tells
//! the pools. Whether a member is well is not decided here: that is health's.

mod api;
mod dns;
mod error;
mod file;
mod guard;
mod keeper;
mod kubernetes;
mod listing;
mod runpod;
mod source;
mod status;
#[cfg(test)]
mod test_support;
mod value;
mod vast;

pub use api::Api;
pub use error::DiscoveryError;
pub use keeper::keep_members;
pub use listing::Listed;
pub use status::{Discoveries, SourceStatus};
