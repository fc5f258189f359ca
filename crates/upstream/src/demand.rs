//! What of a request decides where it goes.

use refrain_core::TenantId;
use refrain_core::settings::Priority;

/// What of a request decides which endpoint is asked, and whose turn it is in the queue. The default goes anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Which requests belong together.
    pub affinity: Affinity,
    /// The upstream's name for the model: endpoints that are known to lack it are left out, unless all are.
    pub model: Option<Box<str>>,
    /// Whose turn it is in the queue; none: everybody's who has none.
    pub tenant: Option<TenantId>,
    /// Whose turn it is before that of all tenants of a lower one.
    pub priority: Priority,
    /// About how many tokens the prompt has; 0: not known.
    pub tokens: u32,
    /// What the request refers to, as [`crate::PoolState::note_owner`] was told: whoever keeps it is asked, and nobody else as
    /// long as that endpoint is there.
    pub follows: Option<u64>,
}

/// Which requests belong together: the same endpoint then has their common prefix in its cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// None is known.
    #[default]
    Any,
    /// Those with the same key. Any 32 bytes that are spread evenly, such as a digest.
    Key([u8; 32]),
    /// Those with the same prefix.
    Prefix(Prefix),
}

/// The beginnings of a prompt, each as a hash of all up to there. Hashes are spread evenly, and tenants' differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    /// Of what a conversation begins with: tools, system prompt, first turn of the user. Requests that share it have the
    /// same home.
    pub home: u64,
    /// Of longer beginnings, the longest last: at the ends of messages.
    pub longer: Vec<u64>,
}

impl Affinity {
    /// What the order of endpoints is made from.
    pub(crate) fn key(&self) -> Option<u64> {
        match self {
            Self::Any => None,
            Self::Key([a, b, c, d, e, f, g, h, ..]) => {
                Some(u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
            }
            Self::Prefix(prefix) => Some(prefix.home),
        }
    }
}
