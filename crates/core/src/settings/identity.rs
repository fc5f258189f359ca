//! Who may ask: the credentials that are accepted, and what their owners may have. Never a credential itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::{Endpoint, Priority, Secret};
use crate::{CertificateRuleId, JwtId, KeyId, ListenerId, PoolId, Role, TenantId, UserId};

/// Whether a key stands for one person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// One person: the key is the user.
    Personal,
    /// Speaks for many: it has no user of its own.
    Service,
}

/// An API key, as far as config knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its name in config.
    pub id: KeyId,
    /// Whom it belongs to.
    pub tenant: TenantId,
    /// Whether it is a person.
    pub kind: KeyKind,
    /// The user, for a personal key.
    pub user: Option<UserId>,
    /// Whose signed header names the user, for a service key.
    pub user_from: Option<JwtId>,
    /// What it may do.
    pub role: Role,
    /// Models that it may ask for; empty: all.
    pub models: Vec<String>,
    /// Pools that a policy may choose for it, beside the route's own; empty: all.
    pub pools: Vec<PoolId>,
    /// What the operator vouches for: "groups", "project", ...
    pub claims: BTreeMap<String, String>,
    /// Whose requests go first where model servers are at their limits; none: as the route says.
    pub priority: Option<Priority>,
    /// When it was made, if anybody wrote it down.
    pub created: Option<SystemTime>,
    /// From when on it is refused; none: never.
    pub expires: Option<SystemTime>,
    /// Salted hash of the key.
    pub hash: KeyHash,
}

/// BLAKE3 of an API key, keyed by a salt: `blake3:<salt, 16 bytes hex>:<digest, 32 bytes hex>` in config.
///
/// API keys are random and long, so a fast hash is enough: there is nothing to guess.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyHash {
    /// Random, per key.
    pub salt: [u8; 16],
    /// `blake3::derive_key("refrain 2026 api key v1", salt || key)`.
    pub digest: [u8; 32],
}

impl std::fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

/// Who signs tokens (RFC 7519), and what their claims mean here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenIssuer {
    /// Its name in config.
    pub id: JwtId,
    /// Where its tokens stand in a request.
    pub place: TokenPlace,
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must hold one of; empty, for signed headers alone: it is not looked at.
    pub audiences: Vec<String>,
    /// What verifies signatures.
    pub keys: SigningKeys,
    /// Algorithms that are accepted, whatever a token says. Never empty.
    pub algorithms: Vec<TokenAlgorithm>,
    /// By how much clocks may differ.
    pub leeway: Duration,
    /// Whose callers they are.
    pub tenant: TokenTenant,
    /// The claim that names the user: a name, or a JSON pointer if it begins with a slash.
    pub user_claim: String,
    /// What stands before the claim's value in the user's name: two issuers may mean different people by one name.
    pub user_prefix: String,
    /// Claims to keep: name here -> claim of the token.
    pub claims: BTreeMap<String, String>,
    /// What its callers may do.
    pub role: Role,
    /// Whom of them is an admin all the same.
    pub admins: Option<ClaimValue>,
    /// Models that they may ask for; empty: all.
    pub models: Vec<String>,
    /// Pools that a policy may choose for them, beside the route's own; empty: all.
    pub pools: Vec<PoolId>,
}

/// Where tokens stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    /// In `Authorization`: the token is the credential.
    Bearer,
    /// In a header (lower case) beside a service key, whose user it names. It lets nobody in.
    Header(String),
}

/// What verifies signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SigningKeys {
    /// A JSON web key set (RFC 7517) that a server gives out.
    Url(Box<KeySetUrl>),
    /// The same in a file.
    File(PathBuf),
    /// A secret that the issuer shares with us.
    Secret(Secret),
}

/// Where a key set is, and how often it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySetUrl {
    /// The server, without a base path.
    pub endpoint: Endpoint,
    /// Path and query.
    pub path: String,
    /// Pause between two reads.
    pub refresh: Duration,
}

/// Algorithms of signatures (RFC 7518, RFC 8037). `none` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenAlgorithm {
    /// HMAC with SHA-256.
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
    EdDsa,
}

impl TokenAlgorithm {
    /// Its name in tokens and in config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// Which tenant a token's caller belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenTenant {
    /// This one.
    Fixed(TenantId),
    /// The one that a claim names.
    Claim {
        /// The claim's name, or a JSON pointer.
        claim: String,
        /// Those that it may name; empty: any.
        allowed: Vec<TenantId>,
    },
    /// That of the service key beside it.
    OfKey,
}

/// A claim that is, or holds, a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimValue {
    /// The claim's name, or a JSON pointer.
    pub claim: String,
    /// The value.
    pub value: String,
}

/// Whose a verified client certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRule {
    /// Its name in config.
    pub id: CertificateRuleId,
    /// What the certificate must say.
    pub subject: CertificateName,
    /// Where; empty: at every listener that verifies certificates.
    pub listeners: Vec<ListenerId>,
    /// Whom it belongs to.
    pub tenant: TenantId,
    /// Who the user is.
    pub user: CertificateUser,
    /// What it may do.
    pub role: Role,
    /// Models that it may ask for; empty: all.
    pub models: Vec<String>,
    /// Pools that a policy may choose for it, beside the route's own; empty: all.
    pub pools: Vec<PoolId>,
    /// What the operator vouches for.
    pub claims: BTreeMap<String, String>,
}

/// A name in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// A subject alternative name, of DNS (lower case; `*.` for one label), URI or e-mail.
    Alternative(String),
    /// The subject's common name.
    Common(String),
    /// Any: whoever its authorities vouch for.
    Any,
}

/// The user behind a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateUser {
    /// This one.
    Fixed(UserId),
    /// The name that its subject matched by, or the first that it has.
    Named,
    /// None: it speaks for many. With an issuer: whose signed header names the user.
    Service(Option<JwtId>),
}

/// What all callers of a tenant may have, whatever their own credential says beside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenant {
    /// Models that they may ask for; empty: all.
    pub models: Vec<String>,
    /// Pools that may answer them; empty: all.
    pub pools: Vec<PoolId>,
}

/// A kind of credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// API keys.
    Key,
    /// Tokens: of this issuer, or of any.
    Jwt(Option<JwtId>),
    /// Client certificates.
    Certificate,
    /// None, where the listener allows that too.
    Anonymous,
}

/// What an operator may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperatorRole {
    /// See metrics, health, settings, servers.
    Read,
    /// Also purge, reload, drain.
    Operate,
}

/// A token of the admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminToken {
    /// Its name in config.
    pub id: KeyId,
    /// What its owner may do.
    pub role: OperatorRole,
    /// Salted hash of the token.
    pub hash: KeyHash,
}
