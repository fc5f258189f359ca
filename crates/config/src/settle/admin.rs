//! The admin listener: who may come in.

use refrain_core::KeyId;
use refrain_core::settings::{Admin, AdminToken, OperatorRole};

use super::{Context, is_name};
use crate::raw;

pub(super) fn settle(context: &mut Context<'_>, raw: Option<raw::Switch<raw::Admin>>) -> Option<Admin> {
    match raw {
        Some(raw::Switch::Flag(false)) => None,
        Some(raw::Switch::Flag(true)) | None => Some(Admin::default()),
        Some(raw::Switch::Table(table)) => Some(admin(context, *table)),
    }
}

fn admin(context: &mut Context<'_>, raw: raw::Admin) -> Admin {
    let raw::Admin { address, token, open_metrics, allow_anonymous } = raw;
    let address = address.map_or(Admin::default().address, |address| address.0);
    let has_tokens = !token.is_empty();
    if !address.ip().is_loopback() && !has_tokens {
        if allow_anonymous == Some(true) {
            context
                .warn(&["admin", "address"], "reachable from other machines, and it asks for no credentials");
        } else {
            let message = format!(
                "{address} can be reached from other machines: add an [admin.token.NAME] (refrain key new --operator \
                 read), or allow_anonymous = true"
            );
            context.refuse(&["admin", "address"], message, None);
        }
    }
    if allow_anonymous == Some(true) && has_tokens {
        let message = "beside tokens: nobody would need one; keep one of the two";
        context.refuse(&["admin", "allow_anonymous"], message, None);
    }
    let tokens = token.into_iter().filter_map(|(name, raw)| self::token(context, name, raw)).collect();
    Admin { address, tokens, open_metrics: open_metrics.unwrap_or_default() }
}

/// None if a required part is missing or wrong, which is known already.
fn token(context: &mut Context<'_>, name: String, raw: raw::AdminToken) -> Option<AdminToken> {
    if !is_name(&name) {
        let message = "a name has 1 to 64 letters, digits, \"-\", \"_\" or \".\"";
        context.refuse(&["admin", "token", &name], message, None);
    }
    let role = match raw.role? {
        raw::OperatorRole::Read => OperatorRole::Read,
        raw::OperatorRole::Operate => OperatorRole::Operate,
    };
    Some(AdminToken { id: KeyId::new(name), role, hash: raw.hash?.0 })
}
