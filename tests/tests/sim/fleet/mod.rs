//! Prefix caches of four servers over the Mooncake conversation trace.

mod replay;
mod server;
mod trace;

use refrain_core::settings::{Admission, Balance};

use replay::{Fleet, Outcome};
use trace::Request;

/// Sizes of a server's cache.
const SIZES: [Option<usize>; 3] = [Some(4_000), Some(20_000), None];
/// What whoever sends each prompt to the server with the longest part of it cached reaches at these sizes.
const PRECISE: [f64; 3] = [0.261, 0.362, 0.366];

fn replay(trace: &[Request], balance: Balance, parallelism: u32, least: [f64; 3], most: [f64; 3]) {
    for (at, blocks_max) in SIZES.into_iter().enumerate() {
        let fleet = Fleet { balance: balance.clone(), blocks_max, parallelism };
        let Outcome { hit_ratio, beyond_bound, peak_in_flight } = replay::run(trace, &fleet);
        let found = format!("{fleet:?}: {hit_ratio:.3} hit, {peak_in_flight} in flight at one at most");
        println!("{found}");
        assert!((least[at]..=most[at]).contains(&hit_ratio), "{found}");
        if balance == Balance::Prefix {
            assert_eq!(beyond_bound, 0, "{found}");
        }
    }
}

#[test]
fn prefixes_find_what_precise_routing_finds_and_loads_stay_within_the_bound() {
    replay(
        &trace::read(),
        Balance::Prefix,
        Admission::default().parallelism,
        [0.25, 0.35, 0.36],
        [0.27, 0.37, 0.37],
    );
}

/// At peak each server has three times the requests at once that it is said to compute side by side.
#[test]
fn a_fleet_that_is_too_small_still_finds_nineteen_in_twenty_of_it() {
    replay(&trace::read(), Balance::Prefix, 8, PRECISE.map(|ratio| 0.95 * ratio), PRECISE);
}

/// Another simulation of a round robin gave 0.110, 0.183 and 0.192 too.
#[test]
fn turns_find_about_half_of_it() {
    replay(&trace::read(), Balance::RoundRobin, 16, [0.105, 0.178, 0.187], [0.115, 0.188, 0.197]);
}
