//! API keys, of the config file and of a file of their own.

use std::collections::BTreeMap;

use refrain_core::settings::{ApiKey, KeyKind, TokenIssuer};
use refrain_core::{JwtId, KeyId, Role, TenantId, UserId};

use super::{Context, tenants, tokens};
use crate::check;
use crate::error::Problems;
use crate::raw;
use crate::schema::Schema;
use crate::source::{FILE_BYTES_MAX, Source, read_bounded};
use crate::text::FilePath;
use crate::tree;

/// What keys refer to.
struct Known<'k> {
    pools: Vec<&'k str>,
    tokens: &'k [TokenIssuer],
}

pub(super) fn settle(
    context: &mut Context<'_>,
    raw: BTreeMap<String, raw::Key>,
    file: Option<FilePath>,
    tokens: &[TokenIssuer],
) -> Vec<ApiKey> {
    let known = Known { pools: context.names("pool"), tokens };
    let mut keys = of_tables(context, raw, &known);
    let Some(file) = file else { return keys };
    let more = of_file(context, &file, &known);
    for key in &more {
        if keys.iter().any(|other| other.id == key.id || other.hash == key.hash) {
            let message = format!("key {:?} is in it, and in this file too", key.id.as_str());
            context.refuse(&["keys_file"], message, None);
        }
    }
    keys.extend(more);
    keys
}

/// The keys of a file of keys; its problems are told with its name and its lines.
fn of_file(context: &mut Context<'_>, file: &FilePath, known: &Known<'_>) -> Vec<ApiKey> {
    let path = context.watched(&file.0);
    let text = match read_bounded(&path, FILE_BYTES_MAX) {
        Ok(text) => text,
        Err(error) => {
            let message =
                format!("can't read {}: {error}; `refrain key new --file {0}` makes one", path.display());
            context.refuse(&["keys_file"], message, None);
            return Vec::new();
        }
    };
    if is_open_to_others(&path) {
        let message = format!("other users of this machine can read it: chmod 600 {}", path.display());
        context.warn(&["keys_file"], message);
    }
    let source = Source::from_text(path, text, []);
    let mut problems = Problems::new(&source);
    let Some(tree) = tree::parse(&source, &mut problems) else {
        context.problems.take(problems.into_found());
        return Vec::new();
    };
    let checked = check::check(&Schema::of_keys_file(), &tree, &mut problems);
    let raw = raw::KeysFile::of(checked, &mut problems).unwrap_or_default();
    let mut inner = Context::new(&tree, &source, problems);
    inner.check_names();
    let keys = of_tables(&mut inner, raw.key, known);
    let Context { problems, warnings, .. } = inner;
    context.problems.take(problems.into_found());
    context.warnings.extend(warnings);
    keys
}

/// Hashes of long random keys tell nothing, but names and entitlements are nobody else's business, and who can write
/// such a file often can read it too.
#[cfg(unix)]
fn is_open_to_others(path: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_: &std::path::Path) -> bool {
    false
}

fn of_tables(context: &mut Context<'_>, raw: BTreeMap<String, raw::Key>, known: &Known<'_>) -> Vec<ApiKey> {
    let mut owners: BTreeMap<[u8; 32], KeyId> = BTreeMap::new();
    let mut keys: Vec<ApiKey> = Vec::with_capacity(raw.len());
    for (name, raw) in raw {
        let Some(key) = key(context, &name, raw, known) else { continue };
        if let Some(same) = owners.get(&key.hash.digest) {
            let message = format!("the same key as {:?}: a key has one owner", same.as_str());
            context.refuse(&["key", &name, "hash"], message, None);
        }
        owners.insert(key.hash.digest, key.id.clone());
        keys.push(key);
    }
    keys
}

/// None if a required part is missing or wrong, which is known already.
fn key(context: &mut Context<'_>, name: &str, raw: raw::Key, known: &Known<'_>) -> Option<ApiKey> {
    let tenant = raw.tenant.as_ref().map(|tenant| tenant.0.as_str());
    tenants::check_name(context, &["key", name, "tenant"], tenant);
    let pools = tenants::pools(context, &["key", name, "pools"], raw.pools, &known.pools);
    let user_from = user_from(context, name, raw.kind?, raw.user_from, known.tokens);
    let (kind, user) = owner(context, name, raw.kind?, raw.user.map(|user| user.0));
    Some(ApiKey {
        id: KeyId::new(name),
        tenant: TenantId::new(raw.tenant?.0),
        kind,
        user,
        user_from,
        role: raw.role.map_or(Role::Caller, Role::from),
        models: raw.models.into_iter().map(|model| model.0).collect(),
        pools,
        claims: raw.claims,
        priority: raw.priority.map(Into::into),
        created: raw.created.map(|moment| moment.0),
        expires: raw.expires.map(|moment| moment.0),
        hash: raw.hash?.0,
    })
}

fn user_from(
    context: &mut Context<'_>,
    name: &str,
    kind: raw::KeyKind,
    issuer: Option<String>,
    tokens: &[TokenIssuer],
) -> Option<JwtId> {
    let issuer = issuer?;
    let path = ["key", name, "user_from"];
    if matches!(kind, raw::KeyKind::Personal) {
        context.refuse(&path, "a personal key is its user; this is for kind = \"service\"", None);
    }
    tokens::check_header_issuer(context, &path, &issuer, tokens);
    Some(JwtId::new(issuer))
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
