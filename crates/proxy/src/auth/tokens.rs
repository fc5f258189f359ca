//! Signed tokens (JWT, RFC 7519): as credentials, and in headers beside a service key, whose user they name.
//!
//! The algorithm is what config accepts and what the key is for, never what the token alone says (RFC 8725).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use refrain_core::settings::{Settings, Tenant, TokenAlgorithm, TokenIssuer, TokenPlace, TokenTenant};
use refrain_core::{Identity, JwtId, TenantId};
use serde::Deserialize;
use tokio::sync::Notify;

use super::claims::Claims;
use super::methods::Methods;
use super::refusal::Refusal;
use super::signing_keys::{KeySetStatus, Keys, RemoteKeys, SigningKeysError};
use super::verified::{Digest, Verified};
use super::{CREDENTIAL_BYTES_MAX, Caller, Entitlements, Known};

/// Verified tokens that are remembered, of all issuers together. Each takes some hundred bytes.
const VERIFIED_MAX: usize = 64 * 1024;

/// The tokens that one configuration accepts.
pub(super) struct Tokens {
    issuers: Vec<Issuer>,
    verified: Verified<VerifiedToken>,
    /// Wakes who reads key sets. Outlives configurations.
    wanted: Arc<Notify>,
}

/// What a token has come to.
#[derive(Clone)]
struct VerifiedToken {
    /// Index of its issuer.
    issuer: usize,
    /// Tables before that one which can never take it.
    refused_by: Refused,
    caller: Caller,
    /// Seconds since 1970, leeway included.
    expires: u64,
    /// Of the keys that verified it.
    generation: u64,
}

/// Tables that can never take a token, by index; beyond 64 they are asked each time.
#[derive(Clone, Copy, Debug, Default)]
struct Refused(u64);

impl Refused {
    fn add(&mut self, index: usize) {
        self.0 |= u32::try_from(index).ok().and_then(|index| 1_u64.checked_shl(index)).unwrap_or_default();
    }

    fn holds(self, index: usize) -> bool {
        u32::try_from(index)
            .ok()
            .and_then(|index| self.0.checked_shr(index))
            .is_some_and(|rest| rest & 1 == 1)
    }
}

struct Issuer {
    settings: TokenIssuer,
    keys: Keys,
    /// What must hold, for each algorithm that is accepted.
    checks: Vec<Check>,
    /// What its callers may have, by tenant.
    entitlements: HashMap<TenantId, Arc<Entitlements>>,
    /// The same for tenants of which config says nothing.
    otherwise: Arc<Entitlements>,
}

struct Check {
    name: &'static str,
    algorithm: Algorithm,
    validation: Validation,
}

/// What is read of a token before it is verified.
#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood: none is.
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Unverified {
    iss: Option<String>,
}

