//! What requests cost upstream, by route, tenant and pool; and what was not asked because an answer was stored.
//!
//! Everything here only grows, and is kept over reloads. What it comes to in words and ratios is not decided here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use refrain_core::settings::MicroDollars;
use refrain_core::{PoolId, RouteId, TenantId, Usage};

use crate::busy::Taken;

/// Accounts of their own. What comes later is put down to [`OTHERS`]: tenants come from tokens, too.
const ACCOUNTS_MAX: usize = 1024;
/// The tenant of all that have no account of their own.
pub const OTHERS: &str = "(others)";

/// Whose an account is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// The route that took the request.
    pub route: RouteId,
    /// Who asked.
    pub tenant: TenantId,
    /// The pool that answered, or would have.
    pub pool: PoolId,
}

/// What a request was sent upstream for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// An answer that the cache might have had.
    Miss,
    /// An answer past the cache.
    Pass,
    /// A fresh answer in place of a stale one that was served.
    Refresh,
    /// An answer to compare with the one that was served to a similar question.
    Audit,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Miss, Self::Pass, Self::Refresh, Self::Audit];

    /// The word in metrics and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Pass => "pass",
            Self::Refresh => "refresh",
            Self::Audit => "audit",
        }
    }
}

/// Where a request's cost is put down.
#[derive(Clone, Debug)]
pub struct Charge {
    /// Whose it is.
    pub account: Arc<Account>,
    /// What for.
    pub purpose: Purpose,
}

/// What requests for one purpose took of endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Requests whose answers have ended, each try counted.
    pub requests: u64,
    /// Their share of the endpoints' time.
    pub busy: Duration,
    /// The same of endpoints whose price is not known.
    pub unpriced: Duration,
    /// From beginning to end, added up.
    pub elapsed: Duration,
    /// What that share of the endpoints costs, as far as prices are known.
    pub dollars: f64,
}

/// What answers spared that were stored, or that others asked for at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spared {
    /// Requests that had no generation of their own.
    pub hits: u64,
    /// How long their generation had taken, added up.
    pub elapsed: Duration,
    /// Tokens of their prompts, and their own.
    pub tokens: Tokens,
}

/// Tokens, as far as servers told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of prompts.
    pub input: u64,
    /// Of answers.
    pub output: u64,
}

/// What one holder's requests cost so far.
#[derive(Debug, Default)]
pub struct Account {
    spendings: [Spending; Purpose::ALL.len()],
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
    hits: AtomicU64,
    hit_elapsed_ms: AtomicU64,
    hit_input_tokens: AtomicU64,
    hit_output_tokens: AtomicU64,
}

#[derive(Debug, Default)]
struct Spending {
    requests: AtomicU64,
    busy_ns: AtomicU64,
    unpriced_ns: AtomicU64,
    elapsed_ns: AtomicU64,
    nanodollars: AtomicU64,
}

impl Account {
    /// What was spent so far.
    pub fn spent(&self, purpose: Purpose) -> Spent {
        let Spending { requests, busy_ns, unpriced_ns, elapsed_ns, nanodollars } =
            &self.spendings[purpose as usize];
        Spent {
            requests: requests.load(Relaxed),
            busy: Duration::from_nanos(busy_ns.load(Relaxed)),
            unpriced: Duration::from_nanos(unpriced_ns.load(Relaxed)),
            elapsed: Duration::from_nanos(elapsed_ns.load(Relaxed)),
            dollars: nanodollars.load(Relaxed) as f64 / 1e9,
        }
    }

    /// Tokens that were generated, and those of their prompts.
    pub fn tokens(&self) -> Tokens {
        Tokens { input: self.input_tokens.load(Relaxed), output: self.output_tokens.load(Relaxed) }
    }

    /// What was not asked because it was stored.
    pub fn spared(&self) -> Spared {
        Spared {
            hits: self.hits.load(Relaxed),
            elapsed: Duration::from_millis(self.hit_elapsed_ms.load(Relaxed)),
            tokens: Tokens {
                input: self.hit_input_tokens.load(Relaxed),
                output: self.hit_output_tokens.load(Relaxed),
            },
        }
    }

