//! What the servers cost, and what stored answers spared. Tenants are no labels: `GET /cost` has them.

use std::collections::BTreeMap;
use std::time::Duration;

use refrain_core::{PoolId, RouteId};
use refrain_proxy::Snapshot;
use refrain_upstream::{Purpose, Spent};

use super::exposition::Exposition;
use crate::cost::{Books, PoolFigures};

pub(super) fn write(text: &mut Exposition, snapshot: &Snapshot) {
    let books = Books::of(snapshot, Duration::ZERO);
    bills(text, &books);
    spent(text, &books);
    if let Some(budget) = books.cost.budget_per_day {
        text.gauge("refrain_cost_budget_dollars_per_day", "What all pools may cost a day.")
            .sample(&[], budget.dollars());
    }
}

fn bills(text: &mut Exposition, books: &Books) {
    let help = "What a pool's endpoints cost so far, busy or not: this proxy's part.";
    let mut bill = text.counter("refrain_cost_bill_dollars_total", help);
    for (pool, book) in &books.pools {
        bill.sample(&[("pool", pool.as_str())], book.bill.dollars);
    }
    let mut price = text.gauge("refrain_cost_pool_dollars_per_hour", "What a pool's endpoints cost an hour.");
    for (pool, book) in &books.pools {
        price.sample(&[("pool", pool.as_str())], book.bill.per_hour);
    }
}

fn spent(text: &mut Exposition, books: &Books) {
    let pools = PoolFigures::of(books);
    let mut sums: BTreeMap<(&RouteId, &PoolId), ([Spent; 3], f64)> = BTreeMap::new();
    for (holder, account) in &books.accounts {
        let (spent, freed) = sums.entry((&holder.route, &holder.pool)).or_default();
        for (sum, one) in spent.iter_mut().zip(account.all()) {
            sum.busy += one.busy;
            sum.dollars += one.dollars;
        }
        *freed += pools.get(&holder.pool).map_or(0.0, |pool| pool.gpu_seconds(account.spared.elapsed));
    }
    let mut each = |name, help, value: fn(&Spent) -> f64| {
        let mut family = text.counter(name, help);
        for ((route, pool), (spent, _)) in &sums {
            for (purpose, spent) in Purpose::ALL.into_iter().zip(spent) {
                let labels = [("route", route.as_str()), ("pool", pool.as_str()), ("for", purpose.as_str())];
                family.sample(&labels, value(spent));
            }
        }
    };
    let help =
        "Endpoints' time that requests took, shared evenly among those that were answered side by side.";
    each("refrain_cost_gpu_seconds_total", help, |spent| spent.busy.as_secs_f64());
    let help = "What that time costs, as far as prices are known.";
    each("refrain_cost_dollars_total", help, |spent| spent.dollars);
    let help = "Endpoints' time that stored answers spared, at the pool's average share: a gauge, since that share moves.";
    let mut freed = text.gauge("refrain_cost_freed_gpu_seconds", help);
    for ((route, pool), (_, seconds)) in &sums {
        freed.sample(&[("route", route.as_str()), ("pool", pool.as_str())], *seconds);
    }
}
