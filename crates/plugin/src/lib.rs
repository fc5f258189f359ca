//! The host of cache policies.