    /// An answer was generated.
    pub fn note_answer(&self, usage: Usage) {
        self.input_tokens.fetch_add(usage.input_tokens.unwrap_or_default(), Relaxed);
        self.output_tokens.fetch_add(usage.output_tokens.unwrap_or_default(), Relaxed);
    }

    /// An answer was served that had been generated, in so long, for somebody else.
    pub fn note_hit(&self, usage: Usage, generation: Duration) {
        self.hits.fetch_add(1, Relaxed);
        // Beyond `u64` it stays at the largest.
        self.hit_elapsed_ms.fetch_add(generation.as_millis().min(u64::MAX.into()) as u64, Relaxed);
        self.hit_input_tokens.fetch_add(usage.input_tokens.unwrap_or_default(), Relaxed);
        self.hit_output_tokens.fetch_add(usage.output_tokens.unwrap_or_default(), Relaxed);
    }
}

impl Charge {
    /// A request has ended, at an endpoint of this price.
    pub(crate) fn note(&self, taken: Taken, per_hour: Option<MicroDollars>) {
        let spending = &self.account.spendings[self.purpose as usize];
        let nanos = |time: Duration| time.as_nanos().min(u64::MAX.into()) as u64;
        spending.requests.fetch_add(1, Relaxed);
        spending.busy_ns.fetch_add(nanos(taken.busy), Relaxed);
        spending.elapsed_ns.fetch_add(nanos(taken.elapsed), Relaxed);
        match per_hour {
            Some(price) => {
                let nanodollars = taken.busy.as_secs_f64() / 3600.0 * price.dollars() * 1e9;
                spending.nanodollars.fetch_add(nanodollars.round() as u64, Relaxed);
            }
            None => _ = spending.unpriced_ns.fetch_add(nanos(taken.busy), Relaxed),
        }
    }
}

/// What a pool's endpoints cost, whether they had anything to do or not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bill {
    /// So far, as far as prices are known: this proxy's part.
    pub dollars: f64,
    /// Hours of endpoints so far: this proxy's part.
    pub endpoint_hours: f64,
    /// Endpoints now.
    pub endpoints: usize,
    /// Of them, those whose price is not known.
    pub unpriced: usize,
    /// What all of them cost an hour now, as far as known.
    pub per_hour: f64,
}

/// All accounts and bills of a process.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: ArcSwap<HashMap<Holder, Arc<Account>>>,
    /// Held while an account is opened.
    opening: Mutex<()>,
    bills: Mutex<BTreeMap<PoolId, Bill>>,
}

impl Ledger {
    /// The account of a holder; opened if there is none. One of many tenants may have to do with that of all others.
    pub fn account(&self, holder: Holder) -> Arc<Account> {
        if let Some(account) = self.accounts.load().get(&holder) {
            return account.clone();
        }
        self.open(holder)
    }

    /// All accounts, by holder.
    pub fn accounts(&self) -> BTreeMap<Holder, Arc<Account>> {
        let accounts = self.accounts.load();
        accounts.iter().map(|(holder, account)| (holder.clone(), account.clone())).collect()
    }

    /// What each pool cost so far; gone pools too.
    pub fn bills(&self) -> BTreeMap<PoolId, Bill> {
        self.bills.lock().clone()
    }

    /// Pools of other names are gone: what they cost so far stays, and they cost nothing more.
    pub(crate) fn keep(&self, is_there: impl Fn(&PoolId) -> bool) {
        let mut bills = self.bills.lock();
        for (_, bill) in bills.iter_mut().filter(|(pool, _)| !is_there(pool)) {
            *bill = Bill { dollars: bill.dollars, endpoint_hours: bill.endpoint_hours, ..Bill::default() };
        }
    }

    /// A pool had endpoints of these prices for so long, and this proxy is one of so many.
    pub(crate) fn bill(
        &self,
        pool: &PoolId,
        prices: &[Option<MicroDollars>],
        passed: Duration,
        proxies: u32,
    ) {
        let per_hour: f64 = prices.iter().flatten().map(|price| price.dollars()).sum();
        let hours = passed.as_secs_f64() / 3600.0 / f64::from(proxies.max(1));
        let mut bills = self.bills.lock();
        let bill = bills.entry(pool.clone()).or_default();
        bill.dollars += per_hour * hours;
        bill.endpoint_hours += prices.len() as f64 * hours;
        bill.endpoints = prices.len();
        bill.unpriced = prices.iter().filter(|price| price.is_none()).count();
        bill.per_hour = per_hour;
    }

