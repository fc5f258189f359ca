//! The recent purges, and what they say about an entry. Read on every hit, so without locks.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::epoch::Epoch;
use super::{Purge, PurgeHow};
use crate::entry::{Entry, EntryMeta};
use crate::key::CacheKey;

/// Purges that are remembered. What was stored before the oldest of them is given up when a further one comes, unless it
/// was [settled](Bans::settle).
pub const BANS_MAX: usize = 10_000;

/// The recent purges. Shared by all threads.
pub struct Bans(ArcSwap<List>);

/// What the purges say about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Clear,
    /// It counts as expired.
    Stale {
        /// From when on, in ms since the Unix epoch: earlier than its own expiry.
        since_ms: u64,
    },
    /// It must not be served, nor stored.
    Gone,
}

/// An unchanging state of the list.
struct List {
    /// By epoch, the newest last.
    bans: Vec<Ban>,
    latest: Epoch,
    floor: Epoch,
    settled: Epoch,
    /// Counts changes that may change a verdict for the worse.
    serial: u64,
    /// Entries that were clear before it may have missed a purge that isn't known any more.
    floor_serial: u64,
}

#[derive(Clone)]
struct Ban {
    epoch: Epoch,
    serial: u64,
    purge: Arc<Purge>,
}

impl Bans {
    /// None that are remembered; those up to `latest` are settled.
    pub fn new(latest: Epoch) -> Self {
        Self(ArcSwap::from_pointee(List {
            bans: Vec::new(),
            latest,
            floor: Epoch::ZERO,
            settled: latest,
            serial: 0,
            floor_serial: 0,
        }))
    }

    /// The newest purge. Who begins to generate an answer notes it: see [`EntryMeta::seen`].
    pub fn latest(&self) -> Epoch {
        self.0.load().latest
    }

    /// Purges up to here are not remembered one by one: an answer that was begun before is [`Verdict::Gone`].
    pub fn floor(&self) -> Epoch {
        self.0.load().floor
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.0.load().bans.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the purges say about a stored entry. One that is clear is marked with it: looking again costs two loads. So an
    /// entry is of one list.
    pub fn verdict(&self, entry: &Entry) -> Verdict {
        let list = self.0.load();
        let marked = entry.cleared();
        if marked == list.serial {
            return Verdict::Clear;
        }
        let seen = entry.meta.seen.max(list.settled);
        let verdict = if seen < list.floor && marked < list.floor_serial {
            Verdict::Gone
        } else {
            list.verdict(&entry.key, &entry.meta, |ban| ban.epoch > seen && ban.serial > marked)
        };
        if verdict == Verdict::Clear {
            entry.clear(list.serial);
        }
        verdict
    }

    /// What the purges say about an answer that is in no store: whether it may be put there, or served still.
    pub fn verdict_outside(&self, key: &CacheKey, meta: &EntryMeta) -> Verdict {
        let list = self.0.load();
        if meta.seen < list.floor {
            return Verdict::Gone;
        }
        list.verdict(key, meta, |ban| ban.epoch > meta.seen)
    }

    /// Adds a purge; false if it is known, or its place is below the [floor](Bans::floor). They may come out of order.
    pub fn append(&self, epoch: Epoch, purge: Purge) -> bool {
        let purge = Arc::new(purge);
        let before = self.0.rcu(|list| match list.with(epoch, &purge) {
            Some(list) => Arc::new(list),
            None => list.clone(),
        });
        !before.knows(epoch)
    }

    /// Forgets all purges up to a place: what was begun before it is [`Verdict::Gone`], since nobody knows.
    pub fn reset(&self, epoch: Epoch) {
        self.0.rcu(|list| list.reset(epoch));
    }

    /// Every stored entry has been held against the purges up to here: those speak of answers outside only from now on.
    pub fn settle(&self, epoch: Epoch) {
        self.0.rcu(|list| List {
            bans: list.bans.clone(),
            settled: list.settled.max(epoch),
            latest: list.latest.max(epoch),
            ..**list
        });
    }
}

impl List {
    fn verdict(&self, key: &CacheKey, meta: &EntryMeta, counts: impl Fn(&Ban) -> bool) -> Verdict {
        let mut since_ms = meta.expires_at_ms;
        for ban in self.bans.iter().filter(|ban| counts(ban) && ban.purge.select.matches(key, meta)) {
            match ban.purge.how {
                PurgeHow::Hard => return Verdict::Gone,
                PurgeHow::Soft => since_ms = since_ms.min(ban.purge.at_ms),
            }
        }
        if since_ms < meta.expires_at_ms { Verdict::Stale { since_ms } } else { Verdict::Clear }
    }

    fn knows(&self, epoch: Epoch) -> bool {
        epoch <= self.floor || self.bans.binary_search_by_key(&epoch, |ban| ban.epoch).is_ok()
    }

    fn with(&self, epoch: Epoch, purge: &Arc<Purge>) -> Option<Self> {
        if self.knows(epoch) {
            return None;
        }
        let serial = self.serial + 1;
        let mut bans = Vec::with_capacity(self.bans.len() + 1);
        bans.extend_from_slice(&self.bans);
        let at = bans.partition_point(|ban| ban.epoch < epoch);
        bans.insert(at, Ban { epoch, serial, purge: purge.clone() });
        let mut list = Self { bans, latest: self.latest.max(epoch), serial, ..*self };
        if list.bans.len() > BANS_MAX {
            let dropped = list.bans.remove(0);
            list.floor = dropped.epoch;
            list.floor_serial = list.floor_serial.max(dropped.serial);
        }
        Some(list)
    }

    fn reset(&self, epoch: Epoch) -> Self {
        let serial = self.serial + 1;
        Self {
            bans: self.bans.iter().filter(|ban| ban.epoch > epoch).cloned().collect(),
            latest: self.latest.max(epoch),
            floor: self.floor.max(epoch),
            serial,
            floor_serial: serial,
            ..*self
        }
    }
}
