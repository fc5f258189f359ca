//! Who may ask: `[key.NAME]`, `[jwt.NAME]`, `[certificate.NAME]`, `[tenant.NAME]`, and who may operate.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Priority, Role, SecretSource};
use crate::error::{Problems, Suggestion};
use crate::text::{FilePath, Hash, HeaderName, Moment, NonEmpty, TimeSpan, WebUrl};
use crate::tree::Origin;

/// A file of API keys alone, which `refrain key` writes.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct KeysFile {
    /// API keys, by name.
    pub(crate) key: BTreeMap<String, Key>,
}

impl KeysFile {
    /// The tables of a document that was checked against the schema.
    pub(crate) fn of(checked: toml::Value, problems: &mut Problems<'_>) -> Option<Self> {
        Self::deserialize(checked)
            .map_err(|error| {
                problems.at(&Origin::Span(0..0), "", error.message().to_owned(), None::<Suggestion>)
            })
            .ok()
    }
}

/// An API key: its hash, never itself.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    /// The organisation that the key belongs to: answers are never shared over tenants, unless scope `shared` says so.
    #[schemars(required)]
    pub(crate) tenant: Option<NonEmpty>,
    /// Whether the key is one person's.
    #[schemars(required)]
    pub(crate) kind: Option<KeyKind>,
    /// The user, for a personal key. Default: the key's name.
    pub(crate) user: Option<NonEmpty>,
    /// For a service key: the `[jwt.NAME]` whose signed header names the user. Default: it has no users.
    pub(crate) user_from: Option<String>,
    /// What it may do. Default "caller".
    pub(crate) role: Option<Role>,
    /// Models that it may ask for. Default: all.
    #[serde(default)]
    pub(crate) models: Vec<NonEmpty>,
    /// Pools that cache policies may choose for it, beside the route's own. Default: all.
    #[serde(default)]
    pub(crate) pools: Vec<String>,
    /// What you vouch for of its owner, such as { groups = "legal" }: scopes and cache policies may go by it. Default: nothing.
    #[serde(default)]
    pub(crate) claims: BTreeMap<String, String>,
    /// Whose requests go first where model servers are at their limits. Default: as the route says.
    pub(crate) priority: Option<Priority>,
    /// When it was made, for people: "2026-11-22" or "2026-11-22T13:00:00Z".
    pub(crate) created: Option<Moment>,
    /// From when on it is refused, in the same form. Default: never.
    pub(crate) expires: Option<Moment>,
    /// Salted hash of the key.
    #[schemars(required)]
    pub(crate) hash: Option<Hash>,
}

/// Whether a key stands for one person.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeyKind {
    /// One person: the key is the user.
    Personal,
    /// A program that speaks for many people: it has no user of its own.
    Service,
}

/// Somebody who signs tokens (JWT), and what their claims mean here. One of jwks_url, jwks_file and secret verifies them.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Jwt {
    /// What `iss` must be.
    #[schemars(required)]
    pub(crate) issuer: Option<NonEmpty>,
    /// What `aud` must hold one of. Tokens that are sent as credentials need it: those for another program are none here.
    #[serde(default)]
    pub(crate) audience: Vec<NonEmpty>,
    /// Where the issuer gives out its public keys (JWKS).
    pub(crate) jwks_url: Option<WebUrl>,
    /// File with the same; it is watched.
    pub(crate) jwks_file: Option<FilePath>,
    /// Secret of at least 32 bytes that the issuer shares, for HS256.
    pub(crate) secret: Option<SecretSource>,
    /// PEM file of the authorities that vouch for the server of jwks_url. Default: those of the system.
    pub(crate) ca_file: Option<FilePath>,
    /// Pause between two reads of jwks_url, at least 5 s. A token signed by an unknown key has it read at once. Default "5m".
    pub(crate) refresh: Option<TimeSpan>,
    /// What may sign. Default: every asymmetric algorithm; with a secret "HS256".
    #[serde(default)]
    pub(crate) algorithms: Vec<Algorithm>,
    /// By how much clocks may differ, at most 5 minutes. Default "30s".
    pub(crate) leeway: Option<TimeSpan>,
    /// The header that holds it beside a service key whose `user_from` names this table. Default: it is a credential itself,
    /// in `Authorization`.
    pub(crate) header: Option<HeaderName>,
    /// The tenant of all its callers.
    pub(crate) tenant: Option<NonEmpty>,
    /// The claim that names the tenant, or a JSON pointer to it.
    pub(crate) tenant_claim: Option<NonEmpty>,
    /// What tenant_claim may name. Default: any.
    #[serde(default)]
    pub(crate) tenants: Vec<NonEmpty>,
    /// The claim that names the user, or a JSON pointer to it. Default "sub".
    pub(crate) user_claim: Option<NonEmpty>,
    /// What stands before it in the user's name here, so that two issuers' users stay apart. Default: the table's name and ":".
    pub(crate) user_prefix: Option<String>,
    /// Claims to keep for scopes and cache policies: name here -> claim of the token. Default: none.
    #[serde(default)]
    pub(crate) claims: BTreeMap<String, NonEmpty>,
    /// What its callers may do. Default "caller".
    pub(crate) role: Option<Role>,
    /// Whom of them is an admin: { claim = "groups", value = "llm-admins" }. Default: nobody.
    pub(crate) admins: Option<ClaimValue>,
    /// Models that its callers may ask for. Default: all.
    #[serde(default)]
    pub(crate) models: Vec<NonEmpty>,
    /// Pools that cache policies may choose for them, beside the route's own. Default: all.
    #[serde(default)]
    pub(crate) pools: Vec<String>,
}

