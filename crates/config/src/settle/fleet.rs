//! How a pool's requests are spread, bounded and kept apart.

use std::collections::BTreeSet;
use std::slice;

use refrain_core::settings::{
    Admission, Balance, Fleet, HashBy, Health, PoolKind, Sessions, Tenancy, TokenIssuer, TokenTenant,
};
use refrain_core::{PoolId, TenantId};

use super::{Context, Identities};
use crate::raw;

/// Tenants that any credential belongs to.
pub(super) struct Tenants {
    named: BTreeSet<String>,
    /// Tokens may name others.
    open: bool,
}

impl Tenants {
    pub(super) fn of(identities: &Identities) -> Self {
        let Identities { keys, tokens, certificates } = identities;
        let keys = keys.iter().map(|key| &key.tenant);
        let certificates = certificates.iter().map(|rule| &rule.tenant);
        let of_tokens = tokens.iter().flat_map(|issuer| match &issuer.tenant {
            TokenTenant::Fixed(tenant) => slice::from_ref(tenant),
            TokenTenant::Claim { allowed, .. } => allowed,
            TokenTenant::OfKey => &[],
        });
        let is_open = |issuer: &TokenIssuer| matches!(&issuer.tenant, TokenTenant::Claim { allowed, .. } if allowed.is_empty());
        Self {
            named: keys
                .chain(certificates)
                .chain(of_tokens)
                .map(|tenant| tenant.as_str().to_owned())
                .collect(),
            open: tokens.iter().any(is_open),
        }
    }

    /// Whether more than one may ask.
    fn are_several(&self) -> bool {
        self.open || self.named.len() > 1
    }

    fn may_be(&self, tenant: &str) -> bool {
        self.open || self.named.contains(tenant)
    }
}

pub(super) fn fleet(raw: &raw::Fleet) -> Fleet {
    Fleet { proxies: raw.proxies.unwrap_or(Fleet::default().proxies) }
}

pub(super) fn balance(context: &mut Context<'_>, pool: &str, raw: &raw::Pool) -> Balance {
    if raw.hash_by.is_some() && !matches!(raw.balance, Some(raw::Balance::Hash)) {
        context.refuse(&["pool", pool, "hash_by"], "belongs to balance = \"hash\"", None);
    }
    match raw.balance {
        None | Some(raw::Balance::Prefix) => Balance::Prefix,
        Some(raw::Balance::LeastLoad) => Balance::LeastLoad,
        Some(raw::Balance::RoundRobin) => Balance::RoundRobin,
        Some(raw::Balance::Hash) => match &raw.hash_by {
            Some(raw::HashBy::User) => Balance::Hash(HashBy::User),
            Some(raw::HashBy::Session) => Balance::Hash(HashBy::Session),
            Some(raw::HashBy::Header(name)) => Balance::Hash(HashBy::Header(name.0.clone())),
            Some(raw::HashBy::Field(pointer)) => Balance::Hash(HashBy::Field(pointer.0.clone())),
            None => {
                let message = "say what it goes by: hash_by = \"user\", \"session\", { header = \"NAME\" } or { field = \"/POINTER\" }";
                context.refuse(&["pool", pool, "balance"], message, None);
                Balance::default()
            }
        },
    }
}

pub(super) fn sessions(raw: &raw::Pool) -> Sessions {
    let default = Sessions::default();
    let headers = raw.session_headers.as_ref();
    let fields = raw.session_fields.as_ref();
    Sessions {
        headers: headers.map_or(default.headers, |names| names.iter().map(|name| name.0.clone()).collect()),
        fields: fields.map_or(default.fields, |names| names.iter().map(|name| name.0.clone()).collect()),
    }
}

