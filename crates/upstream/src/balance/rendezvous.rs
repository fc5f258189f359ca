//! Which endpoint of a pool a key prefers: the same key goes to the same endpoint, which may have the prompt's prefix in its
//! own cache.
//!
//! Weighted rendezvous hashing: each endpoint gets a number from key and name alone, and the least wins. So shares follow
//! the weights, and an endpoint that comes, goes or changes its weight moves only keys of its own. Load is [`super::bound`]'s.
//!
//! Sources: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998; for weights Schindelhauer and
//! Schomaker, "Weighted distributed hash tables", 2005.

/// What stands for an endpoint's name: in every process and every build the same.
pub(crate) fn seed(endpoint: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(endpoint.as_bytes()).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// How far an endpoint is from a key: `-ln(u) / weight` is exponentially distributed with the weight as its rate, so the
/// least of several belongs to each with a chance of its share of the weights. Weight 0 counts as nearly none.
pub(crate) fn distance(key: u64, seed: u64, weight: u32) -> f64 {
    /// Of weight 0: after all others, in an order of the key's own.
    const NEARLY_NONE: f64 = 1e-9;
    let weight = if weight == 0 { NEARLY_NONE } else { f64::from(weight) };
    -unit(key ^ seed).ln() / weight
}

/// In the same order as [`distance`] among endpoints of one weight, without the logarithm.
pub(crate) fn even_distance(key: u64, seed: u64, _weight: u32) -> f64 {
    1.0 - unit(key ^ seed)
}

/// A number between 0 and 1, neither included.
fn unit(bits: u64) -> f64 {
    const BITS: u32 = 53;
    ((mixed(bits) >> (u64::BITS - BITS)) as f64 + 0.5) / (1u64 << BITS) as f64
}

/// Spreads bits over all bits: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u64) -> u64 {
        mixed(number.wrapping_add(0x9e37_79b9_7f4a_7c15))
    }

    /// Names in the order of preference.
    fn names<'n>(all: &[(&'n str, u32)], key: u64) -> Vec<&'n str> {
        let far = |(name, weight): &(&str, u32)| distance(key, seed(name), *weight);
        let mut all: Vec<_> = all.iter().map(|one| (far(one), one.0)).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        all.into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn shares_follow_the_weights() {
        const KEYS: u64 = 20_000;
        let all = [("a", 1), ("b", 3), ("c", 0), ("d", 4)];
        let firsts: Vec<&str> = (0..KEYS).map(|number| names(&all, key(number))[0]).collect();
        for (name, share) in [("a", 0.125), ("b", 0.375), ("c", 0.0), ("d", 0.5)] {
            let found = firsts.iter().filter(|first| **first == name).count() as f64 / KEYS as f64;
            assert!((found - share).abs() < 0.015, "{found} instead of {share}");
        }
    }

    #[test]
    fn what_has_no_weight_is_last_unless_nothing_has_any() {
        let firsts = |all: &[(&'static str, u32)]| {
            (0..50).map(|number| names(all, key(number))[0]).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(firsts(&[("a", 0), ("b", 1), ("c", 0)]), 1);
        assert_eq!(firsts(&[("a", 0), ("b", 0), ("c", 0)]), 3);
    }

    /// Several proxies before the same endpoints must agree, and so must the builds of an upgrade.
    #[test]
    fn the_order_is_the_same_in_every_process_and_build() {
        let all = [("gpu-a", 1), ("gpu-b", 2), ("gpu-c", 1)];
        let orders: Vec<_> = (0..4).map(|number| names(&all, key(number)).join(" ")).collect();
        assert_eq!(
            orders,
            ["gpu-b gpu-c gpu-a", "gpu-b gpu-c gpu-a", "gpu-b gpu-a gpu-c", "gpu-a gpu-b gpu-c"]
        );
    }

    #[test]
    fn endpoints_of_one_weight_have_the_same_order_without_the_logarithm() {
        let by = |far: fn(u64, u64, u32) -> f64, key| {
            let mut all = ["a", "b", "c", "d", "e"].map(|name| (far(key, seed(name), 3), name));
            all.sort_by(|a, b| a.0.total_cmp(&b.0));
            all.map(|(_, name)| name)
        };
        for number in 0..1_000 {
            assert_eq!(by(even_distance, key(number)), by(distance, key(number)), "{number}");
        }
    }

    fn fleets() -> impl Strategy<Value = Vec<(&'static str, u32)>> {
        let all = vec!["a", "b", "c", "d", "e"];
        (prop::sample::subsequence(all, 1..=5).prop_shuffle(), prop::array::uniform5(0u32..5))
            .prop_map(|(names, weights)| names.into_iter().zip(weights).collect())
    }

    proptest! {
        #[test]
        fn only_keys_of_an_endpoint_that_comes_or_goes_move(
            all in fleets(), gone: prop::sample::Index, key: u64,
        ) {
            let mut left = all.clone();
            let (gone, _) = left.remove(gone.index(all.len()));
            let mut expected = names(&all, key);
            prop_assert_eq!(expected.len(), all.len());
            expected.retain(|name| *name != gone);
            prop_assert_eq!(names(&left, key), expected);
        }

        #[test]
        fn more_weight_only_draws_keys_and_the_order_of_config_means_nothing(
            all in fleets(), heavier: prop::sample::Index, key: u64,
        ) {
            let (mut more, mut reversed) = (all.clone(), all.clone());
            let at = heavier.index(all.len());
            more[at].1 += 1;
            let (before, after) = (names(&all, key), names(&more, key));
            prop_assert!(after[0] == before[0] || after[0] == all[at].0);
            reversed.reverse();
            prop_assert_eq!(names(&reversed, key), before);
        }
    }
}
