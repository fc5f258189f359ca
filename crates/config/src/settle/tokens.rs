//! Who signs tokens, and which credentials routes take.

use std::collections::BTreeMap;
use std::time::Duration;

use refrain_core::settings::{
    ApiKey, AuthMethod, CertificateRule, CertificateUser, ClaimValue, Endpoint, EndpointTls, KeySetUrl,
    Secret, SigningKeys, TokenAlgorithm, TokenIssuer, TokenPlace, TokenTenant,
};
use refrain_core::{JwtId, Role, TenantId};

use super::{Context, secrets, tenants};
use crate::raw;
use crate::text;

/// RFC 7518, section 3.2: a key of HMAC is as long as the hash at least.
const SECRET_BYTES_MIN: usize = 32;

/// Pause between two reads of a key set, if config doesn't say.
const REFRESH: Duration = Duration::from_secs(300);

/// By how much clocks may differ, if config doesn't say.
const LEEWAY: Duration = Duration::from_secs(30);

/// Longest of that: RFC 7519 (4.1.4) speaks of a few minutes, and an expired token is taken for as long.
const LEEWAY_MAX: Duration = Duration::from_secs(300);

/// Shortest pause between two reads of a key set: its server is somebody else's.
const REFRESH_MIN: Duration = Duration::from_secs(5);

/// Names the user, if config doesn't say.
const USER_CLAIM: &str = "sub";

/// What an issuer's own keys may sign with.
const ASYMMETRIC: [TokenAlgorithm; 9] = [
    TokenAlgorithm::Rs256,
    TokenAlgorithm::Rs384,
    TokenAlgorithm::Rs512,
    TokenAlgorithm::Ps256,
    TokenAlgorithm::Ps384,
    TokenAlgorithm::Ps512,
    TokenAlgorithm::Es256,
    TokenAlgorithm::Es384,
    TokenAlgorithm::EdDsa,
];

pub(super) fn settle(context: &mut Context<'_>, raw: BTreeMap<String, raw::Jwt>) -> Vec<TokenIssuer> {
    raw.into_iter().filter_map(|(name, raw)| issuer(context, &name, raw)).collect()
}

/// None if a required part is missing or wrong, which is told.
fn issuer(context: &mut Context<'_>, name: &str, raw: raw::Jwt) -> Option<TokenIssuer> {
    let at = |key| ["jwt", name, key];
    let place = match &raw.header {
        Some(header) => TokenPlace::Header(header.0.clone()),
        None => TokenPlace::Bearer,
    };
    let audiences: Vec<String> = raw.audience.iter().map(|audience| audience.0.clone()).collect();
    if place == TokenPlace::Bearer && audiences.is_empty() {
        let message =
            "say for whom its tokens are: audience = [\"NAME\"]; those for other programs are none here";
        context.refuse(&at("audience"), message, None);
    }
    if place != TokenPlace::Bearer {
        refuse_rights(context, name, &raw);
    }
    if raw.leeway.as_ref().is_some_and(|leeway| leeway.0 > LEEWAY_MAX) {
        context.refuse(&at("leeway"), "must be at most 5m: expired tokens are taken for as long", None);
    }
    let tenant = tenant(context, name, &place, raw.tenant, raw.tenant_claim, raw.tenants);
    let source = Source {
        url: raw.jwks_url,
        file: raw.jwks_file,
        secret: raw.secret,
        ca_file: raw.ca_file,
        refresh: raw.refresh,
    };
    let keys = keys(context, name, source);
    let algorithms = keys.as_ref().map(|keys| algorithms(context, name, keys, &raw.algorithms));
    let known = context.names("pool");
    let pools = tenants::pools(context, &at("pools"), raw.pools, &known);
    let admins = raw.admins.and_then(|raw| Some(ClaimValue { claim: raw.claim?.0, value: raw.value?.0 }));
    Some(TokenIssuer {
        id: JwtId::new(name),
        place,
        issuer: raw.issuer?.0,
        audiences,
        keys: keys?,
        algorithms: algorithms?,
        leeway: raw.leeway.map_or(LEEWAY, |span| span.0),
        tenant: tenant?,
        user_claim: raw.user_claim.map_or_else(|| USER_CLAIM.to_owned(), |claim| claim.0),
        user_prefix: raw.user_prefix.unwrap_or_else(|| format!("{name}:")),
        claims: raw.claims.into_iter().map(|(name, claim)| (name, claim.0)).collect(),
        role: raw.role.map_or(Role::Caller, Role::from),
        admins,
        models: raw.models.into_iter().map(|model| model.0).collect(),
        pools,
    })
}

