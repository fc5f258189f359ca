//! Who is asking, as verified by the proxy itself; never from a client's word alone.

use std::collections::BTreeMap;

use crate::{TenantId, UserId};

/// What a caller may do beside asking for answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Role {
    /// Ask for answers.
    #[default]
    Caller,
    /// Also change or inspect upstream servers (`/api/pull`, `/slots`, ...).
    Admin,
}

/// A verified caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The organisation: a hard partition of everything that is cached.
    pub tenant: TenantId,
    /// The person, if one is verified. Without one, scope `user` means no cache.
    pub user: Option<UserId>,
    /// Verified claims (`groups`, `project`, ...), as text.
    pub claims: BTreeMap<String, String>,
    /// What the caller may do.
    pub role: Role,
}

impl Identity {
    const ANONYMOUS: &str = "anonymous";

    /// The one anonymous user of a listener that needs no credentials.
    pub fn anonymous(role: Role) -> Self {
        Self {
            tenant: TenantId::new(Self::ANONYMOUS),
            user: Some(UserId::new(Self::ANONYMOUS)),
            claims: BTreeMap::new(),
            role,
        }
    }

    /// Whether it is that one, who may be anybody.
    pub fn is_anonymous(&self) -> bool {
        let is_nobody = |user: &UserId| user.as_str() == Self::ANONYMOUS;
        self.tenant.as_str() == Self::ANONYMOUS && self.user.as_ref().is_some_and(is_nobody)
    }
}
