//! Who was served which answer.

use refrain_core::{RouteId, TenantId, UserId};

/// How somebody came to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServedAs {
    /// It was generated for them, and stored.
    Generated,
    /// They joined its generation.
    Joined,
    /// They asked the same.
    Exact,
    /// They asked something similar.
    Semantic,
}

impl ServedAs {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generated => "generated",
            Self::Joined => "joined",
            Self::Exact => "exact",
            Self::Semantic => "semantic",
        }
    }
}

/// One answer that somebody got.
#[derive(Clone, Debug, PartialEq)]
pub struct Serving {
    /// The key that it is stored under.
    pub key: [u8; 32],
    /// [`Serving::of_id`] of the id that it carries, if it has one and it is known.
    pub id: Option<u64>,
    /// When, in ms since the Unix epoch.
    pub at_ms: u64,
    /// The route.
    pub route: RouteId,
    /// To whom.
    pub tenant: TenantId,
    /// The user, if known.
    pub user: Option<UserId>,
    /// How they came to it.
    pub served_as: ServedAs,
    /// Cosine similarity of the questions, where they aren't the same.
    pub similarity: Option<f32>,
    /// Digest of the question that they asked, where it isn't the one that was asked first or that is not known.
    pub question: Option<u64>,
}

impl Serving {
    /// What stands for an answer's id.
    pub fn of_id(id: &str) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(id.as_bytes()).as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}
