//! API keys.

use std::collections::BTreeMap;

use refrain_core::settings::{ApiKey, KeyKind};
use refrain_core::{KeyId, Role, TenantId, UserId};

use super::Context;
use crate::raw;

/// The tenant of callers without credentials. No key may join it.
const ANONYMOUS_TENANT: &str = "anonymous";

pub(super) fn settle(context: &mut Context<'_>, raw: BTreeMap<String, raw::Key>) -> Vec<ApiKey> {
    let mut keys: Vec<ApiKey> = Vec::with_capacity(raw.len());
    for (name, raw) in raw {
        let key = key(context, &name, raw);
        if let Some(same) = keys.iter().find(|other| other.hash == key.hash) {
            let message = format!("the same key as {:?}: a key has one owner", same.id.as_str());
            context.refuse(&["key", &name, "hash"], message, None);
        }
        keys.push(key);
    }
    keys
}

fn key(context: &mut Context<'_>, name: &str, raw: raw::Key) -> ApiKey {
    if raw.tenant.0 == ANONYMOUS_TENANT {
        let message = "this name is for callers without credentials; take another";
        context.refuse(&["key", name, "tenant"], message, None);
    }
    let (kind, user) = match raw.kind {
        raw::KeyKind::Personal => {
            let user = raw.user.map_or_else(|| name.to_owned(), |user| user.0);
            (KeyKind::Personal, Some(UserId::new(user)))
        }
        raw::KeyKind::Service => {
            if raw.user.is_some() {
                let message =
                    "a service key speaks for many and has no user; leave it out, or say kind = \"personal\"";
                context.refuse(&["key", name, "user"], message, None);
            }
            (KeyKind::Service, None)
        }
    };
    ApiKey {
        id: KeyId::new(name),
        tenant: TenantId::new(raw.tenant.0),
        kind,
        user,
        role: raw.role.map_or(Role::Caller, Role::from),
        models: raw.models.into_iter().map(|model| model.0).collect(),
        hash: raw.hash.0,
    }
}
