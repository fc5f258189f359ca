//! Keeps tenants apart behind Refrain: in the prefix caches of model servers, whose timing tells what somebody else has asked.

use std::sync::LazyLock;

use refrain_core::settings::Tenancy;
use refrain_core::{Api, Code, TenantId, hex};
use refrain_upstream::PoolState;

use crate::auth::Caller;
use crate::failure::Failure;

/// Bytes of a salt: vLLM takes up to 128 characters.
const SALT_BYTES: usize = 16;

/// For proxies without a secret of their own: salts change with each start, and with them what the servers remember.
static PROCESS_KEY: LazyLock<[u8; 32]> = LazyLock::new(rand::random);

/// Makes salts of tenants. Whoever knows a salt learns no tenant's name, and can't make another's.
#[derive(Clone, Copy)]
pub(crate) struct Salts([u8; 32]);

impl Salts {
    /// `key`: the same for all proxies of a fleet; none: they have none in common.
    pub(crate) fn new(key: Option<[u8; 32]>) -> Self {
        Self(key.unwrap_or(*PROCESS_KEY))
    }

    /// What goes upstream with a request of this tenant, if its pool asks for it.
    pub(crate) fn salt(&self, pool: &PoolState, api: Api, tenant: &TenantId) -> Option<String> {
        let generates = !matches!(api, Api::Embeddings | Api::OllamaEmbed);
        let is_salted = pool.config().tenancy == Tenancy::Salted && generates;
        is_salted.then(|| {
            let hash = blake3::keyed_hash(&self.0, tenant.as_str().as_bytes());
            hex(&hash.as_bytes()[..SALT_BYTES])
        })
    }
}

impl std::fmt::Debug for Salts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salts(..)")
    }
}

/// Whether a caller may have its requests answered by a pool.
///
/// # Errors
/// The pool serves another tenant alone.
pub(crate) fn admit(pool: &PoolState, caller: &Caller) -> Result<(), Failure> {
    match &pool.config().tenancy {
        Tenancy::Dedicated(tenant) if *tenant != caller.identity.tenant => {
            Err(Failure::new(Code::Forbidden, "these model servers are for another tenant alone"))
        }
        _ => Ok(()),
    }
}