/// A claim that is, or holds, a value.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimValue {
    /// The claim, or a JSON pointer to it.
    #[schemars(required)]
    pub(crate) claim: Option<NonEmpty>,
    /// Its value, or one of its values.
    #[schemars(required)]
    pub(crate) value: Option<NonEmpty>,
}

/// Algorithms of signatures.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Algorithm {
    /// HMAC with SHA-256; needs a secret, as HS384 and HS512 do.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA PKCS#1 with SHA-256.
    Rs256,
    /// RSA PKCS#1 with SHA-384.
    Rs384,
    /// RSA PKCS#1 with SHA-512.
    Rs512,
    /// RSA PSS with SHA-256.
    Ps256,
    /// RSA PSS with SHA-384.
    Ps384,
    /// RSA PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256.
    Es256,
    /// ECDSA on P-384.
    Es384,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// Whose client certificates are that a listener has verified. One of san, common_name and any says which.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateRule {
    /// A subject alternative name: of DNS (`*.example.com` for one label below), URI or e-mail.
    pub(crate) san: Option<NonEmpty>,
    /// The subject's common name.
    pub(crate) common_name: Option<NonEmpty>,
    /// True: every certificate that no other table names.
    pub(crate) any: Option<bool>,
    /// Names of listeners. Default: all that verify certificates.
    #[serde(default)]
    pub(crate) listeners: Vec<String>,
    /// The organisation that it belongs to.
    #[schemars(required)]
    pub(crate) tenant: Option<NonEmpty>,
    /// Whether it is one person's.
    #[schemars(required)]
    pub(crate) kind: Option<KeyKind>,
    /// The user, for a personal one. Default: the name in the certificate.
    pub(crate) user: Option<NonEmpty>,
    /// For a service: the `[jwt.NAME]` whose signed header names the user. Default: it has no users.
    pub(crate) user_from: Option<String>,
    /// What it may do. Default "caller".
    pub(crate) role: Option<Role>,
    /// Models that it may ask for. Default: all.
    #[serde(default)]
    pub(crate) models: Vec<NonEmpty>,
    /// Pools that cache policies may choose for it, beside the route's own. Default: all.
    #[serde(default)]
    pub(crate) pools: Vec<String>,
    /// What you vouch for of its owner. Default: nothing.
    #[serde(default)]
    pub(crate) claims: BTreeMap<String, String>,
}

/// What all callers of a tenant may have. Their own keys can narrow it further.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tenant {
    /// Models that they may ask for. Default: all.
    pub(crate) models: Vec<NonEmpty>,
    /// Pools that may answer them, the routes' own included. Default: all.
    pub(crate) pools: Vec<String>,
}

/// A token of the admin listener: its hash, never itself.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminToken {
    /// What its owner may do.
    #[schemars(required)]
    pub(crate) role: Option<OperatorRole>,
    /// Salted hash of the token: `refrain key new --operator ROLE`.
    #[schemars(required)]
    pub(crate) hash: Option<Hash>,
}

/// What an operator may do.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OperatorRole {
    /// See metrics, health, settings and servers.
    Read,
    /// Also purge, reload, drain.
    Operate,
}

/// Certificates that clients show.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClientAuth {
    /// Without one there is no connection.
    Required,
    /// Without one, another credential may do.
    Optional,
}
