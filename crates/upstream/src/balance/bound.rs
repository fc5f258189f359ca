//! Bounded load: how much more than its share an endpoint may have before a key's next choice gets the request.
//!
//! Source: Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", 2018. Its bound of 1.25 on small
//! counts throws hits away, so that a bound counts only above what an endpoint computes side by side anyway.

/// How much more than its share of the load an endpoint may have.
pub(crate) const FACTOR: f64 = 1.5;
/// The same for a prompt whose longer beginning it was sent lately, which another would have to compute again. With the
/// plain factor, conversations of long prompts lose a tenth of their hits: a few of them make any share look exceeded.
pub(crate) const FACTOR_KEPT: f64 = 2.0;

/// Load of the endpoints that can be chosen, in tokens of prompts that are being answered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Total {
    pub(crate) load: u64,
    /// Slow starts count as the part of the weight that they have reached.
    pub(crate) weight: f64,
}

/// One endpoint's part of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) in_flight: u32,
    /// In flight up to which it takes a request whatever the others have.
    pub(crate) floor: u32,
    pub(crate) load: u64,
    pub(crate) weight: f64,
}

impl Total {
    pub(crate) fn add(&mut self, load: u64, weight: f64) {
        self.load = self.load.saturating_add(load);
        self.weight += weight;
    }

    /// Whether an endpoint has at most `factor` times its share with one more request of so many tokens.
    pub(crate) fn admits(&self, part: &Part, tokens: u64, factor: f64) -> bool {
        if part.in_flight < part.floor {
            return true;
        }
        let share = (self.load + tokens) as f64 * part.weight / self.weight;
        (part.load + tokens) as f64 <= factor * share
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Else a pool could be stuck with room left. A request that is small beside what is under way changes nothing.
        #[test]
        fn somebody_is_always_within_the_bound(
            loads in prop::collection::vec((0u64..1_000_000, 1u32..100), 1..20),
        ) {
            let mut total = Total::default();
            for (load, weight) in &loads {
                total.add(*load, f64::from(*weight));
            }
            let part = |(load, weight): &(u64, u32)| {
                Part { in_flight: 9, floor: 0, load: *load, weight: f64::from(*weight) }
            };
            prop_assert!(loads.iter().any(|one| total.admits(&part(one), 0, FACTOR)));
        }
    }

    #[test]
    fn below_its_parallelism_an_endpoint_takes_everything() {
        let mut total = Total::default();
        total.add(1_000, 1.0);
        total.add(0, 1.0);
        let part = |in_flight| Part { in_flight, floor: 8, load: 1_000, weight: 1.0 };
        assert!(total.admits(&part(7), 100, FACTOR));
        assert!(!total.admits(&part(8), 100, FACTOR));
    }
}
