//! Who is counted together.

use refrain_core::settings::LimitBy;
use refrain_core::{KeyId, RouteId, TenantId, UserId};

use crate::auth::Caller;

/// Whose requests one count of a limit holds. Only what the proxy has verified makes one, so that nobody can be many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Subject {
    tenant: Option<TenantId>,
    key: Option<Who>,
    user: Option<Who>,
    route: Option<RouteId>,
}

/// A caller by what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    Key(KeyId),
    User(TenantId, UserId),
    Tenant(TenantId),
}

impl Subject {
    /// A caller's on a route, as a limit tells them apart.
    pub(crate) fn of(by: &[LimitBy], caller: &Caller, route: &RouteId) -> Self {
        let mut subject = Self::default();
        for by in by {
            match by {
                LimitBy::Tenant => subject.tenant = Some(caller.identity.tenant.clone()),
                LimitBy::Key => {
                    subject.key = Some(key(caller).or_else(|| user(caller)).unwrap_or_else(|| tenant(caller)))
                }
                LimitBy::User => {
                    subject.user =
                        Some(user(caller).or_else(|| key(caller)).unwrap_or_else(|| tenant(caller)))
                }
                LimitBy::Route => subject.route = Some(route.clone()),
            }
        }
        subject
    }

    /// One of this key.
    #[cfg(test)]
    pub(crate) fn of_key(key: &str) -> Self {
        Self { key: Some(Who::Key(key.into())), ..Self::default() }
    }

    /// Its name among those of a limit, from which no name in it can be told.
    pub(crate) fn digest(&self, key: &[u8; 32], limit: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(key);
        let mut part = |kind: u8, text: &str| {
            hasher.update(&[kind]).update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        part(1, limit);
        let Self { tenant, key, user, route } = self;
        if let Some(tenant) = tenant {
            part(2, tenant.as_str());
        }
        for (kind, who) in [(3, key), (4, user)] {
            match who {
                Some(Who::Key(key)) => part(kind, key.as_str()),
                Some(Who::User(tenant, user)) => {
                    part(kind + 10, tenant.as_str());
                    part(kind + 10, user.as_str());
                }
                Some(Who::Tenant(tenant)) => part(kind + 20, tenant.as_str()),
                None => {}
            }
        }
        if let Some(route) = route {
            part(5, route.as_str());
        }
        *hasher.finalize().as_bytes()
    }
}

fn key(caller: &Caller) -> Option<Who> {
    caller.key.clone().map(Who::Key)
}

fn user(caller: &Caller) -> Option<Who> {
    let identity = &caller.identity;
    identity.user.clone().map(|user| Who::User(identity.tenant.clone(), user))
}

fn tenant(caller: &Caller) -> Who {
    Who::Tenant(caller.identity.tenant.clone())
}
