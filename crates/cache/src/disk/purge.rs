//! A purge's walk over what is stored, in short steps between the writer's batches.
//!
//! The purge is in force already: the walk makes it last, and counts. An entry that is both in memory and on disk counts once.

use std::time::{Duration, Instant};

use super::tables::Tables;
use crate::entry::Entry;
use crate::key::CacheKey;
use crate::purge::{Fate, Job, PurgeReport};
use crate::shared::Shared;
use crate::store::unix_ms;

/// Entries that one step changes at most.
const STEP_CHANGES_MAX: usize = 512;
/// How long a step looks at entries: writes wait meanwhile.
const STEP_TIME: Duration = Duration::from_millis(5);
/// Entries that are looked at between two looks at the clock.
const LOOKS: usize = 16;

/// A purge under way.
pub(super) struct Walk {
    pub(super) job: Job,
    /// The last key that was looked at.
    at: Option<Vec<u8>>,
    pub(super) report: PurgeReport,
}

/// What is left of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Some,
    None,
}

/// A change that a step has committed.
enum Change {
    Removed(CacheKey),
    Rewritten([u8; 32]),
}

impl Walk {
    pub(super) fn new(job: Job) -> Self {
        Self { job, at: None, report: PurgeReport::default() }
    }

    /// Whether nothing has been looked at yet.
    pub(super) fn begins(&self) -> bool {
        self.at.is_none()
    }

    /// Looks at the next entries on disk, or, after the last, at memory.
    pub(super) fn step(&mut self, shared: &Shared, tables: Option<&Tables>) -> fjall::Result<Rest> {
        if let Some(tables) = tables
            && self.disk(shared, tables)? == Rest::Some
        {
            return Ok(Rest::Some);
        }
        self.memory(shared);
        Ok(Rest::None)
    }

    fn disk(&mut self, shared: &Shared, tables: &Tables) -> fjall::Result<Rest> {
        if let (None, Some(epoch)) = (&self.at, self.job.epoch) {
            tables.note_epoch(epoch)?;
        }
        let (begun, now_ms) = (Instant::now(), unix_ms());
        let (mut batch, mut changes, mut rest) = (tables.batch(), Vec::new(), Rest::None);
        for (number, item) in tables.answers(self.at.as_deref(), self.job.key()).enumerate() {
            let (key, entry) = item?;
            self.at = Some(key);
            // What can't be read is never served.
            if let Ok(entry) = entry {
                let is_found = shared.places.find(&entry.key.key).is_some();
                changes.extend(self.change(&mut batch, entry, is_found, now_ms));
            }
            let is_late = number % LOOKS == LOOKS - 1 && begun.elapsed() >= STEP_TIME;
            if is_late || changes.len() >= STEP_CHANGES_MAX {
                rest = Rest::Some;
                break;
            }
        }
        if !changes.is_empty() {
            batch.commit()?;
        }
        for change in &changes {
            match change {
                Change::Removed(key) => shared.purged(key, |known| self.job.is_about(known)),
                Change::Rewritten(key) => shared.rewritten(key),
            }
        }
        Ok(rest)
    }

    /// Puts into the batch what becomes of an entry. `is_found`: a reader could find it.
    fn change(
        &mut self,
        batch: &mut super::tables::Batch<'_>,
        entry: Entry,
        is_found: bool,
        now_ms: u64,
    ) -> Option<Change> {
        let fate = self.job.fate(&entry, now_ms);
        if is_found && !matches!(fate, Fate::Stays) {
            self.report.count(&entry);
        }
        match fate {
            Fate::Stays | Fate::Counted => None,
            Fate::Leaves => {
                batch.remove(&entry);
                Some(Change::Removed(entry.key))
            }
            Fate::Expires(expired) => {
                batch.rewrite(&expired);
                Some(Change::Rewritten(expired.key.key))
            }
        }
    }

    /// What is on disk as well was counted there.
    fn memory(&mut self, shared: &Shared) {
        let now_ms = unix_ms();
        for entry in shared.memory.collect(|entry| self.job.is_about(entry)) {
            let fate = self.job.fate(&entry, now_ms);
            if !matches!(fate, Fate::Stays) && shared.places.find(&entry.key.key).is_none() {
                self.report.count(&entry);
            }
            match fate {
                Fate::Stays | Fate::Counted => {}
                Fate::Leaves => shared.let_go(&entry),
                Fate::Expires(expired) => _ = shared.replace(&entry, *expired),
            }
        }
    }
}
