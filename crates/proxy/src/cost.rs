//! Whose account the cost of a request goes to, and what a stored answer spared.

use std::sync::Arc;
use std::time::Duration;

use refrain_cache::Entry;
use refrain_upstream::{Account, Holder, PoolState};

use crate::request::Admitted;

/// The account of the route and tenant at a pool.
pub(crate) fn account(admitted: &Admitted, pool: &PoolState) -> Arc<Account> {
    pool.ledger().account(Holder {
        route: admitted.state().route.id.clone(),
        tenant: admitted.caller.identity.tenant.clone(),
        pool: pool.id().clone(),
    })
}

/// A stored answer was served, and this pool was not asked.
pub(crate) fn spared(admitted: &Admitted, pool: &PoolState, entry: &Entry) {
    account(admitted, pool).note_hit(entry.usage, Duration::from_millis(entry.meta.upstream_ms));
}
