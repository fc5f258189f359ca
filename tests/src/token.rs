//! Signed tokens (JWT), and those who sign them.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// Somebody who signs tokens with one elliptic key.
pub struct Signer {
    name: String,
    key: EncodingKey,
}

impl Signer {
    /// One with a new key of this name.
    pub fn new(name: &str) -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        Self { name: name.to_owned(), key: EncodingKey::from_ec_der(&pair.serialize_der()) }
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.name.clone()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &self.key).unwrap()
    }

    /// The set of public keys of these signers, as a server gives it out.
    pub fn key_set(signers: &[&Self]) -> Value {
        let public = |signer: &&Self| {
            let mut jwk = Jwk::from_encoding_key(&signer.key, Algorithm::ES256).unwrap();
            jwk.common.key_id = Some(signer.name.clone());
            jwk
        };
        json!({ "keys": signers.iter().map(public).collect::<Vec<_>>() })
    }
}

/// A token signed with a shared secret (HS256).
pub fn shared_secret_token(secret: &str, claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// Seconds since 1970 in so many seconds.
pub fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}
