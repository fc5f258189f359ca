//! What operators do with the data in Redis: look at it, remove what leads nowhere, remove all, and try whether a proxy could
//! use it. Takes no part in serving: no keeper, no near cache, nothing sealed is opened.

mod collect;
mod drop;
mod examine;
mod found;
mod list;
mod remove;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{Cmd, FromRedisValue, Value, cmd, from_redis_value};
use refrain_core::hex;
use refrain_core::settings::RedisStore;

use super::link::Link;
use super::names::{LAYOUT, Names};
use super::server::Server;
use super::trouble::{StoreTrouble, Trouble};
use found::{Found, Naming, What};

pub use collect::{Collect, Collected, Layouts, Models};
pub use drop::Dropped;
pub use examine::{Counting, Examination, Memory};
pub use list::{ListedKind, Listing, Row};

/// A command of an operator may take so long, whatever requests may: nobody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Commands under way at a time.
const AT_ONCE: usize = 32;

/// Whether anything is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpkeepMode {
    /// It is counted.
    DryRun,
    /// It is removed.
    Real,
}

/// How far the work at hand is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Names that were looked at.
    pub seen: u64,
    /// Keys and members of vector sets that were removed.
    pub removed: u64,
}

/// The data in Redis under one prefix, for operators.
pub struct StoreUpkeep {
    settings: RedisStore,
    link: Link,
    names: Names,
    naming: Naming,
    model: Option<String>,
    seen: AtomicU64,
    removed: AtomicU64,
}

impl StoreUpkeep {
    /// Connects when it is first asked. `model`: identity of the embedder that is configured.
    pub fn new(settings: &RedisStore, model: Option<[u8; 32]>) -> Self {
        let patient = RedisStore {
            connect_timeout: settings.connect_timeout.max(PATIENCE),
            command_timeout: settings.command_timeout.max(PATIENCE),
            ..settings.clone()
        };
        Self {
            link: Link::new(Server::new(patient.clone()), patient.command_timeout),
            settings: settings.clone(),
            names: Names::new(&settings.prefix),
            naming: Naming::new(&settings.prefix),
            model: model.map(|identity| hex(&identity[..16])),
            seen: AtomicU64::new(0),
            removed: AtomicU64::new(0),
        }
    }

    /// The layout that this version reads and writes.
    pub fn layout(&self) -> u32 {
        LAYOUT
    }

    /// The configured model, as names have it.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// How far the work at hand is.
    pub fn progress(&self) -> Progress {
        Progress { seen: self.seen.load(Ordering::Relaxed), removed: self.removed.load(Ordering::Relaxed) }
    }

    fn saw(&self, names: usize) {
        self.seen.fetch_add(names as u64, Ordering::Relaxed);
    }

    fn did_remove(&self, count: u64) {
        self.removed.fetch_add(count, Ordering::Relaxed);
    }

    /// The query engine's indexes of ours, with their layouts and models. None in a cluster, where they aren't used.
    async fn indexes(&self) -> Result<Vec<(String, Found)>, StoreTrouble> {
        if self.link.is_cluster() {
            return Ok(Vec::new());
        }
        let names: Result<Vec<String>, _> = self.link.ask(&cmd("FT._LIST")).await;
        let names = match names {
            // There is no query engine, or it is none of this user's business.
            Err(trouble) if trouble.trouble.is_of_one_command() => return Ok(Vec::new()),
            names => names?,
        };
        let of_ours = |name: String| match self.naming.read(name.as_bytes()) {
            Some(found @ Found { what: What::Index(_), .. }) => Some((name, found)),
            _ => None,
        };
        Ok(names.into_iter().filter_map(of_ours).collect())
    }
}

/// Asks any server: what they know alike.
async fn ask_any<T: FromRedisValue>(link: &Link, command: &Cmd) -> Result<T, StoreTrouble> {
    let routing = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
    let value: Value = link.ask_at(command, routing).await?;
    from_redis_value(value).map_err(|error| StoreTrouble::new(Trouble::Refused, error.to_string()))
}

/// Nothing where the server or the user's rights don't allow one to know.
fn if_allowed<T>(answer: Result<T, StoreTrouble>) -> Result<Option<T>, StoreTrouble> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(trouble) if trouble.trouble.is_of_one_command() => Ok(None),
        Err(trouble) => Err(trouble),
    }
}
