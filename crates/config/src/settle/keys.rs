//! API keys.

use std::collections::BTreeMap;

use refrain_core::settings::{ApiKey, KeyKind};
use refrain_core::{KeyId, PoolId, Role, TenantId, UserId};

use super::Context;
use crate::raw;

/// The tenant of callers without credentials. No key may join it.
const ANONYMOUS_TENANT: &str = "anonymous";

pub(super) fn settle(context: &mut Context<'_>, raw: BTreeMap<String, raw::Key>) -> Vec<ApiKey> {
    let mut keys: Vec<ApiKey> = Vec::with_capacity(raw.len());
    for (name, raw) in raw {
        let Some(key) = key(context, &name, raw) else { continue };
        if let Some(same) = keys.iter().find(|other| other.hash == key.hash) {
            let message = format!("the same key as {:?}: a key has one owner", same.id.as_str());
            context.refuse(&["key", &name, "hash"], message, None);
        }
        keys.push(key);
    }
    keys
}

/// None if a required part is missing or wrong, which is known already.
fn key(context: &mut Context<'_>, name: &str, raw: raw::Key) -> Option<ApiKey> {
    if raw.tenant.as_ref().is_some_and(|tenant| tenant.0 == ANONYMOUS_TENANT) {
        let message = "this name is for callers without credentials; take another";
        context.refuse(&["key", name, "tenant"], message, None);
    }
    let pools = pools(context, name, raw.pools);
    let (kind, user) = owner(context, name, raw.kind?, raw.user.map(|user| user.0));
    Some(ApiKey {
        id: KeyId::new(name),
        tenant: TenantId::new(raw.tenant?.0),
        kind,
        user,
        role: raw.role.map_or(Role::Caller, Role::from),
        models: raw.models.into_iter().map(|model| model.0).collect(),
        pools,
        claims: raw.claims,
        priority: raw.priority.map(Into::into),
        hash: raw.hash?.0,
    })
}

fn pools(context: &mut Context<'_>, key: &str, raw: Vec<String>) -> Vec<PoolId> {
    let known = context.names("pool");
    for (index, pool) in raw.iter().enumerate() {
        if !known.contains(&pool.as_str()) {
            context.refuse_unknown(&["key", key, "pools", &index.to_string()], "pool", pool, &known);
        }
    }
    raw.into_iter().map(PoolId::new).collect()
}

fn owner(
    context: &mut Context<'_>,
    name: &str,
    kind: raw::KeyKind,
    user: Option<String>,
) -> (KeyKind, Option<UserId>) {
    match kind {
        raw::KeyKind::Personal => {
            (KeyKind::Personal, Some(UserId::new(user.unwrap_or_else(|| name.to_owned()))))
        }
        raw::KeyKind::Service => {
            if user.is_some() {
                let message =
                    "a service key speaks for many and has no user; leave it out, or say kind = \"personal\"";
                context.refuse(&["key", name, "user"], message, None);
            }
            (KeyKind::Service, None)
        }
    }
}
