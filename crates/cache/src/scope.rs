//! Who shares an entry, as a part of the key: the only place where a scope meets an identity.

use refrain_core::{Bypass, Identity, Scope};

use crate::key::{PartHasher, Tag};

/// A scope with the verified names that fill it. Only [`ScopeId::of`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeId<'a>(Members<'a>);

/// Each variant has its own number in the key, so that no user can be named like another's claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Members<'a> {
    User { tenant: &'a str, user: &'a str },
    Tenant { tenant: &'a str },
    Claim { tenant: &'a str, claim: &'a str, value: &'a str },
    WithinUser { tenant: &'a str, user: &'a str, claim: &'a str, value: &'a str },
    Shared { name: &'a str },
    UserPart { tenant: &'a str, user: &'a str, name: &'a str },
}

impl<'a> ScopeId<'a> {
    /// Fills the scope with the caller's verified names.
    ///
    /// # Errors
    /// [`Bypass::NoUser`] or [`Bypass::NoClaim`] if the caller lacks what the scope needs: then nothing is cached.
    pub fn of(scope: &'a Scope, identity: &'a Identity) -> Result<Self, Bypass> {
        let tenant = identity.tenant.as_str();
        let user = || identity.user.as_ref().map(refrain_core::UserId::as_str).ok_or(Bypass::NoUser);
        Ok(Self(match scope {
            Scope::User => Members::User { tenant, user: user()? },
            Scope::Tenant => Members::Tenant { tenant },
            Scope::Claim(claim) => {
                let value = identity.claims.get(claim).ok_or(Bypass::NoClaim)?;
                Members::Claim { tenant, claim, value }
            }
            Scope::WithinUser(claim) => {
                let user = user()?;
                let value = identity.claims.get(claim).ok_or(Bypass::NoClaim)?;
                Members::WithinUser { tenant, user, claim, value }
            }
            Scope::UserPart(name) => Members::UserPart { tenant, user: user()?, name },
            Scope::Shared(name) => Members::Shared { name },
        }))
    }

    pub(crate) fn hash_into(self, hasher: &mut PartHasher) {
        let (kind, names): (usize, &[&str]) = match &self.0 {
            Members::User { tenant, user } => (1, &[tenant, user]),
            Members::Tenant { tenant } => (2, &[tenant]),
            Members::Claim { tenant, claim, value } => (3, &[tenant, claim, value]),
            Members::WithinUser { tenant, user, claim, value } => (4, &[tenant, user, claim, value]),
            Members::Shared { name } => (5, &[name]),
            Members::UserPart { tenant, user, name } => (6, &[tenant, user, name]),
        };
        hasher.number(Tag::Scope, kind);
        for name in names {
            hasher.part(Tag::Scope, name.as_bytes());
        }
    }
}
