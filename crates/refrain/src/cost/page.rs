//! The report for people: where the money goes, and what the cache does about it.

use std::fmt::Write as _;

use super::wire::{CacheReport, CostLine, CostReport, PoolCostReport, ReferenceReport};
use crate::columns::{columns, printable};

/// Tenants that are listed: the JSON has all of them.
const TENANTS_MAX: usize = 20;

const POOL_HEAD: [&str; 7] = ["POOL", "SERVERS", "PRICE", "BILL", "BUSY", "AT A TIME", "IDLE"];
const LINE_HEAD: [&str; 7] =
    ["REQUESTS", "FROM STORE", "GPU TIME", "COST", "WITH IDLE", "PER 1M TOKENS", "FREED GPU TIME"];

/// All of it.
pub(super) fn page(report: &CostReport) -> String {
    let mut text = format!("Since this proxy started, {} ago.\n\n", span(report.seconds));
    text += &columns(&table(&POOL_HEAD, report.pools.iter().map(pool_row)));
    for (head, lines) in [("ROUTE", &report.routes), ("TENANT", &report.tenants)] {
        if !lines.is_empty() {
            let head: Vec<&str> = std::iter::once(head).chain(LINE_HEAD).collect();
            text.push('\n');
            text += &columns(&table(&head, lines.iter().take(TENANTS_MAX).map(line_row)));
        }
        if lines.len() > TENANTS_MAX {
            let _ = writeln!(text, "and {} more: --json has all", lines.len() - TENANTS_MAX);
        }
    }
    text.push('\n');
    text += &cache(&report.cache, has_prices(report));
    if let Some(reference) = &report.reference {
        text += &self::reference(reference);
    }
    text + &hints(report)
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    let head = head.iter().map(|&cell| cell.to_owned()).collect();
    std::iter::once(head).chain(rows).collect()
}

fn pool_row(pool: &PoolCostReport) -> Vec<String> {
    let priced = pool.endpoints > pool.unpriced_endpoints;
    let dollars = |amount| if priced { money(amount) } else { "-".to_owned() };
    vec![
        printable(&pool.pool),
        pool.endpoints.to_string(),
        if priced { format!("{}/h", money(pool.dollars_per_hour)) } else { "?".to_owned() },
        dollars(pool.bill_dollars),
        or_dash(pool.busy_share.map(percent)),
        or_dash(pool.concurrency.map(|requests| format!("{requests:.1}"))),
        dollars((pool.bill_dollars - pool.busy_dollars).max(0.0)),
    ]
}

fn line_row(line: &CostLine) -> Vec<String> {
    vec![
        printable(&line.name),
        line.requests.to_string(),
        line.hits.to_string(),
        span(line.gpu_seconds),
        money(line.busy_dollars),
        money(line.all_in_dollars),
        or_dash(line.dollars_per_million_tokens.map(money)),
        span(line.freed_gpu_seconds),
    ]
}

fn cache(cache: &CacheReport, has_prices: bool) -> String {
    let CacheReport { hits, misses, .. } = cache;
    let all = hits + misses;
    if all == 0 {
        return "No request was one that the cache might answer.\n".to_owned();
    }
    let share = percent(*hits as f64 / all as f64);
    let spent = [("refreshes", cache.refresh_gpu_seconds), ("audits", cache.audit_gpu_seconds)];
    let spent = spent.into_iter().filter(|(_, seconds)| *seconds > 0.0);
    let spent: Vec<String> = spent.map(|(what, seconds)| format!("{} for {what}", span(seconds))).collect();
    let less = if spent.is_empty() { String::new() } else { format!(", less {}", spent.join(" and ")) };
    let mut text = format!(
        "The cache answered {hits} of {all} requests that it might have ({share}): {} of GPU time{less}.\n",
        span(cache.avoided_gpu_seconds)
    );
    if has_prices {
        text += &worth(cache);
    }
    text
}

