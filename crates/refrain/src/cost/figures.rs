//! What the books come to.

use std::collections::BTreeMap;
use std::time::Duration;

use refrain_core::PoolId;
use refrain_core::settings::TokenPrices;
use refrain_upstream::{Holder, Tokens};

use super::books::{AccountBook, Books, PoolBook};
use super::wire::{CacheReport, CostLine, CostReport, PoolCostReport, ReferenceReport};

/// What an hour, and a million tokens, are counted in.
const SECONDS_AN_HOUR: f64 = 3600.0;
const MILLION: f64 = 1e6;

/// What is true of a pool's requests on average.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PoolFigures {
    /// Share of endpoints' time that requests took.
    pub(crate) busy: Duration,
    /// From beginning to end, added up.
    elapsed: Duration,
    pub(crate) dollars: f64,
    unpriced: Duration,
    /// Of an endpoint's second, as its endpoints are now.
    listed_rate: Option<f64>,
}

impl PoolFigures {
    /// By pool.
    pub(crate) fn of(books: &Books) -> BTreeMap<PoolId, Self> {
        let mut pools: BTreeMap<PoolId, Self> = BTreeMap::new();
        for (id, PoolBook { bill, .. }) in &books.pools {
            let priced = bill.endpoints.saturating_sub(bill.unpriced);
            let rate = bill.per_hour / SECONDS_AN_HOUR / priced as f64;
            pools.entry(id.clone()).or_default().listed_rate = (priced > 0).then_some(rate);
        }
        for (holder, account) in &books.accounts {
            let pool = pools.entry(holder.pool.clone()).or_default();
            for spent in account.all() {
                pool.busy += spent.busy;
                pool.elapsed += spent.elapsed;
                pool.unpriced += spent.unpriced;
                pool.dollars += spent.dollars;
            }
        }
        pools
    }

    /// The part of an endpoint that a request had on average while it was answered: all of it as long as nothing is known.
    fn share(&self) -> f64 {
        ratio(self.busy.as_secs_f64(), self.elapsed.as_secs_f64()).unwrap_or(1.0)
    }

    /// Dollars of a GPU second: as it was while they worked, else as it is.
    fn rate(&self) -> f64 {
        let priced = self.busy.saturating_sub(self.unpriced).as_secs_f64();
        ratio(self.dollars, priced).or(self.listed_rate).unwrap_or_default()
    }

    /// GPU seconds of generations that took so long in all.
    pub(crate) fn gpu_seconds(&self, elapsed: Duration) -> f64 {
        elapsed.as_secs_f64() * self.share()
    }
}

/// What the books come to.
pub(crate) fn report(books: &Books) -> CostReport {
    let pools = PoolFigures::of(books);
    let mut tenants = lines(books, &pools, |holder| holder.tenant.as_str());
    tenants.sort_by(|a, b| b.all_in_dollars.total_cmp(&a.all_in_dollars).then(a.name.cmp(&b.name)));
    let cache = cache(books, &pools);
    CostReport {
        seconds: books.time.as_secs_f64(),
        pools: books.pools.iter().map(|(id, book)| pool(id, book, &pools)).collect(),
        routes: lines(books, &pools, |holder| holder.route.as_str()),
        tenants,
        // Servers whose price nobody told would pass for free.
        reference: books
            .cost
            .reference
            .filter(|_| books.pools.values().all(|pool| pool.bill.unpriced == 0))
            .map(|prices| reference(books, &cache, prices)),
        cache,
    }
}

fn pool(id: &PoolId, book: &PoolBook, pools: &BTreeMap<PoolId, PoolFigures>) -> PoolCostReport {
    let figures = pools.get(id).copied().unwrap_or_default();
    let PoolBook { bill, is_elastic } = book;
    let (busy, endpoint_seconds) = (figures.busy.as_secs_f64(), bill.endpoint_hours * SECONDS_AN_HOUR);
    PoolCostReport {
        pool: id.as_str().to_owned(),
        endpoints: bill.endpoints,
        unpriced_endpoints: bill.unpriced,
        dollars_per_hour: bill.per_hour,
        bill_dollars: bill.dollars,
        busy_dollars: figures.dollars,
        endpoint_seconds,
        busy_gpu_seconds: busy,
        busy_share: ratio(busy, endpoint_seconds),
        concurrency: ratio(figures.elapsed.as_secs_f64(), busy),
        elastic: *is_elastic,
    }
}

