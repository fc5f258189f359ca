//! API keys.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use refrain_core::settings::{ApiKey, KeyHash, KeyKind, Settings};
use refrain_core::{Identity, KeyId};
use subtle::ConstantTimeEq;

use super::refusal::Refusal;
use super::verified::Verified;
use super::{Caller, Entitlements, Known};

/// Names the purpose of the hash, so that it equals no other BLAKE3 of the same bytes.
const CONTEXT: &str = "refrain 2026 api key v1";

/// The keys of one configuration.
pub(super) struct Keys {
    keys: Vec<Key>,
    /// Whether there may be some by and by.
    has_file: bool,
    /// Salt -> digest -> key. `refrain key new` gives all keys of a file one salt, so that an unknown key costs one hash.
    by_salt: BTreeMap<[u8; 16], HashMap<[u8; 32], usize>>,
    /// Those that were presented.
    verified: Verified<usize>,
}

struct Key {
    known: Known,
    expires: Option<SystemTime>,
}

impl Keys {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut by_salt: BTreeMap<_, HashMap<_, _>> = BTreeMap::new();
        for (index, key) in settings.keys.iter().enumerate() {
            by_salt.entry(key.hash.salt).or_default().insert(key.hash.digest, index);
        }
        let keys: Vec<Key> = settings.keys.iter().map(|key| self::key(key, settings)).collect();
        // Never full: only what is right is in it.
        Self { verified: Verified::new(keys.len() * 64), has_file: settings.has_keys_file, keys, by_salt }
    }

    /// Whether keys are asked for. A file of keys whose last one was revoked refuses that key too.
    pub(super) fn are_configured(&self) -> bool {
        self.has_file || !self.keys.is_empty()
    }

    /// Whose a key is.
    pub(super) fn find(&self, credential: &str) -> Result<Known, Refusal> {
        let key = self.index(credential).and_then(|index| self.keys.get(index)).ok_or(Refusal::UnknownKey)?;
        match key.expires {
            Some(expires) if SystemTime::now() >= expires => Err(Refusal::KeyExpired),
            _ => Ok(key.known.clone()),
        }
    }

    /// Whose the key of this name is.
    pub(super) fn named(&self, id: &KeyId) -> Option<Caller> {
        let mut callers = self.keys.iter().map(|key| &key.known.caller);
        callers.find(|caller| caller.key.as_ref() == Some(id)).cloned()
    }

    fn index(&self, credential: &str) -> Option<usize> {
        let digest = self.verified.digest("", credential);
        if let Some(index) = self.verified.get(&digest) {
            return Some(index);
        }
        // Only hashes of long random keys are compared here, which tell nothing of the key by the time that it takes.
        let found = |(salt, keys): (&[u8; 16], &HashMap<_, _>)| {
            keys.get(&hash_key(*salt, credential).digest).copied()
        };
        let index = self.by_salt.iter().find_map(found)?;
        self.verified.insert(digest, index, |_| false);
        Some(index)
    }
}

/// Salted hash of a key, as config holds it.
pub fn hash_key(salt: [u8; 16], key: &str) -> KeyHash {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&salt).update(key.as_bytes());
    KeyHash { salt, digest: *hasher.finalize().as_bytes() }
}

/// Whether a credential is the key of a hash, in a time that doesn't depend on how nearly.
pub fn is_key(hash: &KeyHash, credential: &str) -> bool {
    hash_key(hash.salt, credential).digest.ct_eq(&hash.digest).into()
}

fn key(key: &ApiKey, settings: &Settings) -> Key {
    let ApiKey {
        id,
        tenant,
        kind,
        user,
        user_from,
        role,
        models,
        pools,
        claims,
        priority: _,
        created: _,
        expires,
        hash: _,
    } = key;
    let user = match kind {
        KeyKind::Personal => user.clone(),
        KeyKind::Service => None,
    };
    let identity = Identity { tenant: tenant.clone(), user, claims: claims.clone(), role: *role };
    let caller = Caller {
        identity: Arc::new(identity),
        key: Some(id.clone()),
        entitlements: Arc::new(Entitlements::new(settings.tenants.get(tenant), models, pools)),
    };
    Key {
        known: Known { caller, name: format!("key {id}").into(), user_from: user_from.clone() },
        expires: *expires,
    }
}