/// Whether a credential has the form of a token: a JSON object and two more parts. `{` and what may follow it in JSON, a
/// quote or white space, are `ey` or `ew` in base64.
pub(super) fn is_token(credential: &str) -> bool {
    (credential.starts_with("ey") || credential.starts_with("ew"))
        && credential.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl Tokens {
    /// Blocks on files.
    pub(super) fn new(settings: &Settings, former: Option<&Self>) -> Result<Self, SigningKeysError> {
        let wanted = former.map_or_else(Arc::default, |former| former.wanted.clone());
        let issuers = settings.tokens.iter().map(|issuer| {
            let known = former.and_then(|former| former.remote().find(|(keys, _)| keys.issuer == issuer.id));
            let keys = Keys::new(&issuer.id, &issuer.keys, known.map(|(keys, _)| keys), &wanted)?;
            Ok(Issuer::new(issuer.clone(), keys, &settings.tenants))
        });
        Ok(Self {
            issuers: issuers.collect::<Result<_, _>>()?,
            verified: Verified::new(VERIFIED_MAX),
            wanted,
        })
    }

    /// Key sets that servers give out, and how often each is read.
    pub(super) fn remote(&self) -> impl Iterator<Item = (&Arc<RemoteKeys>, Duration)> {
        self.issuers.iter().filter_map(|issuer| match &issuer.keys {
            Keys::Remote(keys, refresh) => Some((keys, *refresh)),
            Keys::Fixed(_) => None,
        })
    }

    pub(super) fn wanted(&self) -> &Arc<Notify> {
        &self.wanted
    }

    pub(super) fn key_sets(&self) -> Vec<KeySetStatus> {
        self.remote().map(|(keys, _)| keys.status()).collect()
    }

    /// Whether tokens are credentials here.
    pub(super) fn any_bearer(&self, methods: Methods<'_>) -> bool {
        self.issuers.iter().any(|issuer| issuer.is_bearer(methods))
    }

    /// Whose a token is that is presented as a credential.
    pub(super) async fn bearer(&self, token: &str, methods: Methods<'_>) -> Result<Caller, Refusal> {
        let digest = self.verified.digest("", token);
        match self.remembered(&digest) {
            Some(known) if self.is_first(&known, methods) => Ok(known.caller),
            Some(_) | None => self.verify_bearer(token, methods, digest).await,
        }
    }

    /// Whether a remembered token would come to the same here: another route may leave out the table that is asked first.
    fn is_first(&self, known: &VerifiedToken, methods: Methods<'_>) -> bool {
        let Some((own, before)) = self.issuers[..=known.issuer].split_last() else { return false };
        let takes = |(index, issuer): (usize, &Issuer)| {
            issuer.settings.issuer == own.settings.issuer
                && issuer.is_bearer(methods)
                && !known.refused_by.holds(index)
        };
        own.is_bearer(methods) && !before.iter().enumerate().any(takes)
    }

    /// One issuer may stand in several tables, for several audiences: the first that takes the token has it.
    async fn verify_bearer(
        &self,
        token: &str,
        methods: Methods<'_>,
        digest: Digest,
    ) -> Result<Caller, Refusal> {
        let unverified: Unverified = part(token, 1)?;
        let mut refusal = Refusal::TokenIssuer;
        let mut refused_by = Refused::default();
        for (index, issuer) in self.issuers.iter().enumerate() {
            let is_its = Some(&issuer.settings.issuer) == unverified.iss.as_ref();
            if !is_its || !issuer.is_bearer(methods) {
                continue;
            }
            match issuer.verify(token).await {
                Ok((claims, generation)) => {
                    let caller = issuer.caller(&claims)?;
                    self.remember(digest, (index, refused_by), caller.clone(), (&claims, generation));
                    return Ok(caller);
                }
                Err(reason) => {
                    if reason == Refusal::TokenAudience {
                        refused_by.add(index);
                    }
                    refusal = reason;
                }
            }
        }
        Err(refusal)
    }

    /// The caller behind a service: the one that its signed header names, or nobody in particular without the header.
    pub(super) async fn user(
        &self,
        service: &Known,
        issuer: &JwtId,
        headers: &HeaderMap,
    ) -> Result<Caller, Refusal> {
        let found = self.issuers.iter().enumerate().find(|(_, known)| known.settings.id == *issuer);
        let Some((index, issuer)) = found else { return Err(Refusal::TokenIssuer) };
        let TokenPlace::Header(name) = &issuer.settings.place else { return Err(Refusal::TokenIssuer) };
        let mut values = headers.get_all(name).iter();
        let token = match (values.next(), values.next()) {
            (None, _) => return Ok(service.caller.clone()),
            (Some(value), None) => value.to_str().map_err(|_| Refusal::UserHeader)?.trim(),
            _ => return Err(Refusal::UserHeader),
        };
        if token.len() > CREDENTIAL_BYTES_MAX {
            return Err(Refusal::TooLong);
        }
        let digest = self.verified.digest(&service.name, token);
        if let Some(known) = self.remembered(&digest) {
            return Ok(known.caller);
        }
        let (claims, generation) = issuer.verify(token).await?;
        let caller = issuer.user_of(&service.caller, &claims)?;
        self.remember(digest, (index, Refused::default()), caller.clone(), (&claims, generation));
        Ok(caller)
    }

    /// What a token came to, as long as it and the keys that signed it are valid.
    fn remembered(&self, digest: &Digest) -> Option<VerifiedToken> {
        let known = self.verified.get(digest)?;
        let issuer = self.issuers.get(known.issuer)?;
        (now() < known.expires && known.generation == issuer.keys.generation()).then_some(known)
    }

    fn remember(
        &self,
        digest: Digest,
        (issuer, refused_by): (usize, Refused),
        caller: Caller,
        (claims, generation): (&Claims, u64),
    ) {
        let leeway = self.issuers[issuer].settings.leeway.as_secs();
        let Some(expires) = claims.expires().map(|expires| expires.saturating_add(leeway)) else { return };
        let now = now();
        let token = VerifiedToken { issuer, refused_by, caller, expires, generation };
        self.verified.insert(digest, token, |other| other.expires <= now);
    }
}

impl Issuer {
    fn new(settings: TokenIssuer, keys: Keys, tenants: &BTreeMap<TenantId, Tenant>) -> Self {
        let of = |tenant| Arc::new(Entitlements::new(tenant, &settings.models, &settings.pools));
        Self {
            entitlements: tenants.iter().map(|(id, tenant)| (id.clone(), of(Some(tenant)))).collect(),
            otherwise: of(None),
            checks: settings.algorithms.iter().map(|algorithm| Check::new(*algorithm, &settings)).collect(),
            keys,
            settings,
        }
    }

    fn is_bearer(&self, methods: Methods<'_>) -> bool {
        self.settings.place == TokenPlace::Bearer && methods.take_tokens_of(&self.settings.id)
    }

    /// The claims of a token that holds, and the generation of the keys by which it does.
    async fn verify(&self, token: &str) -> Result<(Claims, u64), Refusal> {
        let head: Head = part(token, 0)?;
        let check = self.checks.iter().find(|check| check.name == head.alg).ok_or(Refusal::TokenAlgorithm)?;
        if head.crit.is_some() {
            return Err(Refusal::TokenMalformed);
        }
        match self.verify_now(token, &head, check) {
            Err(Refusal::TokenKey | Refusal::KeysAway) if self.refreshed().await => {
                self.verify_now(token, &head, check)
            }
            verified => verified,
        }
    }

    fn verify_now(&self, token: &str, head: &Head, check: &Check) -> Result<(Claims, u64), Refusal> {
        // Before the keys: if these change meanwhile, what they verify is forgotten too early, never too late.
        let generation = self.keys.generation();
        let keys = self.keys.current().ok_or(Refusal::KeysAway)?;
        let key = keys.find(head.kid.as_deref(), check.algorithm, check.name).ok_or(Refusal::TokenKey)?;
        Ok((check.claims(token, key)?, generation))
    }

    async fn refreshed(&self) -> bool {
        match &self.keys {
            Keys::Fixed(_) => false,
            Keys::Remote(keys, _) => keys.refreshed().await,
        }
    }

    /// Who presents the token.
    fn caller(&self, claims: &Claims) -> Result<Caller, Refusal> {
        let issuer = &self.settings;
        let tenant = match &issuer.tenant {
            TokenTenant::Fixed(tenant) => tenant.clone(),
            TokenTenant::Claim { claim, allowed } => claims.tenant(claim, allowed)?,
            TokenTenant::OfKey => return Err(Refusal::TokenIssuer),
        };
        let entitlements = self.entitlements.get(&tenant).unwrap_or(&self.otherwise).clone();
        let (user, kept, role) = (claims.user(issuer)?, claims.kept(issuer)?, claims.role(issuer));
        let identity = Identity { tenant, user: Some(user), claims: kept, role };
        Ok(Caller { identity: Arc::new(identity), key: None, entitlements })
    }

    /// Who stands behind a service: what the service is, with a user and claims. Rights are the service's.
    fn user_of(&self, service: &Caller, claims: &Claims) -> Result<Caller, Refusal> {
        let mut identity = Identity::clone(&service.identity);
        identity.user = Some(claims.user(&self.settings)?);
        // What config vouches for goes before what the token says.
        let mut kept = claims.kept(&self.settings)?;
        kept.append(&mut identity.claims);
        identity.claims = kept;
        Ok(Caller { identity: Arc::new(identity), ..service.clone() })
    }
}

impl Check {
    fn new(algorithm: TokenAlgorithm, issuer: &TokenIssuer) -> Self {
        let name = algorithm.as_str();
        let algorithm = self::algorithm(algorithm);
        let mut validation = Validation::new(algorithm);
        validation.leeway = issuer.leeway.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&issuer.issuer]);
        let mut required = vec!["exp", "iss"];
        if issuer.audiences.is_empty() {
            validation.validate_aud = false;
        } else {
            validation.set_audience(&issuer.audiences);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        Self { name, algorithm, validation }
    }

    fn claims(&self, token: &str, key: &DecodingKey) -> Result<Claims, Refusal> {
        match decode(token, key, &self.validation) {
            Ok(data) => Ok(Claims(data.claims)),
            Err(error) => Err(match error.kind() {
                ErrorKind::InvalidSignature => Refusal::TokenSignature,
                ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => Refusal::TokenAlgorithm,
                ErrorKind::ExpiredSignature => Refusal::TokenExpired,
                ErrorKind::ImmatureSignature => Refusal::TokenEarly,
                ErrorKind::InvalidIssuer => Refusal::TokenIssuer,
                ErrorKind::InvalidAudience => Refusal::TokenAudience,
                ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => Refusal::TokenClaims,
                _ => Refusal::TokenMalformed,
            }),
        }
    }
}