/// Freed is what the same servers have time for; saved is what needs no server.
fn worth(cache: &CacheReport) -> String {
    let mut text = String::new();
    if cache.freed_dollars > 0.0 {
        let _ = writeln!(
            text,
            "Freed: {} of servers' time, for other work. They cost the same: their number does not follow the load.",
            money(cache.freed_dollars)
        );
    }
    if cache.saved_dollars > 0.0 {
        let _ = writeln!(
            text,
            "Saved: {}, where the number of servers follows the load.",
            money(cache.saved_dollars)
        );
    }
    let more = -(cache.freed_dollars.min(0.0) + cache.saved_dollars.min(0.0));
    if more > 0.0 {
        let _ = writeln!(
            text,
            "Refreshes and audits took {} more of servers' time than stored answers spared.",
            money(more)
        );
    }
    if let (Some(cost), Some(needed), Some(achieved)) =
        (cache.cost_dollars, cache.break_even_hit_ratio, cache.hit_ratio_by_cost)
    {
        let _ = writeln!(
            text,
            "Break-even: the cache costs {}; that is {} of the {} that it could spare at most. It spares {} of them: {}.",
            money(cost),
            percent(needed),
            money(cache.avoidable_dollars),
            percent(achieved),
            returned(cache.return_on_investment)
        );
    }
    text
}

fn returned(roi: Option<f64>) -> String {
    match roi {
        None => "it costs nothing".to_owned(),
        Some(roi) if roi >= 0.0 => {
            format!("a dollar for it brings {} back, and {} on top", money(1.0), money(roi))
        }
        Some(roi) => format!("of a dollar for it, {} comes back", money((1.0 + roi).max(0.0))),
    }
}

fn reference(reference: &ReferenceReport) -> String {
    let ReferenceReport { dollars, own_dollars, price_difference_dollars, caching_dollars } = reference;
    format!(
        "\nThe same tokens cost {} at the prices of cost.reference, and {} here: {}.\n  {:>10}  the price of generating tokens\n  {:>10}  caching: tokens that were not generated, less what the cache costs\n",
        money(*dollars),
        money(*own_dollars),
        difference(dollars - own_dollars),
        signed(*price_difference_dollars),
        signed(*caching_dollars),
    )
}

fn difference(dollars: f64) -> String {
    if dollars >= 0.0 { format!("{} less", money(dollars)) } else { format!("{} more", money(-dollars)) }
}

/// What would make the page say more.
fn hints(report: &CostReport) -> String {
    let mut text = String::new();
    let unpriced: Vec<&str> = report
        .pools
        .iter()
        .filter(|pool| pool.unpriced_endpoints > 0)
        .map(|pool| pool.pool.as_str())
        .collect();
    if !unpriced.is_empty() {
        let _ = writeln!(
            text,
            "\nPrices of servers are missing in: {}. Say price_per_hour in [pool.NAME].",
            unpriced.join(", ")
        );
    }
    if report.cache.cost_dollars.is_none() && has_prices(report) {
        text +=
            "\nWhat the cache costs is not known: with cache_per_hour in [cost], the break-even is told.\n";
    }
    text
}

