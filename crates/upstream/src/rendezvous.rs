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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use refrain_core::settings::Endpoint;

    use super::*;

    /// Endpoints by name and weight.
    fn fleet(all: &[(&str, u32)]) -> Vec<Arc<EndpointState>> {
        let state = |(id, weight): &(&str, u32)| {
            let [plain] = crate::pool::tests::endpoints(&[id]).try_into().unwrap();
            Arc::new(EndpointState::new(&Endpoint { weight: *weight, ..plain.config.clone() }).unwrap())
        };
        all.iter().map(state).collect()
    }

    fn key(number: u32) -> [u8; 32] {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    /// Names in the order of preference.
    fn names(all: &[(&str, u32)], key: &[u8; 32]) -> Vec<String> {
        let endpoints = fleet(all);
        preference(&endpoints, key).into_iter().map(|at| endpoints[at].id().to_string()).collect()
    }

    #[test]
    fn shares_follow_the_weights() {
        const KEYS: u32 = 20_000;
        let endpoints = fleet(&[("a", 1), ("b", 3), ("c", 0), ("d", 4)]);
        let mut firsts = [0u32; 4];
        for number in 0..KEYS {
            firsts[preference(&endpoints, &key(number))[0]] += 1;
        }
        for (count, share) in firsts.into_iter().zip([0.125, 0.375, 0.0, 0.5]) {
            let found = f64::from(count) / f64::from(KEYS);
            assert!((found - share).abs() < 0.015, "{found} instead of {share}");
        }
    }

    #[test]
    fn what_has_no_weight_is_asked_last_unless_nothing_has_any() {
        let spread = |all: &[(&str, u32)]| {
            let firsts = (0..50).map(|number| names(all, &key(number)).remove(0));
            firsts.collect::<std::collections::BTreeSet<_>>().len()
        };
        for number in 0..50 {
            assert_eq!(names(&[("a", 0), ("b", 1), ("c", 0)], &key(number))[0], "b");
        }
        assert_eq!(spread(&[("a", 0), ("b", 0), ("c", 0)]), 3);
    }

    /// Several proxies before the same endpoints must agree, and so must the builds of an upgrade.
    #[test]
    fn the_order_is_the_same_in_every_process_and_build() {
        let all = [("gpu-a", 1), ("gpu-b", 2), ("gpu-c", 1)];
        let orders: Vec<_> = (0..4).map(|number| names(&all, &key(number)).join(" ")).collect();
        assert_eq!(
            orders,
            ["gpu-a gpu-b gpu-c", "gpu-b gpu-c gpu-a", "gpu-b gpu-c gpu-a", "gpu-b gpu-a gpu-c"]
        );
    }

    fn fleets() -> impl Strategy<Value = Vec<(&'static str, u32)>> {
        let all = vec!["a", "b", "c", "d", "e"];
        (prop::sample::subsequence(all, 1..=5).prop_shuffle(), prop::array::uniform5(0u32..5))
            .prop_map(|(names, weights)| names.into_iter().zip(weights).collect())
    }

    proptest! {
        #[test]
        fn only_keys_of_an_endpoint_that_comes_or_goes_move(
            all in fleets(), gone: prop::sample::Index, number: u32,
        ) {
            let mut left = all.clone();
            let (gone, _) = left.remove(gone.index(all.len()));
            let mut expected = names(&all, &key(number));
            prop_assert_eq!(expected.len(), all.len());
            expected.retain(|name| name != gone);
            prop_assert_eq!(names(&left, &key(number)), expected);
        }

        #[test]
        fn more_weight_only_draws_keys_and_the_order_of_config_means_nothing(
            all in fleets(), heavier: prop::sample::Index, number: u32,
        ) {
            let (mut more, mut reversed) = (all.clone(), all.clone());
            let at = heavier.index(all.len());
            more[at].1 += 1;
            let (before, after) = (names(&all, &key(number)), names(&more, &key(number)));
            prop_assert!(after[0] == before[0] || after[0] == all[at].0);
            reversed.reverse();
            prop_assert_eq!(names(&reversed, &key(number)), before);
        }
    }
}