    fn open(&self, mut holder: Holder) -> Arc<Account> {
        let _opening = self.opening.lock();
        let accounts = self.accounts.load_full();
        if accounts.len() >= ACCOUNTS_MAX && !accounts.contains_key(&holder) {
            // Routes and pools are config's, so these are few.
            holder.tenant = OTHERS.into();
        }
        if let Some(account) = accounts.get(&holder) {
            return account.clone();
        }
        let account = Arc::new(Account::default());
        let mut accounts = HashMap::clone(&accounts);
        accounts.insert(holder, account.clone());
        self.accounts.store(Arc::new(accounts));
        account
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(tenant: &str) -> Holder {
        Holder { route: "chat".into(), tenant: tenant.into(), pool: "gpu".into() }
    }

    fn seconds(busy: u64, elapsed: u64) -> Taken {
        Taken { busy: Duration::from_secs(busy), elapsed: Duration::from_secs(elapsed) }
    }

    #[test]
    fn cost_of_a_share_is_its_part_of_the_endpoints_price() {
        let ledger = Ledger::default();
        let account = ledger.account(holder("acme"));
        let charge = Charge { account: account.clone(), purpose: Purpose::Miss };
        charge.note(seconds(90, 900), Some(MicroDollars::of_dollars(2.0)));
        charge.note(seconds(10, 10), None);
        let spent = account.spent(Purpose::Miss);
        assert!((spent.dollars - 0.05).abs() < 1e-9, "{spent:?}");
        assert_eq!((spent.requests, spent.busy.as_secs(), spent.unpriced.as_secs()), (2, 100, 10));
        assert_eq!(account.spent(Purpose::Pass), Spent::default());
    }

    #[test]
    fn cost_accounts_of_ever_new_tenants_are_bounded() {
        let ledger = Ledger::default();
        let first = ledger.account(holder("t0"));
        for nth in 0..ACCOUNTS_MAX + 100 {
            ledger.account(holder(&format!("t{nth}")));
        }
        assert_eq!(ledger.accounts().len(), ACCOUNTS_MAX + 1);
        assert!(Arc::ptr_eq(&ledger.account(holder("t0")), &first));
        let others = [ledger.account(holder("new")), ledger.account(holder(OTHERS))];
        assert!(Arc::ptr_eq(&others[0], &others[1]));
    }

    #[test]
    fn cost_of_a_pool_that_is_gone_stays_and_grows_no_more() {
        let ledger = Ledger::default();
        let (gone, kept) = (PoolId::new("gone"), PoolId::new("kept"));
        for pool in [&gone, &kept] {
            ledger.bill(pool, &[Some(MicroDollars::of_dollars(2.0))], Duration::from_secs(3600), 1);
        }
        ledger.keep(|pool| *pool == kept);
        let bills = ledger.bills();
        assert_eq!(bills[&gone], Bill { dollars: 2.0, endpoint_hours: 1.0, ..Bill::default() });
        assert_eq!((bills[&kept].per_hour, bills[&kept].endpoints), (2.0, 1));
    }

    #[test]
    fn cost_of_a_pool_runs_on_while_it_idles_and_is_divided_among_proxies() {
        let ledger = Ledger::default();
        let pool = PoolId::new("gpu");
        let prices = [Some(MicroDollars::of_dollars(3.0)), Some(MicroDollars::of_dollars(1.0)), None];
        for _ in 0..1800 {
            ledger.bill(&pool, &prices, Duration::from_secs(1), 2);
        }
        let bill = ledger.bills()[&pool];
        assert!((bill.dollars - 1.0).abs() < 1e-6 && (bill.endpoint_hours - 0.75).abs() < 1e-6, "{bill:?}");
        assert_eq!((bill.endpoints, bill.unpriced), (3, 1));
    }
}
