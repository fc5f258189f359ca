//! Worked examples, computed by hand.

use std::time::Duration;

use refrain_core::settings::{Cost, MicroDollars};
use refrain_upstream::{Bill, Spared, Spent};

use super::*;

fn holder(route: &str, tenant: &str, pool: &str) -> Holder {
    Holder { route: route.into(), tenant: tenant.into(), pool: pool.into() }
}

fn spent(requests: u64, busy: u64, elapsed: u64, dollars: f64) -> Spent {
    let seconds = Duration::from_secs;
    Spent { requests, busy: seconds(busy), elapsed: seconds(elapsed), unpriced: Duration::ZERO, dollars }
}

fn spared(hits: u64, elapsed: u64, input: u64, output: u64) -> Spared {
    Spared { hits, elapsed: Duration::from_secs(elapsed), tokens: Tokens { input, output } }
}

fn tokens(input: u64, output: u64) -> Tokens {
    Tokens { input, output }
}

/// One server at $3.60 an hour, so a tenth of a cent a second, for ten hours. It answered 900 requests, four at a time, was
/// busy with them for 9,000 s, and refreshed ten stale answers in 100 s. The store answered 100 requests, whose generations had
/// taken 4,000 s: at four at a time 1,000 s of the server, a dollar.
pub(in crate::cost) fn one_server() -> Books {
    let bill = Bill { dollars: 36.0, endpoint_hours: 10.0, endpoints: 1, unpriced: 0, per_hour: 3.6 };
    let account = AccountBook {
        miss: spent(900, 9_000, 36_000, 9.0),
        refresh: spent(10, 100, 400, 0.1),
        tokens: tokens(900_000, 450_000),
        spared: spared(100, 4_000, 100_000, 50_000),
        ..AccountBook::default()
    };
    Books {
        time: Duration::from_secs(36_000),
        cost: Cost {
            cache_per_hour: Some(MicroDollars::of_dollars(0.03)),
            reference: Some(TokenPrices {
                input: MicroDollars::of_dollars(0.5),
                output: MicroDollars::of_dollars(2.0),
            }),
            budget_per_day: None,
        },
        pools: BTreeMap::from([("gpu".into(), PoolBook { bill, is_elastic: false })]),
        accounts: vec![(holder("chat", "acme", "gpu"), account)],
    }
}

#[track_caller]
fn check(found: impl Into<Option<f64>>, wanted: impl Into<Option<f64>>) {
    let (found, wanted) = (found.into(), wanted.into());
    let is_near = match (found, wanted) {
        (Some(found), Some(wanted)) => (found - wanted).abs() < 1e-9,
        (found, wanted) => found == wanted,
    };
    assert!(is_near, "{found:?}, not {wanted:?}");
}

#[test]
fn cost_of_a_cache_before_one_server() {
    let report = report(&one_server());
    let cache = &report.cache;
    check(cache.avoided_gpu_seconds, 1_000.0);
    check(cache.net_gpu_seconds, 900.0);
    check(cache.net_dollars, 0.9);
    // Misses for $9, and hits that would have been one more.
    check(cache.avoidable_dollars, 10.0);
    check(cache.cost_dollars, 0.3);
    check(cache.hit_ratio_by_cost, 0.09);
    check(cache.break_even_hit_ratio, 0.03);
    check(cache.return_on_investment, 2.0);
    // The server costs the same with it.
    check(cache.freed_dollars, 0.9);
    check(cache.saved_dollars, 0.0);
}

#[test]
fn cost_of_time_that_is_shared_and_time_that_is_idle() {
    let report = report(&one_server());
    let pool = &report.pools[0];
    check(pool.busy_share, 9_100.0 / 36_000.0);
    check(pool.concurrency, 4.0);
    check(pool.busy_dollars, 9.1);
    let route = &report.routes[0];
    check(route.busy_dollars, 9.1);
    // Nobody else is there to bear the idle hours.
    check(route.all_in_dollars, 36.0);
    check(route.dollars_per_million_tokens, 36.0 / 1.35);
    check(route.freed_dollars, 1.0);
}

#[test]
fn cost_against_other_prices_tells_caching_from_cheaper_tokens() {
    let reference = report(&one_server()).reference.unwrap();
    // 0.9 M and 0.45 M tokens generated: $0.45 + $0.90. Stored: $0.05 + $0.10.
    check(reference.dollars, 1.5);
    check(reference.own_dollars, 36.3);
    check(reference.price_difference_dollars, 1.35 - 36.0);
    check(reference.caching_dollars, 0.15 - 0.3);
    check(
        reference.price_difference_dollars + reference.caching_dollars,
        reference.dollars - reference.own_dollars,
    );
}

/// A second pool follows the load, at $7.20 an hour: two tenants share it by three to one.
#[test]
fn cost_is_freed_where_servers_stay_and_saved_where_they_follow_the_load() {
    let mut books = one_server();
    let bill = Bill { dollars: 7.2, endpoint_hours: 1.0, endpoints: 2, unpriced: 0, per_hour: 14.4 };
    books.pools.insert("cloud".into(), PoolBook { bill, is_elastic: true });
    let large = AccountBook {
        miss: spent(30, 900, 1_800, 1.8),
        spared: spared(10, 600, 0, 0),
        tokens: tokens(0, 600_000),
        ..AccountBook::default()
    };
    let small = AccountBook { pass: spent(10, 300, 600, 0.6), ..AccountBook::default() };
    books.accounts.push((holder("code", "acme", "cloud"), large));
    books.accounts.push((holder("code", "beta", "cloud"), small));
    let report = report(&books);
    // Two at a time, so 300 s at 0.2 cents.
    check(report.cache.saved_dollars, 0.6);
    check(report.cache.freed_dollars, 0.9);
    check(report.cache.net_dollars, 1.5);
    let [acme, beta] = &report.tenants[..] else { panic!("{:?}", report.tenants) };
    assert_eq!((acme.name.as_str(), beta.name.as_str()), ("acme", "beta"));
    check(acme.all_in_dollars, 36.0 + 7.2 * 0.75);
    check(beta.all_in_dollars, 7.2 * 0.25);
    // What is passed through could not have been avoided.
    check(report.cache.avoidable_dollars, 10.0 + 1.8 + 0.6);
    assert_eq!((report.routes[1].name.as_str(), report.routes[1].hits), ("code", 10));
    // No server told the tokens of what passed through.
    check(beta.dollars_per_million_tokens, None);
}

#[test]
fn cost_of_hits_alone_is_told_by_the_price_there_is() {
    let mut books = one_server();
    books.accounts[0].1 = AccountBook { spared: spared(5, 100, 0, 0), ..AccountBook::default() };
    let report = report(&books);
    // How requests share the server isn't known: they had it alone.
    check(report.cache.net_dollars, 0.1);
    check(report.cache.hit_ratio_by_cost, 1.0);
    check(report.routes[0].all_in_dollars, 0.0);
}

#[test]
fn cost_without_prices_is_no_number() {
    let mut books = one_server();
    books.cost = Cost::default();
    let pool = books.pools.values_mut().next().unwrap();
    pool.bill = Bill { endpoint_hours: 10.0, endpoints: 1, unpriced: 1, ..Bill::default() };
    let account = &mut books.accounts[0].1;
    for spent in [&mut account.miss, &mut account.refresh] {
        (spent.unpriced, spent.dollars) = (spent.busy, 0.0);
    }
    let report = report(&books);
    check(report.cache.net_gpu_seconds, 900.0);
    check(report.cache.hit_ratio_by_cost, None);
    check(report.cache.return_on_investment, None);
    assert_eq!(report.reference, None);
}