pub(super) fn admission(
    context: &mut Context<'_>,
    pool: &str,
    raw: &raw::PoolLimits,
    kind: PoolKind,
) -> Admission {
    let default = Admission::of(kind);
    let concurrency = raw.concurrency.unwrap_or(default.concurrency);
    let parallelism = raw.parallelism.unwrap_or(default.parallelism.min(concurrency));
    if parallelism > concurrency {
        let message =
            format!("a server that takes {concurrency} requests can't compute {parallelism} side by side");
        context.refuse(&["pool", pool, "limits", "parallelism"], message, None);
    }
    Admission {
        concurrency,
        parallelism,
        queue_max: raw.queue.map_or(default.queue_max, |number| number as usize),
        queue_timeout: raw.queue_timeout.as_ref().map_or(default.queue_timeout, |span| span.0),
    }
}

pub(super) fn health(raw: &raw::Health) -> Health {
    let default = Health::default();
    let interval = raw.interval.as_ref().map(|span| span.0).or(default.interval);
    Health {
        interval: interval.filter(|_| raw.active.unwrap_or(true)),
        ejection: raw.ejection.as_ref().map_or(default.ejection, |span| span.0),
        slow_start: raw.slow_start.as_ref().map_or(default.slow_start, |span| span.0),
    }
}

/// Where one tenant alone has keys, there is nobody to keep apart.
pub(super) fn tenancy(
    context: &mut Context<'_>,
    pool: &str,
    raw: &raw::Pool,
    kind: PoolKind,
    tenants: &Tenants,
) -> Tenancy {
    let several = tenants.are_several();
    if raw.tenant.is_some() && !matches!(raw.tenancy, Some(raw::Tenancy::Dedicated)) {
        context.refuse(&["pool", pool, "tenant"], "belongs to tenancy = \"dedicated\"", None);
    }
    match (raw.tenancy, kind) {
        (Some(raw::Tenancy::Shared), _) => Tenancy::Shared,
        (Some(raw::Tenancy::Dedicated), _) => dedicated(context, pool, raw, tenants),
        (Some(raw::Tenancy::Salted), PoolKind::Ollama) => {
            let message = "Ollama knows no salt for its prompt cache; say \"dedicated\" or \"shared\"";
            context.refuse(&["pool", pool, "tenancy"], message, None);
            Tenancy::Shared
        }
        (None, PoolKind::Ollama) if several => {
            let message = "keys of several tenants, and Ollama keeps their prompts in one cache, whose timing can tell \
                           what another tenant has asked: add tenancy = \"shared\" if that is acceptable, or give each \
                           tenant a pool with tenancy = \"dedicated\"";
            context.refuse(&["pool", pool], message, None);
            Tenancy::Shared
        }
        (None, _) if !several => Tenancy::Shared,
        (Some(raw::Tenancy::Salted) | None, _) => Tenancy::Salted,
    }
}

fn dedicated(context: &mut Context<'_>, pool: &str, raw: &raw::Pool, tenants: &Tenants) -> Tenancy {
    let Some(tenant) = &raw.tenant else {
        context.refuse(&["pool", pool, "tenancy"], "say whom it serves: tenant = \"NAME\"", None);
        return Tenancy::Shared;
    };
    if !tenants.may_be(&tenant.0) {
        let known: Vec<&str> = tenants.named.iter().map(String::as_str).collect();
        let path = ["pool", pool, "tenant"];
        // A revocation in the file of keys must not fail for having been its tenant's last key.
        if context.has_keys_file() {
            context.warn(
                &path,
                format!("no key, token or certificate is of tenant {:?}: it serves nobody", tenant.0),
            );
        } else {
            context.refuse_unknown(&path, "tenant", &tenant.0, &known);
        }
    }
    Tenancy::Dedicated(TenantId::new(tenant.0.as_str()))
}

/// Another pool that is there. A circle is fine: a request tries each pool once.
pub(super) fn fallback(context: &mut Context<'_>, pool: &str, raw: Option<String>) -> Option<PoolId> {
    let name = raw?;
    let known = context.names("pool");
    if name == pool {
        context.refuse(&["pool", pool, "fallback"], "a pool can't stand in for itself", None);
    } else if !known.contains(&name.as_str()) {
        context.refuse_unknown(&["pool", pool, "fallback"], "pool", &name, &known);
    }
    Some(PoolId::new(name))
}
