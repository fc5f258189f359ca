//! The answer cache: keys, exact and semantic look-up, the embedded store, and single-flight.
//!
//! Takes digests of typed parts and gives back whole answers or nothing. Knows no HTTP, no routes and no wire formats;
//! who may be served an answer is decided by what is hashed into its key, and nowhere else.

mod anatomy;
mod cache;
mod decide;
mod disk;
mod embedder;
mod entry;
mod error;
mod evidence;
mod fields;
mod flight;
mod insight;
mod key;
#[cfg(test)]
mod kill_tests;
mod memory;
mod meters;
mod purge;
#[cfg(test)]
mod purge_tests;
mod record;
mod remote;
mod scope;
mod secret;
mod self_test;
mod shared;
mod store;
#[cfg(test)]
mod test_support;
mod vectors;

pub use anatomy::{Part, PartName};
pub use cache::{Cache, CacheError};

pub use decide::{CandidateView, Decision, Passed, Refusal, decide, passing};
pub use embedder::{DIMENSIONS, EmbedError, Embedder, EmbedderStats, Embedding};
pub use entry::{
    Candidate, Entry, EntryMeta, LABEL_BYTES_MAX, LABELS_MAX, TAG_BYTES_MAX, TAGS_MAX, answer_tag,
};
pub use error::{PurgeError, StoreError};
pub use evidence::{Evidence, Lexical, compare};
pub use flight::{FlightEnd, FlightLimits, Flights, Joined, Lead, Reader, UnderWay};
pub use insight::{
    Attribution, Cause, CauseKind, Insight, MISSES_MAX, MissReason, NotedMiss, Ring, SERVINGS_MAX,
    SHADOWED_MAX, ServedAs, Serving, Shadowed, attribute, differing,
};
pub use key::{CacheKey, KeyParts};
pub use purge::{
    BANS_MAX, Bans, Conditions, Epoch, EpochError, Purge, PurgeDecodeError, PurgeHow, PurgeMode, PurgeReport,
    SELECT_NAME_BYTES_MAX, Select, SelectError, Verdict,
};
pub use remote::{
    Claim, ClaimGuard, Collect, Collected, Counting, Dropped, Examination, Layouts, ListedKind, Listing,
    Memory, Models, Progress, QuotaHold, QuotaRate, QuotaTold, Quotas, RemoteStats, Row, StoreTrouble,
    StoreUpkeep, Trouble, UpkeepMode, VectorChoice, VectorMode,
};
pub use scope::ScopeId;
pub use secret::KeySecret;
pub use self_test::{ProbeVectors, SelfTest};
pub use store::{DiskStats, Found, Place, Store, StoreStats, unix_ms};
pub use vectors::{NEIGHBOURS_MAX, Neighbour, VectorError, VectorIndex};