/// Rights that nobody would have: a signed header names a user, and what that one may is the service's.
fn refuse_rights(context: &mut Context<'_>, name: &str, raw: &raw::Jwt) {
    let given = [
        ("role", raw.role.is_some()),
        ("admins", raw.admins.is_some()),
        ("models", !raw.models.is_empty()),
        ("pools", !raw.pools.is_empty()),
    ];
    for (key, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
        let message = "has no effect beside header: its users may do what the service key or certificate may";
        context.refuse(&["jwt", name, key], message, None);
    }
}

fn tenant(
    context: &mut Context<'_>,
    name: &str,
    place: &TokenPlace,
    fixed: Option<text::NonEmpty>,
    claim: Option<text::NonEmpty>,
    allowed: Vec<text::NonEmpty>,
) -> Option<TokenTenant> {
    let at = |key| ["jwt", name, key];
    if claim.is_none() && !allowed.is_empty() {
        context.refuse(&at("tenants"), "belongs to tenant_claim; for one tenant say tenant = \"NAME\"", None);
    }
    tenants::check_name(context, &at("tenant"), fixed.as_ref().map(|tenant| tenant.0.as_str()));
    match (place, fixed, claim) {
        (TokenPlace::Header(_), None, None) => Some(TokenTenant::OfKey),
        (TokenPlace::Header(_), ..) => {
            let message = "a signed header names a user of the service key's tenant; leave out its tenant";
            context.refuse(&["jwt", name], message, None);
            None
        }
        (TokenPlace::Bearer, Some(tenant), None) => Some(TokenTenant::Fixed(TenantId::new(tenant.0))),
        (TokenPlace::Bearer, None, Some(claim)) => Some(TokenTenant::Claim {
            claim: claim.0,
            allowed: allowed.into_iter().map(|tenant| TenantId::new(tenant.0)).collect(),
        }),
        (TokenPlace::Bearer, ..) => {
            let message = "say whose its callers are: tenant = \"NAME\", or tenant_claim = \"CLAIM\"";
            context.refuse(&["jwt", name], message, None);
            None
        }
    }
}

/// Where the keys are, as the table has it.
struct Source {
    url: Option<text::WebUrl>,
    file: Option<text::FilePath>,
    secret: Option<raw::SecretSource>,
    ca_file: Option<text::FilePath>,
    refresh: Option<text::TimeSpan>,
}

fn keys(context: &mut Context<'_>, name: &str, source: Source) -> Option<SigningKeys> {
    let Source { url, file, secret, ca_file, refresh } = source;
    if url.is_none() && (ca_file.is_some() || refresh.is_some()) {
        context.refuse(&["jwt", name], "ca_file and refresh belong to jwks_url", None);
    }
    match (url, file, secret) {
        (Some(url), None, None) => {
            let place = key_set(context, name, url.0, ca_file, refresh);
            Some(SigningKeys::Url(Box::new(place)))
        }
        (None, Some(file), None) => Some(SigningKeys::File(context.watched(&file.0))),
        (None, None, Some(secret)) => self::secret(context, name, secret).map(SigningKeys::Secret),
        _ => {
            let message = "say what verifies its tokens: one of jwks_url, jwks_file and secret";
            context.refuse(&["jwt", name], message, None);
            None
        }
    }
}

fn key_set(
    context: &mut Context<'_>,
    name: &str,
    place: text::WebPlace,
    ca_file: Option<text::FilePath>,
    refresh: Option<text::TimeSpan>,
) -> KeySetUrl {
    let Endpoint { tls, host, .. } = &place.endpoint;
    if refresh.as_ref().is_some_and(|refresh| refresh.0 < REFRESH_MIN) {
        context.refuse(&["jwt", name, "refresh"], "must be at least 5s", None);
    }
    if tls.is_none() {
        if ca_file.is_some() {
            context.refuse(&["jwt", name, "ca_file"], "has no effect: only https:// means TLS", None);
        }
        if host != "localhost" && !host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
            let message = "not https: whoever stands between here and that server can sign tokens";
            context.warn(&["jwt", name, "jwks_url"], message);
        }
    }
    let ca_file = ca_file.map(|file| context.watched(&file.0));
    let tls = place.endpoint.tls.map(|tls| EndpointTls { ca_file, ..tls });
    KeySetUrl {
        endpoint: Endpoint { tls, ..place.endpoint },
        path: place.path,
        refresh: refresh.map_or(REFRESH, |span| span.0),
    }
}

fn secret(context: &mut Context<'_>, name: &str, raw: raw::SecretSource) -> Option<Secret> {
    let path = ["jwt", name, "secret"];
    match secrets::read(context, raw) {
        Ok(text) if text.len() >= SECRET_BYTES_MIN => Some(Secret(text)),
        Ok(_) => {
            let message = "shorter than 32 bytes, so that it can be guessed; make one: openssl rand -hex 32";
            context.refuse(&path, message, None);
            None
        }
        Err(message) => {
            context.refuse(&path, message, None);
            None
        }
    }
}

