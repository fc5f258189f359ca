//! Whose client certificates are.

use std::collections::BTreeMap;

use refrain_core::settings::{CertificateName, CertificateRule, CertificateUser, TokenIssuer};
use refrain_core::{CertificateRuleId, JwtId, ListenerId, Role, TenantId, UserId};

use super::{Context, tenants, tokens};
use crate::raw;

/// Settles all rules: those for one name before those for several, and these before those for any.
pub(super) fn settle(
    context: &mut Context<'_>,
    raw: BTreeMap<String, raw::CertificateRule>,
    tokens: &[TokenIssuer],
) -> Vec<CertificateRule> {
    let rules = raw.into_iter().filter_map(|(name, raw)| rule(context, &name, raw, tokens));
    let mut rules: Vec<CertificateRule> = rules.collect();
    // Sorting is stable, and the rules come by name.
    rules.sort_by_key(|rule| width(&rule.subject));
    rules
}

fn width(name: &CertificateName) -> u8 {
    match name {
        CertificateName::Alternative(name) if name.starts_with("*.") => 1,
        CertificateName::Alternative(_) | CertificateName::Common(_) => 0,
        CertificateName::Any => 2,
    }
}

/// None if a required part is missing or wrong, which is known already.
fn rule(
    context: &mut Context<'_>,
    name: &str,
    raw: raw::CertificateRule,
    tokens: &[TokenIssuer],
) -> Option<CertificateRule> {
    let at = |key| ["certificate", name, key];
    let tenant = raw.tenant.as_ref().map(|tenant| tenant.0.as_str());
    tenants::check_name(context, &at("tenant"), tenant);
    let known = context.names("pool");
    let pools = tenants::pools(context, &at("pools"), raw.pools, &known);
    let listeners = listeners(context, name, raw.listeners);
    let subject = subject(context, name, raw.san, raw.common_name, raw.any);
    let user = match (raw.kind?, raw.user, raw.user_from) {
        (raw::KeyKind::Personal, user, None) => {
            user.map_or(CertificateUser::Named, |user| CertificateUser::Fixed(UserId::new(user.0)))
        }
        (raw::KeyKind::Service, None, issuer) => {
            if let Some(issuer) = &issuer {
                tokens::check_header_issuer(context, &at("user_from"), issuer, tokens);
            }
            CertificateUser::Service(issuer.map(JwtId::new))
        }
        _ => {
            let message = "user belongs to kind = \"personal\", user_from to kind = \"service\"";
            context.refuse(&at("kind"), message, None);
            return None;
        }
    };
    Some(CertificateRule {
        id: CertificateRuleId::new(name),
        subject: subject?,
        listeners,
        tenant: TenantId::new(raw.tenant?.0),
        user,
        role: raw.role.map_or(Role::Caller, Role::from),
        models: raw.models.into_iter().map(|model| model.0).collect(),
        pools,
        claims: raw.claims,
    })
}

fn subject(
    context: &mut Context<'_>,
    name: &str,
    san: Option<crate::text::NonEmpty>,
    common: Option<crate::text::NonEmpty>,
    any: Option<bool>,
) -> Option<CertificateName> {
    match (san, common, any) {
        (Some(san), None, None | Some(false)) => Some(CertificateName::Alternative(san.0)),
        (None, Some(common), None | Some(false)) => Some(CertificateName::Common(common.0)),
        (None, None, Some(true)) => Some(CertificateName::Any),
        _ => {
            let message = "say which certificates: one of san, common_name and any = true";
            context.refuse(&["certificate", name], message, None);
            None
        }
    }
}

/// Listeners that verify certificates.
fn listeners(context: &mut Context<'_>, rule: &str, raw: Vec<String>) -> Vec<ListenerId> {
    let known = context.names("listener");
    for (index, listener) in raw.iter().enumerate() {
        let path = ["certificate", rule, "listeners", &index.to_string()];
        if !known.contains(&listener.as_str()) {
            context.refuse_unknown(&path, "listener", listener, &known);
        }
    }
    raw.into_iter().map(ListenerId::new).collect()
}
