//! What all callers of a tenant may have.

use std::collections::BTreeMap;

use refrain_core::settings::Tenant;
use refrain_core::{PoolId, TenantId};

use super::Context;
use crate::raw;

/// The tenant of callers without credentials. No credential may join it.
pub(super) const ANONYMOUS: &str = "anonymous";

pub(super) fn settle(
    context: &mut Context<'_>,
    raw: BTreeMap<String, raw::Tenant>,
) -> BTreeMap<TenantId, Tenant> {
    let known = context.names("pool");
    let tenants = raw.into_iter().map(|(name, raw)| {
        let pools = pools(context, &["tenant", &name, "pools"], raw.pools, &known);
        let models = raw.models.into_iter().map(|model| model.0).collect();
        (TenantId::new(name), Tenant { models, pools })
    });
    tenants.collect()
}

/// Pools that are there.
pub(super) fn pools(
    context: &mut Context<'_>,
    path: &[&str],
    raw: Vec<String>,
    known: &[&str],
) -> Vec<PoolId> {
    for (index, pool) in raw.iter().enumerate() {
        if !known.contains(&pool.as_str()) {
            context.refuse_unknown(&[path, &[&index.to_string()]].concat(), "pool", pool, known);
        }
    }
    raw.into_iter().map(PoolId::new).collect()
}

/// Refuses the name that callers without credentials have.
pub(super) fn check_name(context: &mut Context<'_>, path: &[&str], name: Option<&str>) {
    if name == Some(ANONYMOUS) {
        context.refuse(path, "this name is for callers without credentials; take another", None);
    }
}
