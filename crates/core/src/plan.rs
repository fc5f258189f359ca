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
    /// A part of the user that a policy named. Without a verified user: no cache.
    UserPart(String),
    /// Everybody who is given the same name, over all tenants. Must be written by the operator.
    Shared(String),
}

impl Scope {
    /// The narrower of two; none if neither holds all that the other leaves out (two different parts of a user, two
    /// different shared names).
    pub fn narrowest(self, other: Self) -> Option<Self> {
        match (self, other) {
            (a, b) if a == b => Some(a),
            // Whoever shares either is the user at least.
            (Self::Claim(_), Self::Claim(_)) => Some(Self::User),
            (a, b) if a.width() < b.width() => Some(a),
            (a, b) if a.width() > b.width() => Some(b),
            _ => None,
        }
    }

    /// Whether more callers share it than share the other. Scopes that can't be compared are wider than each other.
    pub fn is_wider_than(&self, other: &Self) -> bool {
        self != other && self.width() >= other.width()
    }

    fn width(&self) -> u8 {
        match self {
            Self::WithinUser(_) | Self::UserPart(_) => 0,
            Self::User => 1,
            Self::Claim(_) => 2,
            Self::Tenant => 3,
            Self::Shared(_) => 4,
        }
    }
}

/// How long an entry may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// From the moment it was stored. Absolute: a hit never extends it.
    pub ttl: Duration,
    /// After that, for this much longer while one request refreshes it (RFC 5861).
    pub stale_while_revalidate: Duration,
    /// After the TTL, for this much longer if no upstream can answer (RFC 5861).
    pub stale_if_error: Duration,
}

impl Freshness {
    /// No stale windows.
    pub fn of_ttl(ttl: Duration) -> Self {
        Self { ttl, stale_while_revalidate: Duration::ZERO, stale_if_error: Duration::ZERO }
    }

    /// How long an entry is of any use.
    pub fn retention(&self) -> Duration {
        self.ttl.saturating_add(self.stale_while_revalidate.max(self.stale_if_error))
    }

    /// The shorter of each.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            ttl: self.ttl.min(other.ttl),
            stale_while_revalidate: self.stale_while_revalidate.min(other.stale_while_revalidate),
            stale_if_error: self.stale_if_error.min(other.stale_if_error),
        }
    }
}

/// What text stands for a request when similar ones are looked for. All that it leaves out must match exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EmbedSource {
    /// The last user message, whole.
    #[default]
    LastUserMessage,
    /// A part of it, in bytes; cut to character boundaries.
    Span {
        /// First byte.
        start: u32,
        /// Number of bytes.
        len: u32,
    },
    /// Every message of the user.
    AllUserMessages,
    /// The last messages, with their roles.
    LastMessages(u32),
    /// This text in place of the last user message.
    Text(String),
}

/// A part of a cache key or a routing key, by name: resolved by whoever has the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// This text.
    Text(String),
    /// A request header; lower case.
    Header(String),
    /// A verified claim.
    Claim(String),
    /// One message, by index.
    Message(u32),
    /// The canonical value at a JSON pointer of the body.
    Json(String),
    /// The effective model.
    Model,
    /// Every sampling parameter.
    Sampling,
    /// System and developer messages.
    SystemPrompt,
    /// Tool definitions.
    Tools,
    /// All messages.
    Messages,
    /// All messages but the last.
    History,
}

/// How a value of the body is changed before it is keyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EditOp {
    /// Left out.
    Remove,
    /// Lines of a string that start so are left out.
    DropLinesStarting(String),
    /// A number becomes the next of these steps, which ascend.
    RoundUp(Vec<u32>),
}

/// A change of the body before it is keyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// JSON pointer (RFC 6901); a segment `*` means every element of an array.
    pub pointer: String,
    /// What is done there.
    pub op: EditOp,
    /// Whether the upstream is sent the change too.
    pub send_upstream: bool,
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
    /// What is compared.
    pub source: EmbedSource,
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
    /// Look up, but always ask the upstream, and only report what would have been served.
    pub shadow: bool,
    /// Store the answer.
    pub store: bool,
    /// Store answers to requests that offered tools.
    pub store_tool_offers: bool,
    /// Largest entry to store, in bytes of its record.
    pub entry_bytes_max: usize,
    /// What the client asked for.
    pub directives: Directives,
}