fn lines(
    books: &Books,
    pools: &BTreeMap<PoolId, PoolFigures>,
    name: impl Fn(&Holder) -> &str,
) -> Vec<CostLine> {
    let mut lines: BTreeMap<&str, CostLine> = BTreeMap::new();
    for (holder, account) in &books.accounts {
        let name = name(holder);
        let line = lines.entry(name).or_insert_with(|| CostLine::empty(name));
        let bill = books.pools.get(&holder.pool).map_or(0.0, |pool| pool.bill.dollars);
        line.add(account, pools.get(&holder.pool).copied().unwrap_or_default(), bill);
    }
    lines.into_values().map(CostLine::finished).collect()
}

impl CostLine {
    fn empty(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            requests: 0,
            hits: 0,
            gpu_seconds: 0.0,
            busy_dollars: 0.0,
            all_in_dollars: 0.0,
            input_tokens: 0,
            output_tokens: 0,
            dollars_per_million_tokens: None,
            freed_gpu_seconds: 0.0,
            freed_dollars: 0.0,
        }
    }

    /// Adds what one account cost at a pool with such a bill.
    fn add(&mut self, account: &AccountBook, pool: PoolFigures, bill: f64) {
        let freed = pool.gpu_seconds(account.spared.elapsed);
        let busy: f64 = account.all().iter().map(|spent| spent.busy.as_secs_f64()).sum();
        self.requests += account.all().iter().map(|spent| spent.requests).sum::<u64>();
        self.hits += account.spared.hits;
        self.gpu_seconds += busy;
        self.busy_dollars += account.all().iter().map(|spent| spent.dollars).sum::<f64>();
        self.all_in_dollars += bill * ratio(busy, pool.busy.as_secs_f64()).unwrap_or_default();
        self.input_tokens += account.tokens.input;
        self.output_tokens += account.tokens.output;
        self.freed_gpu_seconds += freed;
        self.freed_dollars += freed * pool.rate();
    }

    fn finished(mut self) -> Self {
        let tokens = (self.input_tokens + self.output_tokens) as f64;
        self.dollars_per_million_tokens = ratio(self.all_in_dollars * MILLION, tokens);
        self
    }
}

fn cache(books: &Books, pools: &BTreeMap<PoolId, PoolFigures>) -> CacheReport {
    let mut sum = CacheReport::default();
    for (holder, account) in &books.accounts {
        let pool = pools.get(&holder.pool).copied().unwrap_or_default();
        let avoided = pool.gpu_seconds(account.spared.elapsed);
        let (refresh, audit) = (account.refresh.busy.as_secs_f64(), account.audit.busy.as_secs_f64());
        let net = avoided * pool.rate() - account.refresh.dollars - account.audit.dollars;
        sum.hits += account.spared.hits;
        sum.misses += account.miss.requests;
        sum.avoided_gpu_seconds += avoided;
        sum.refresh_gpu_seconds += refresh;
        sum.audit_gpu_seconds += audit;
        sum.net_gpu_seconds += avoided - refresh - audit;
        sum.net_dollars += net;
        sum.avoidable_dollars += account.miss.dollars + avoided * pool.rate();
        let is_elastic = books.pools.get(&holder.pool).is_some_and(|pool| pool.is_elastic);
        *(if is_elastic { &mut sum.saved_dollars } else { &mut sum.freed_dollars }) += net;
    }
    let hours = books.time.as_secs_f64() / SECONDS_AN_HOUR;
    sum.cost_dollars = books.cost.cache_per_hour.map(|price| price.dollars() * hours);
    sum.hit_ratio_by_cost = ratio(sum.net_dollars, sum.avoidable_dollars);
    sum.break_even_hit_ratio = sum.cost_dollars.and_then(|cost| ratio(cost, sum.avoidable_dollars));
    sum.return_on_investment = match (sum.hit_ratio_by_cost, sum.break_even_hit_ratio) {
        (Some(achieved), Some(needed)) => ratio(achieved, needed).map(|times| times - 1.0),
        _ => None,
    };
    sum
}

/// What lies in the price of generating, and what in not generating.
fn reference(books: &Books, cache: &CacheReport, prices: TokenPrices) -> ReferenceReport {
    let there = |tokens: Tokens| {
        (tokens.input as f64 * prices.input.dollars() + tokens.output as f64 * prices.output.dollars())
            / MILLION
    };
    let generated: f64 = books.accounts.iter().map(|(_, account)| there(account.tokens)).sum();
    let spared: f64 = books.accounts.iter().map(|(_, account)| there(account.spared.tokens)).sum();
    let bill: f64 = books.pools.values().map(|pool| pool.bill.dollars).sum();
    let cost = cache.cost_dollars.unwrap_or_default();
    ReferenceReport {
        dollars: generated + spared,
        own_dollars: bill + cost,
        price_difference_dollars: generated - bill,
        caching_dollars: spared - cost,
    }
}

/// None of nothing.
fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

#[cfg(test)]
pub(super) mod tests;
