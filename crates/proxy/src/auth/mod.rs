//! Third stage: who is asking. Whatever the kind of credential, one [`Caller`] comes of it.
//!
//! A credential that was seen before is found by its digest; only a new one is verified. What a caller may have is said
//! here ([`Entitlements`]) and asked by later stages.

mod certificates;
mod claims;
mod entitlements;
mod keeper;
mod keys;
mod methods;
mod refusal;
mod signing_keys;
mod tokens;
mod verified;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use refrain_core::settings::{AuthMethod, Listener, Settings};
use refrain_core::{Identity, JwtId, KeyId, Role};

use crate::failure::Failure;
use certificates::Certificates;
use keys::Keys;
use methods::Methods;
use refusal::{Refusal, Refusals};
use tokens::Tokens;

pub(crate) use certificates::{CertificateAuthority, PeerCertificate};
pub(crate) use entitlements::Entitlements;
pub use keeper::{keep_signing_keys, read_signing_keys};
pub use keys::{hash_key, is_key};
pub use signing_keys::{KeySetStatus, SigningKeysError};

/// A longer credential is none of ours, and not worth hashing. Tokens of people in many groups have some KiB.
const CREDENTIAL_BYTES_MAX: usize = 16 * 1024;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A caller that presented a valid credential, or may come without.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// The API key that it presented; none: another kind of credential, or none at all.
    pub key: Option<KeyId>,
    /// What it may have.
    pub(crate) entitlements: Arc<Entitlements>,
}

impl Caller {
    /// Somebody who may have everything that its role allows.
    pub(crate) fn of(identity: Identity) -> Self {
        Self { identity: Arc::new(identity), key: None, entitlements: Arc::default() }
    }
}

/// A caller as its own credential tells it.
#[derive(Clone, Debug)]
struct Known {
    caller: Caller,
    /// Names the credential among all of its configuration.
    name: Arc<str>,
    /// Whose signed header may name the user.
    user_from: Option<JwtId>,
}

/// How a request came in, as far as that says who is there.
pub(crate) struct Arrival<'a> {
    /// Where.
    pub(crate) listener: &'a Listener,
    /// Who vouches for certificates there.
    pub(crate) authority: Option<&'a CertificateAuthority>,
    /// What the client proved in the handshake.
    pub(crate) certificate: Option<&'a PeerCertificate>,
}

/// The credentials of one configuration.
pub struct Auth {
    /// Differs from that of every other.
    generation: u64,
    keys: Keys,
    tokens: Tokens,
    certificates: Certificates,
    /// Made once: most listeners without keys have no other caller.
    anonymous: [Caller; 2],
    refusals: Refusals,
}

impl Auth {
    /// Takes over what config says. What was read from the servers of key sets is kept if they are the same; verified
    /// credentials are not. Blocks on files.
    ///
    /// # Errors
    /// A file of signing keys can't be read, or holds none.
    pub fn new(settings: &Settings, former: Option<&Self>) -> Result<Self, SigningKeysError> {
        static GENERATIONS: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
            keys: Keys::new(settings),
            tokens: Tokens::new(settings, former.map(|former| &former.tokens))?,
            certificates: Certificates::new(settings),
            anonymous: [Role::Caller, Role::Admin].map(|role| Caller::of(Identity::anonymous(role))),
            refusals: Refusals::new(),
        })
    }

    /// The caller whose key has this name in config.
    pub(crate) fn of_key(&self, id: &KeyId) -> Option<Caller> {
        self.keys.named(id)
    }

    /// How the key sets do that servers give out.
    pub fn key_sets(&self) -> Vec<KeySetStatus> {
        self.tokens.key_sets()
    }

    /// The caller of a request. `methods`: what its route takes; none: whatever is configured.
    ///
    /// Waits only where a token is signed by a key that is not known yet.
    ///
    /// # Errors
    /// [`refrain_core::Code::Unauthorized`] where a credential is needed and absent, or presented and not valid;
    /// [`refrain_core::Code::IdentityUnavailable`] where nobody can tell whether it is.
    ///
    /// # Cancel safety
    /// Safe: the read of a key set that it waits for goes on.
    pub(crate) async fn identify(
        &self,
        arrival: Arrival<'_>,
        methods: Option<&[AuthMethod]>,
        headers: &HeaderMap,
    ) -> Result<Caller, Failure> {
        let identified = self.find(&arrival, Methods(methods), headers).await;
        identified.map_err(|refusal| {
            self.refusals.count(refusal);
            refusal.failure()
        })
    }

    /// A credential that is presented and not valid is refused, also where another kind or none would do: a client must
    /// not become somebody else by a mistake.
    async fn find(
        &self,
        arrival: &Arrival<'_>,
        methods: Methods<'_>,
        headers: &HeaderMap,
    ) -> Result<Caller, Refusal> {
        let takes_keys = self.keys.are_configured() && methods.take_keys();
        let takes_tokens = self.tokens.any_bearer(methods);
        // Clients of a server without keys send placeholders ("ollama", "none"): there is nothing to compare with.
        let credential = if takes_keys || takes_tokens { presented(headers)? } else { None };
        let known = match credential {
            Some(token) if takes_tokens && (tokens::is_token(token) || !takes_keys) => {
                return self.tokens.bearer(token, methods).await;
            }
            Some(key) => self.keys.find(key)?,
            None => match self.certificates.find(arrival, methods, self.generation)? {
                Some(known) => known,
                None => return self.anonymous(arrival.listener, methods),
            },
        };
        match &known.user_from {
            Some(issuer) => self.tokens.user(&known, issuer, headers).await,
            None => Ok(known.caller),
        }
    }

    fn anonymous(&self, listener: &Listener, methods: Methods<'_>) -> Result<Caller, Refusal> {
        if !listener.allow_anonymous || !methods.take_anonymous() {
            return Err(Refusal::NoCredential);
        }
        let [caller, admin] = &self.anonymous;
        Ok(match listener.anonymous_role {
            Role::Caller => caller.clone(),
            Role::Admin => admin.clone(),
        })
    }
}

/// The credential that a client sends: OpenAI's and Ollama's way, else Anthropic's. One that can't be read is not none: its
/// client means to be somebody.
fn presented(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let authorization = only(headers, &AUTHORIZATION)?;
    let credential = match (authorization.and_then(bearer), only(headers, &X_API_KEY)?) {
        (Some(token), _) => token,
        // Beside it, `Authorization` may be for somebody on the way.
        (None, Some(key)) => key.to_str().map_err(|_| Refusal::Unreadable)?,
        (None, None) if authorization.is_some() => return Err(Refusal::Unreadable),
        (None, None) => return Ok(None),
    };
    if credential.len() > CREDENTIAL_BYTES_MAX { Err(Refusal::TooLong) } else { Ok(Some(credential)) }
}

/// A field that is there once at most: of two, others on the way may have looked at the other one.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(Refusal::Unreadable) } else { Ok(first) }
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests;
