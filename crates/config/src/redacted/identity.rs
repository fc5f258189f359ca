//! Who may ask, without what proves it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use refrain_core::PoolId;
use refrain_core::settings::{
    Admin, AdminToken, ApiKey, AuthMethod, CertificateName, CertificateRule, CertificateUser, ClaimValue,
    ClientCertificateNeed, ClientCertificates, KeyKind, KeySetUrl, OperatorRole, SigningKeys, Tenant,
    TokenIssuer, TokenPlace, TokenTenant,
};
use serde_json::{Value, json};

use super::{REDACTED, named, role};
use crate::text::format_span;

pub(super) fn key(key: &ApiKey) -> Value {
    let ApiKey {
        id: _,
        tenant,
        kind,
        user,
        user_from,
        role,
        models,
        pools,
        claims,
        priority,
        created,
        expires,
        hash: _,
    } = key;
    let mut table = json!({
        "tenant": tenant.as_str(),
        "kind": match kind {
            KeyKind::Personal => "personal",
            KeyKind::Service => "service",
        },
        "role": self::role(*role),
        "models": models,
        "claims": claims,
        "pools": pool_names(pools),
        "hash": REDACTED,
    });
    if let Some(priority) = priority {
        table["priority"] = json!(priority.as_str());
    }
    if let Some(user) = user {
        table["user"] = json!(user.as_str());
    }
    if let Some(issuer) = user_from {
        table["user_from"] = json!(issuer.as_str());
    }
    for (name, time) in [("created", created), ("expires", expires)] {
        if let Some(time) = time {
            table[name] = json!(moment(*time));
        }
    }
    table
}

fn moment(moment: SystemTime) -> String {
    humantime::format_rfc3339_seconds(moment).to_string()
}

fn pool_names(pools: &[PoolId]) -> Vec<&str> {
    pools.iter().map(PoolId::as_str).collect()
}

pub(super) fn token_issuer(issuer: &TokenIssuer) -> Value {
    let TokenIssuer {
        id: _,
        place,
        issuer,
        audiences,
        keys,
        algorithms,
        leeway,
        tenant,
        user_claim,
        user_prefix,
        claims,
        role,
        admins,
        models,
        pools,
    } = issuer;
    let mut table = json!({
        "issuer": issuer,
        "audience": audiences,
        "algorithms": algorithms.iter().map(|algorithm| algorithm.as_str()).collect::<Vec<_>>(),
        "leeway": format_span(*leeway),
        "user_claim": user_claim,
        "user_prefix": user_prefix,
        "claims": claims,
        "models": models,
        "pools": pool_names(pools),
    });
    match keys {
        SigningKeys::Url(place) => {
            let KeySetUrl { endpoint, path, refresh } = &**place;
            let scheme = if endpoint.tls.is_some() { "https" } else { "http" };
            table["jwks_url"] = json!(format!("{scheme}://{}{path}", endpoint.id));
            table["refresh"] = json!(format_span(*refresh));
            if let Some(file) = endpoint.tls.as_ref().and_then(|tls| tls.ca_file.as_ref()) {
                table["ca_file"] = json!(file);
            }
        }
        SigningKeys::File(file) => table["jwks_file"] = json!(file),
        SigningKeys::Secret(_) => table["secret"] = json!({ "value": REDACTED }),
    }
    match place {
        TokenPlace::Header(header) => table["header"] = json!(header),
        // Who stands in a header has the rights of the service.
        TokenPlace::Bearer => table["role"] = json!(self::role(*role)),
    }
    match tenant {
        TokenTenant::Fixed(tenant) => table["tenant"] = json!(tenant.as_str()),
        TokenTenant::Claim { claim, allowed } => {
            table["tenant_claim"] = json!(claim);
            table["tenants"] = allowed.iter().map(|tenant| tenant.as_str()).collect();
        }
        TokenTenant::OfKey => {}
    }
    if let Some(ClaimValue { claim, value }) = admins {
        table["admins"] = json!({ "claim": claim, "value": value });
    }
    table
}

pub(super) fn certificate(rule: &CertificateRule) -> Value {
    let CertificateRule { id: _, subject, listeners, tenant, user, role, models, pools, claims } = rule;
    let mut table = json!({
        "listeners": listeners.iter().map(|listener| listener.as_str()).collect::<Vec<_>>(),
        "tenant": tenant.as_str(),
        "kind": if matches!(user, CertificateUser::Service(_)) { "service" } else { "personal" },
        "role": self::role(*role),
        "models": models,
        "pools": pool_names(pools),
        "claims": claims,
    });
    match subject {
        CertificateName::Alternative(name) => table["san"] = json!(name),
        CertificateName::Common(name) => table["common_name"] = json!(name),
        CertificateName::Any => table["any"] = json!(true),
    }
    match user {
        CertificateUser::Fixed(user) => table["user"] = json!(user.as_str()),
        CertificateUser::Service(Some(issuer)) => table["user_from"] = json!(issuer.as_str()),
        CertificateUser::Named | CertificateUser::Service(None) => {}
    }
    table
}

fn tenant(tenant: &Tenant) -> Value {
    let Tenant { models, pools } = tenant;
    json!({ "models": models, "pools": pool_names(pools) })
}

pub(super) fn auth(methods: &[AuthMethod]) -> Value {
    let word = |method: &AuthMethod| match method {
        AuthMethod::Key => "key".to_owned(),
        AuthMethod::Jwt(None) => "jwt".to_owned(),
        AuthMethod::Jwt(Some(issuer)) => format!("jwt:{issuer}"),
        AuthMethod::Certificate => "mtls".to_owned(),
        AuthMethod::Anonymous => "anonymous".to_owned(),
    };
    methods.iter().map(word).collect()
}

pub(super) fn client_certificates(table: &mut Value, clients: &ClientCertificates) {
    let ClientCertificates { ca_file, need } = clients;
    table["client_ca"] = json!(ca_file);
    table["client_auth"] = json!(match need {
        ClientCertificateNeed::Required => "required",
        ClientCertificateNeed::Optional => "optional",
    });
}

pub(super) fn admin(admin: &Admin) -> Value {
    let Admin { address, tokens, open_metrics } = admin;
    let token = |AdminToken { id: _, role, hash: _ }: &AdminToken| {
        let role = match role {
            OperatorRole::Read => "read",
            OperatorRole::Operate => "operate",
        };
        json!({ "role": role, "hash": REDACTED })
    };
    json!({
        "address": address.to_string(),
        "token": named(tokens.iter().map(|value| (value.id.as_str(), token(value)))),
        "open_metrics": open_metrics,
    })
}

/// Tables by name.
pub(super) fn tenants(tenants: &BTreeMap<refrain_core::TenantId, Tenant>) -> Value {
    named(tenants.iter().map(|(name, value)| (name.as_str(), tenant(value))))
}
