//! Third stage: who is asking. API keys for now; every later kind of credential ends in the same [`Identity`].

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use parking_lot::RwLock;
use refrain_core::settings::{ApiKey, KeyHash, KeyKind, Listener};
use refrain_core::{Code, Identity, KeyId, PoolId, Role};
use subtle::ConstantTimeEq;

use crate::failure::Failure;

/// Names the purpose of the hash, so that it equals no other BLAKE3 of the same bytes.
const CONTEXT: &str = "refrain 2026 api key v1";

/// A longer credential is no key of ours: not worth hashing.
const CREDENTIAL_BYTES_MAX: usize = 1024;

/// A caller that presented a valid credential, or may come without.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// The API key that it presented; none: another kind of credential, or none at all.
    pub key: Option<KeyId>,
    /// Models it may ask for; empty: all.
    pub models: Arc<[String]>,
    /// Pools that a policy may choose for it, beside the route's own; empty: all.
    pub pools: Arc<[PoolId]>,
}

/// The keys of one configuration.
pub struct Keys {
    keys: Vec<(KeyHash, Caller)>,
    /// Keyed digest of a presented credential -> its key. Holds verified ones only, so at most one a key; the
    /// digest's own key is random, so that the map's timing tells nothing.
    verified: RwLock<HashMap<[u8; 32], usize>>,
    digest_key: [u8; 32],
    /// Made once: most listeners without keys have no other caller.
    anonymous: [Caller; 2],
}

impl Keys {
    /// Takes over what config says about keys.
    pub fn new(keys: &[ApiKey]) -> Self {
        Self {
            keys: keys.iter().map(|key| (key.hash.clone(), caller(key))).collect(),
            verified: RwLock::default(),
            digest_key: rand::random(),
            anonymous: [Role::Caller, Role::Admin].map(anonymous),
        }
    }

    /// The caller of a request.
    ///
    /// # Errors
    /// [`Code::Unauthorized`] where a credential is needed and absent, or presented and unknown.
    pub(crate) fn identify(&self, listener: &Listener, headers: &HeaderMap) -> Result<Caller, Failure> {
        // Clients of a server without keys send placeholders ("ollama", "none"): there is nothing to compare with.
        let credential = if self.keys.is_empty() { None } else { credential(headers) };
        match credential {
            Some(credential) => self.find(credential).cloned().ok_or_else(|| {
                Failure::new(Code::Unauthorized, "unknown API key; check the key or ask its operator")
            }),
            None if listener.allow_anonymous => {
                let [caller, admin] = &self.anonymous;
                Ok(match listener.anonymous_role {
                    Role::Caller => caller.clone(),
                    Role::Admin => admin.clone(),
                })
            }
            None => Err(Failure::new(Code::Unauthorized, "send an API key as `Authorization: Bearer <key>`")),
        }
    }

    /// The caller whose key has this name in config.
    pub(crate) fn named(&self, id: &KeyId) -> Option<Caller> {
        self.keys.iter().find(|(_, caller)| caller.key.as_ref() == Some(id)).map(|(_, caller)| caller.clone())
    }

    fn find(&self, credential: &str) -> Option<&Caller> {
        if credential.len() > CREDENTIAL_BYTES_MAX {
            return None;
        }
        let digest = *blake3::keyed_hash(&self.digest_key, credential.as_bytes()).as_bytes();
        if let Some(&index) = self.verified.read().get(&digest) {
            return self.keys.get(index).map(|(_, caller)| caller);
        }
        let index = self.keys.iter().position(|(hash, _)| matches(hash, credential))?;
        self.verified.write().insert(digest, index);
        self.keys.get(index).map(|(_, caller)| caller)
    }
}

/// Salted hash of a key, as config holds it.
pub fn hash_key(salt: [u8; 16], key: &str) -> KeyHash {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&salt).update(key.as_bytes());
    KeyHash { salt, digest: *hasher.finalize().as_bytes() }
}

fn matches(hash: &KeyHash, credential: &str) -> bool {
    hash_key(hash.salt, credential).digest.ct_eq(&hash.digest).into()
}

/// The credential a client sends: OpenAI's and Ollama's way, else Anthropic's.
fn credential(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    bearer.or_else(|| headers.get("x-api-key").and_then(|value| value.to_str().ok()))
}

fn anonymous(role: Role) -> Caller {
    Caller {
        identity: Arc::new(Identity::anonymous(role)),
        key: None,
        models: Arc::default(),
        pools: Arc::default(),
    }
}

fn caller(key: &ApiKey) -> Caller {
    let ApiKey { id, tenant, kind, user, role, models, pools, claims, priority: _, hash: _ } = key;
    let user = match kind {
        KeyKind::Personal => user.clone(),
        KeyKind::Service => None,
    };
    let identity = Identity { tenant: tenant.clone(), user, claims: claims.clone(), role: *role };
    Caller {
        identity: Arc::new(identity),
        key: Some(id.clone()),
        models: models.clone().into(),
        pools: pools.clone().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use refrain_core::{TenantId, UserId};

    fn key(name: &str, token: &str, kind: KeyKind) -> ApiKey {
        ApiKey {
            id: KeyId::new(name),
            tenant: TenantId::new("acme"),
            kind,
            user: Some(UserId::new(name)),
            role: Role::Caller,
            models: Vec::new(),
            pools: Vec::new(),
            claims: BTreeMap::new(),
            priority: None,
            hash: hash_key([7; 16], token),
        }
    }

    fn listener(allow_anonymous: bool) -> Listener {
        Listener {
            id: "main".into(),
            address: ([127, 0, 0, 1], 0).into(),
            tls: None,
            allow_anonymous,
            anonymous_role: Role::Admin,
        }
    }

    fn identify(keys: &Keys, anonymous: bool, header: Option<(&'static str, &str)>) -> Result<Caller, Code> {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(name, value.parse().unwrap());
        }
        keys.identify(&listener(anonymous), &headers).map_err(|failure| failure.code)
    }

    #[test]
    fn a_personal_key_is_its_user_and_a_service_key_has_none() {
        let keys = Keys::new(&[key("ann", "k1", KeyKind::Personal), key("webui", "k2", KeyKind::Service)]);
        for _ in 0..2 {
            let ann = identify(&keys, false, Some(("authorization", "Bearer k1"))).unwrap();
            assert_eq!(ann.identity.user, Some(UserId::new("ann")));
            let webui = identify(&keys, false, Some(("x-api-key", "k2"))).unwrap();
            assert_eq!(webui.identity.user, None);
        }
    }

    #[test]
    fn an_unknown_key_is_refused_even_where_anonymous_is_allowed() {
        let keys = Keys::new(&[key("ann", "k1", KeyKind::Personal)]);
        let unknown = Some(("authorization", "Bearer k3"));
        assert_eq!(identify(&keys, true, unknown).unwrap_err(), Code::Unauthorized);
        assert_eq!(identify(&keys, false, None).unwrap_err(), Code::Unauthorized);
        assert_eq!(identify(&keys, true, None).unwrap().identity.role, Role::Admin);
    }

    #[test]
    fn placeholder_keys_are_ignored_where_no_keys_are_configured() {
        let keys = Keys::new(&[]);
        assert!(identify(&keys, true, Some(("authorization", "Bearer ollama"))).is_ok());
        assert_eq!(
            identify(&keys, false, Some(("authorization", "Bearer x"))).unwrap_err(),
            Code::Unauthorized
        );
    }
}
