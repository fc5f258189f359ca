//! Typed tables -> [`Settings`](refrain_core::Settings): every name resolved, every rule checked.

mod hash;
mod url;

pub use hash::parse_key_hash;
pub(crate) use url::endpoint_of_url;
