//! What one policy answers, in plain terms, before it is checked against its grants and the operator's bounds.

use refrain_core::settings::Grant;
use refrain_core::{Edit, EmbedSource, Freshness, KeyPart, Scope, Veto};

use crate::verdict::{Labels, Upstream};

/// Answer of `on-request`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Cache(Box<Wanted>),
    Bypass(BypassWanted),
    Refuse(RefusalWanted),
}

/// A plan as one policy wants it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) key_add: Vec<KeyPart>,
    pub(crate) edits: Vec<Edit>,
    pub(crate) lookup: Lookup,
    pub(crate) collapse: bool,
    pub(crate) scope: Scope,
    pub(crate) semantic: Option<SemanticWanted>,
    pub(crate) freshness: Freshness,
    pub(crate) shadow: bool,
    pub(crate) store: bool,
    pub(crate) upstream: Upstream,
    pub(crate) context: String,
    pub(crate) labels: Labels,
}

/// What to ask the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    Normal,
    Skip,
    Only,
}

/// The semantic tier as one policy wants it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SemanticWanted {
    pub(crate) source: EmbedSource,
    pub(crate) threshold: f32,
    pub(crate) candidates: u32,
    pub(crate) vetoes: Vec<Veto>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BypassWanted {
    pub(crate) reason: String,
    pub(crate) upstream: Upstream,
    pub(crate) labels: Labels,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RefusalWanted {
    pub(crate) status: u16,
    pub(crate) message: String,
    pub(crate) retry_after_s: Option<u32>,
}

/// Answer of `on-candidates`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Judged {
    Accept(u32),
    Miss(String),
}

/// Answer of `on-response`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stored {
    Keep(KeepWanted),
    Skip(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeepWanted {
    pub(crate) freshness: Freshness,
    pub(crate) narrow: Option<Scope>,
    pub(crate) exact_only: bool,
    pub(crate) tags: Vec<String>,
    pub(crate) labels: Labels,
}

/// What a policy says of itself when it is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) needs: Vec<Grant>,
    pub(crate) metrics: Vec<String>,
    pub(crate) reasons: Vec<String>,
    /// Names with the values that may become labels of metrics.
    pub(crate) labels: Vec<(String, Vec<String>)>,
}

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// It is not what the interface allows.
    Invalid(String),
    /// It needs a grant that the policy doesn't have.
    NotGranted(Grant),
}

impl Violation {
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid(what.into())
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invalid(what) => write!(f, "invalid answer: {what}"),
            Self::NotGranted(grant) => write!(f, "does what needs the grant \"{}\"", grant.as_str()),
        }
    }
}