fn has_prices(report: &CostReport) -> bool {
    report.pools.iter().any(|pool| pool.endpoints > pool.unpriced_endpoints)
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// Cents, unless it is less than ten of them.
fn money(dollars: f64) -> String {
    if dollars != 0.0 && dollars.abs() < 0.1 { format!("${dollars:.4}") } else { format!("${dollars:.2}") }
}

fn signed(dollars: f64) -> String {
    if dollars < 0.0 { format!("-{}", money(-dollars)) } else { format!("+{}", money(dollars)) }
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent != 0.0 && percent < 10.0 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

/// Two places of the unit that fits.
fn span(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::one_server;
    use super::super::report;
    use super::*;

    #[test]
    fn cost_page_says_freed_while_the_fleet_is_fixed() {
        let text = page(&report(&one_server()));
        let wanted = "\
Since this proxy started, 10.0 h ago.

POOL  SERVERS  PRICE    BILL    BUSY  AT A TIME  IDLE
gpu   1        $3.60/h  $36.00  25 %  4.0        $26.90

ROUTE  REQUESTS  FROM STORE  GPU TIME  COST   WITH IDLE  PER 1M TOKENS  FREED GPU TIME
chat   910       100         2.5 h     $9.10  $36.00     $26.67         16.7 min

TENANT  REQUESTS  FROM STORE  GPU TIME  COST   WITH IDLE  PER 1M TOKENS  FREED GPU TIME
acme    910       100         2.5 h     $9.10  $36.00     $26.67         16.7 min

The cache answered 100 of 1000 requests that it might have (10 %): 16.7 min of GPU time, less 100.0 s for refreshes.
Freed: $0.90 of servers' time, for other work. They cost the same: their number does not follow the load.
Break-even: the cache costs $0.30; that is 3.0 % of the $10.00 that it could spare at most. It spares 9.0 % of them: a dollar for it brings $1.00 back, and $2.00 on top.

The same tokens cost $1.50 at the prices of cost.reference, and $36.30 here: $34.80 more.
     -$34.65  the price of generating tokens
      -$0.15  caching: tokens that were not generated, less what the cache costs
";
        assert_eq!(text, wanted);
        assert!(!text.to_lowercase().contains("saved"));
    }

    #[test]
    fn cost_page_says_saved_where_servers_follow_the_load() {
        let mut books = one_server();
        books.pools.values_mut().for_each(|pool| pool.is_elastic = true);
        let text = page(&report(&books));
        assert!(text.contains("Saved: $0.90") && !text.contains("Freed:"), "{text}");
    }

    #[test]
    fn cost_page_says_when_refreshes_take_more_than_hits_spare() {
        let mut books = one_server();
        // That makes a GPU second dearer, too: 12 dollars for 9,100 of them.
        books.accounts[0].1.refresh.dollars = 3.0;
        let text = page(&report(&books));
        assert!(text.contains("Refreshes and audits took $1.68 more of servers' time"), "{text}");
        assert!(!text.contains("Freed:") && !text.contains("$-"), "{text}");
    }

    #[test]
    fn cost_page_takes_audits_off_what_hits_spare() {
        let mut books = one_server();
        books.accounts[0].1.audit.busy = std::time::Duration::from_secs(60);
        books.accounts[0].1.audit.dollars = 0.06;
        let (with, without) = (report(&books).cache, report(&one_server()).cache);
        let spent = with.avoided_gpu_seconds - with.net_gpu_seconds;
        assert!((spent - 160.0).abs() < 1e-6 && with.net_dollars < without.net_dollars, "{with:?}");
        let text = page(&report(&books));
        assert!(text.contains("less 100.0 s for refreshes and 60.0 s for audits."), "{text}");
    }

    #[test]
    fn cost_page_compares_no_prices_while_those_of_servers_are_missing() {
        let mut books = one_server();
        books.pools.values_mut().for_each(|pool| pool.bill.unpriced = 1);
        assert_eq!(report(&books).reference, None);
    }

    #[test]
    fn cost_page_without_prices_says_what_to_write() {
        let mut books = one_server();
        books.cost = Default::default();
        let pool = books.pools.values_mut().next().unwrap();
        (pool.bill.unpriced, pool.bill.per_hour, pool.bill.dollars) = (1, 0.0, 0.0);
        let text = page(&report(&books));
        assert!(text.contains("price_per_hour in [pool.NAME]") && !text.contains("Break-even"), "{text}");
    }

    #[test]
    fn cost_page_of_a_proxy_that_has_just_started() {
        assert!(page(&report(&Default::default())).contains("No request was one"));
    }
}
