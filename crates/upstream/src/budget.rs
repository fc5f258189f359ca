//! How many requests of a pool may be tried again: a share of all, so that retries can't double an overload.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// One retry costs this much; one request brings in 1. So 20 % of requests may be retried.
const RETRY_COST: u32 = 5;

/// Most that can be saved up, and what a new pool starts with: 100 retries, about what one restarted endpoint causes.
const BALANCE_MAX: u32 = 100 * RETRY_COST;

/// A token bucket filled by requests. Counts lossily under contention, which is as good for its purpose.
#[derive(Debug)]
pub(crate) struct RetryBudget(AtomicU32);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicU32::new(BALANCE_MAX))
    }
}

impl RetryBudget {
    /// Notes a request.
    pub(crate) fn deposit(&self) {
        let balance = self.0.load(Relaxed);
        if balance < BALANCE_MAX {
            self.0.store(balance + 1, Relaxed);
        }
    }

    /// Pays for one retry, if there is enough.
    pub(crate) fn withdraw(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |balance| balance.checked_sub(RETRY_COST)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_requests_may_be_retried_once_savings_are_spent() {
        let budget = RetryBudget::default();
        while budget.withdraw() {}
        let mut retried = 0;
        for _ in 0..1000 {
            budget.deposit();
            retried += u32::from(budget.withdraw());
        }
        assert_eq!(retried, 200);
    }
}