/// A part of a token, as JSON; not verified.
fn part<T: for<'de> Deserialize<'de>>(token: &str, nth: usize) -> Result<T, Refusal> {
    let part = token.split('.').nth(nth).ok_or(Refusal::TokenMalformed)?;
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::TokenMalformed)?;
    serde_json::from_slice(&bytes).map_err(|_| Refusal::TokenMalformed)
}

fn algorithm(algorithm: TokenAlgorithm) -> Algorithm {
    match algorithm {
        TokenAlgorithm::Hs256 => Algorithm::HS256,
        TokenAlgorithm::Hs384 => Algorithm::HS384,
        TokenAlgorithm::Hs512 => Algorithm::HS512,
        TokenAlgorithm::Rs256 => Algorithm::RS256,
        TokenAlgorithm::Rs384 => Algorithm::RS384,
        TokenAlgorithm::Rs512 => Algorithm::RS512,
        TokenAlgorithm::Ps256 => Algorithm::PS256,
        TokenAlgorithm::Ps384 => Algorithm::PS384,
        TokenAlgorithm::Ps512 => Algorithm::PS512,
        TokenAlgorithm::Es256 => Algorithm::ES256,
        TokenAlgorithm::Es384 => Algorithm::ES384,
        TokenAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}

/// Seconds since 1970. A clock from before then makes every token late.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
}
