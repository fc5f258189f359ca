//! What was written down, as plain numbers: the input of [`super::report`].

use std::collections::BTreeMap;
use std::time::Duration;

use refrain_core::PoolId;
use refrain_core::settings::Cost;
use refrain_proxy::Snapshot;
use refrain_upstream::{Bill, Holder, Purpose, Spared, Spent, Tokens};

/// Everything that a process wrote down since it started.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Books {
    /// Since when.
    pub(crate) time: Duration,
    /// What it is compared with.
    pub(crate) cost: Cost,
    /// The pools; gone ones too.
    pub(crate) pools: BTreeMap<PoolId, PoolBook>,
    /// What requests cost, and what was not asked.
    pub(crate) accounts: Vec<(Holder, AccountBook)>,
}

/// A pool's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PoolBook {
    /// What its endpoints cost.
    pub(crate) bill: Bill,
    /// Whether their number follows the load.
    pub(crate) is_elastic: bool,
}

/// One holder's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct AccountBook {
    pub(crate) miss: Spent,
    pub(crate) pass: Spent,
    pub(crate) refresh: Spent,
    pub(crate) audit: Spent,
    /// Of what was generated.
    pub(crate) tokens: Tokens,
    pub(crate) spared: Spared,
}

impl Books {
    /// What is written down by now, `time` after the start.
    pub(crate) fn of(snapshot: &Snapshot, time: Duration) -> Self {
        let ledger = snapshot.upstreams.ledger();
        let settings = &snapshot.settings;
        let pool = |(id, bill): (PoolId, Bill)| {
            let is_elastic = settings.pools.get(&id).is_some_and(|pool| pool.cost.is_elastic);
            (id, PoolBook { bill, is_elastic })
        };
        let accounts = ledger.accounts().into_iter().map(|(holder, account)| {
            let [miss, pass, refresh, audit] = Purpose::ALL.map(|purpose| account.spent(purpose));
            let (tokens, spared) = (account.tokens(), account.spared());
            let book = AccountBook { miss, pass, refresh, audit, tokens, spared };
            (holder, book)
        });
        Self {
            time,
            cost: settings.cost.clone(),
            pools: ledger.bills().into_iter().map(pool).collect(),
            accounts: accounts.collect(),
        }
    }
}

impl AccountBook {
    /// All that was spent.
    pub(crate) fn all(&self) -> [Spent; 4] {
        [self.miss, self.pass, self.refresh, self.audit]
    }
}