fn algorithms(
    context: &mut Context<'_>,
    name: &str,
    keys: &SigningKeys,
    raw: &[raw::Algorithm],
) -> Vec<TokenAlgorithm> {
    let is_shared = matches!(keys, SigningKeys::Secret(_));
    let algorithms: Vec<TokenAlgorithm> = raw.iter().copied().map(TokenAlgorithm::from).collect();
    if algorithms.iter().any(|algorithm| ASYMMETRIC.contains(algorithm) == is_shared) {
        let message = "HS256, HS384 and HS512 belong to secret, all others to jwks_url and jwks_file";
        context.refuse(&["jwt", name, "algorithms"], message, None);
    }
    match (algorithms.is_empty(), is_shared) {
        (false, _) => algorithms,
        (true, true) => vec![TokenAlgorithm::Hs256],
        (true, false) => ASYMMETRIC.to_vec(),
    }
}

impl From<raw::Algorithm> for TokenAlgorithm {
    fn from(raw: raw::Algorithm) -> Self {
        match raw {
            raw::Algorithm::Hs256 => Self::Hs256,
            raw::Algorithm::Hs384 => Self::Hs384,
            raw::Algorithm::Hs512 => Self::Hs512,
            raw::Algorithm::Rs256 => Self::Rs256,
            raw::Algorithm::Rs384 => Self::Rs384,
            raw::Algorithm::Rs512 => Self::Rs512,
            raw::Algorithm::Ps256 => Self::Ps256,
            raw::Algorithm::Ps384 => Self::Ps384,
            raw::Algorithm::Ps512 => Self::Ps512,
            raw::Algorithm::Es256 => Self::Es256,
            raw::Algorithm::Es384 => Self::Es384,
            raw::Algorithm::EdDsa => Self::EdDsa,
        }
    }
}

/// Refuses an issuer that doesn't sign headers.
pub(super) fn check_header_issuer(
    context: &mut Context<'_>,
    path: &[&str],
    name: &str,
    tokens: &[TokenIssuer],
) {
    match tokens.iter().find(|issuer| issuer.id.as_str() == name) {
        Some(TokenIssuer { place: TokenPlace::Header(_), .. }) => {}
        Some(_) => {
            let message = format!(
                "the tokens of {name:?} are credentials; say there which header holds them: header = \"NAME\""
            );
            context.refuse(path, message, None);
        }
        // One that is wrong in itself is not among the tokens, and known already.
        None => {
            let known: Vec<&str> = tokens.iter().map(|issuer| issuer.id.as_str()).collect();
            context.refuse_unknown(path, "jwt", name, &known);
        }
    }
}

/// Signed headers that nobody looks at.
pub(super) fn warn_of_idle(
    context: &mut Context<'_>,
    tokens: &[TokenIssuer],
    keys: &[ApiKey],
    certificates: &[CertificateRule],
) {
    for issuer in tokens.iter().filter(|issuer| issuer.place != TokenPlace::Bearer) {
        let by_key = keys.iter().any(|key| key.user_from.as_ref() == Some(&issuer.id));
        let by_certificate = certificates
            .iter()
            .any(|rule| matches!(&rule.user, CertificateUser::Service(Some(id)) if *id == issuer.id));
        if !by_key && !by_certificate {
            let message = "nobody's user_from names it, so its header is not looked at";
            context.warn(&["jwt", issuer.id.as_str()], message);
        }
    }
}

/// Refuses kinds of credentials that nobody can have.
pub(super) fn check_methods(context: &mut Context<'_>, route: &str, methods: &[text::AuthMethod]) {
    if methods.is_empty() {
        context.refuse(&["route", route, "auth"], "nobody could ask; name a kind of credential", None);
    }
    let issuers = context.names("jwt");
    for (index, method) in methods.iter().enumerate() {
        let path = ["route", route, "auth", &index.to_string()];
        match &method.0 {
            AuthMethod::Jwt(Some(id)) if !issuers.contains(&id.as_str()) => {
                context.refuse_unknown(&path, "jwt", id.as_str(), &issuers);
            }
            AuthMethod::Jwt(_) if issuers.is_empty() => context.refuse(&path, "there is no [jwt.NAME]", None),
            AuthMethod::Key if context.names("key").is_empty() && !context.has_keys_file() => {
                context.refuse(&path, "there is no [key.NAME] and no keys_file", None);
            }
            AuthMethod::Certificate if context.names("certificate").is_empty() => {
                context.refuse(&path, "there is no [certificate.NAME]", None);
            }
            _ => {}
        }
    }
}
