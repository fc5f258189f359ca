//! Names that config gives to things, as cheap, immutable, typed strings.

use std::fmt;
use std::sync::Arc;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a name as it stands in config or in a verified credential.
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }
    };
}

name!(
    /// A route's name in config: `chat` in `[route.chat]`.
    RouteId
);
name!(
    /// A pool's name in config.
    PoolId
);
name!(
    /// An upstream endpoint's name within its pool: stable over reloads, unlike its address.
    EndpointId
);
name!(
    /// A policy's name in config: `tenant-scope` in `[plugin.tenant-scope]`.
    PluginId
);
name!(
    /// An API key's name in config. Never the key itself.
    KeyId
);
name!(
    /// A limit's name in config: `per-user` in `[limit.per-user]`.
    LimitId
);
name!(
    /// The name in config of somebody who signs tokens: `corp` in `[jwt.corp]`.
    JwtId
);
name!(
    /// The name in config of a rule for client certificates: `batch` in `[certificate.batch]`.
    CertificateRuleId
);
name!(
    /// A listener's name in config.
    ListenerId
);
name!(
    /// The organisation that a verified caller belongs to.
    TenantId
);
name!(
    /// A verified person (or the one anonymous user of a loopback listener), unique within a tenant.
    UserId
);
