//! Which endpoint of a pool is asked, by key: the same key goes to the same endpoint, which may have the prompt's prefix in
//! its own cache.
//!
//! Weighted rendezvous hashing: each endpoint gets a number from key and name alone, and the best one wins. So shares
//! follow the weights, and an endpoint that comes, goes or changes its weight moves only keys of its own. It knows no load:
//! one popular key makes one busy endpoint, since a bound on that (bounded-load hashing) is not built yet.
//!
//! Sources: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998; for weights Schindelhauer and
//! Schomaker, "Weighted distributed hash tables", 2005.

use std::sync::Arc;

use crate::endpoint::EndpointState;

/// Every endpoint once, best first for the key. Those of weight 0 come last, in an order of the key's own.
pub(crate) fn preference(endpoints: &[Arc<EndpointState>], key: &[u8; 32]) -> Vec<usize> {
    let distance = |index: usize| {
        let endpoint = &endpoints[index].config;
        distance(key, endpoint.id.as_str(), endpoint.weight)
    };
    let mut ranked: Vec<((bool, f64), usize)> =
        (0..endpoints.len()).map(|index| (distance(index), index)).collect();
    ranked.sort_by(|((a_is_last, a), _), ((b_is_last, b), _)| a_is_last.cmp(b_is_last).then(a.total_cmp(b)));
    ranked.into_iter().map(|(_, index)| index).collect()
}

/// How far an endpoint is from a key: `-ln(u) / weight` is exponentially distributed with the weight as its rate, so the
/// smallest of several belongs to each with a chance of its share of the weights. Whatever has no weight is last.
fn distance(key: &[u8; 32], endpoint: &str, weight: u32) -> (bool, f64) {
    let distance = -unit(key, endpoint).ln();
    (weight == 0, distance / f64::from(weight.max(1)))
}

/// A number between 0 and 1, neither included, that key and name decide: in every process and every build the same.
fn unit(key: &[u8; 32], endpoint: &str) -> f64 {
    const BITS: u32 = 53;
    let hash = blake3::keyed_hash(key, endpoint.as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
    let number = u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> (u64::BITS - BITS);
    (number as f64 + 0.5) / (1u64 << BITS) as f64
}
