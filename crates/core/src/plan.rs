//! What is to be done with one request's cache: the route's settings, narrowed by policies and by the client.

use std::time::Duration;

/// Who may share an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The verified user alone. Without one: no cache.
    User,
    /// Everybody of the tenant.
    Tenant,
    /// Callers of the tenant with the same value of a verified claim.
    Claim(String),
    /// A part of the user, by a verified claim: a project, a session. Without the claim: no cache.
    WithinUser(String),
    /// Everybody who is given the same name, over all tenants. Must be written by the operator.
    Shared(String),
}

/// How long an entry may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// From the moment it was stored. Absolute: a hit never extends it.
    pub ttl: Duration,
}

/// Evidence that forbids a semantic hit outright.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Veto {
    /// The two texts name different numbers.
    Number,
    /// One is negated, or turned to its opposite, where the other isn't.
    Negation,
    /// They name different things or people, or the same ones in another order.
    Name,
    /// They differ in a date, month, weekday or relative time.
    Date,
    /// They differ in a unit or currency.
    Unit,
}

impl Veto {
    /// Every veto.
    pub const ALL: [Self; 5] = [Self::Number, Self::Negation, Self::Name, Self::Date, Self::Unit];

    /// The name in config, logs, metrics and plugins.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Negation => "negation",
            Self::Name => "name",
            Self::Date => "date",
            Self::Unit => "unit",
        }
    }
}

/// How similar questions are looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct SemanticPlan {
    /// Smallest cosine similarity that may count as a hit, 0 to 1.
    pub threshold: f32,
    /// How many neighbours are looked at, 1 to 64.
    pub candidates: usize,
    /// What forbids a hit whatever the similarity.
    pub vetoes: Vec<Veto>,
    /// Report what would have been served, but ask the upstream.
    pub shadow: bool,
}

/// What a client's `Cache-Control` asks for, after the route's allow-list and clamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// Don't answer from the cache (a fresh answer replaces the entry).
    pub no_cache: bool,
    /// Don't store the answer.
    pub no_store: bool,
    /// Serve nothing older.
    pub max_age: Option<Duration>,
    /// Answer from the cache or not at all.
    pub only_if_cached: bool,
}

/// The decision for one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Who may share the entry.
    pub scope: Scope,
    /// Semantic tier, if any.
    pub semantic: Option<SemanticPlan>,
    /// How long the answer may be served.
    pub freshness: Freshness,
    /// Join an identical request that is in flight.
    pub collapse: bool,
    /// Store answers to requests that offered tools.
    pub store_tool_offers: bool,
    /// Largest entry to store, in bytes of its record.
    pub entry_bytes_max: usize,
    /// What the client asked for.
    pub directives: Directives,
}
