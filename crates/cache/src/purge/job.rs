//! Purges that wait for the thread that sweeps the store.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Epoch, Purge, PurgeHow, PurgeReport};
use crate::entry::Entry;
use crate::error::PurgeError;

/// Purges that may wait: each is a walk over everything stored.
const PURGES_MAX: usize = 64;

/// A purge, or the count for one.
pub(crate) struct Job {
    purge: Purge,
    /// Its place in the order; none: a dry run.
    pub(crate) epoch: Option<Epoch>,
    reply: oneshot::Sender<Result<PurgeReport, PurgeError>>,
}

/// What becomes of an entry.
pub(crate) enum Fate {
    /// Nothing.
    Stays,
    /// It is only counted: a dry run, or it has expired already.
    Counted,
    /// It leaves.
    Leaves,
    /// This takes its place.
    Expires(Box<Entry>),
}

/// The queue. Closed when nobody works on it any more.
pub(crate) struct Jobs(Mutex<Option<VecDeque<Job>>>);

impl Job {
    pub(crate) fn new(
        purge: Purge,
        epoch: Option<Epoch>,
        reply: oneshot::Sender<Result<PurgeReport, PurgeError>>,
    ) -> Self {
        Self { purge, epoch, reply }
    }

    /// Whether an entry is meant.
    pub(crate) fn is_about(&self, entry: &Entry) -> bool {
        is_about(&self.purge, self.epoch, entry)
    }

    /// What becomes of a stored entry.
    pub(crate) fn fate(&self, entry: &Entry, now_ms: u64) -> Fate {
        fate(&self.purge, self.epoch, entry, now_ms)
    }

    /// The only key that is meant, if so.
    pub(crate) fn key(&self) -> Option<[u8; 32]> {
        self.purge.select.conditions().key
    }

    /// Answers whoever waits.
    pub(crate) fn end(self, result: Result<PurgeReport, PurgeError>) {
        let _ = self.reply.send(result);
    }
}

impl Jobs {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Some(VecDeque::new())))
    }

    /// Adds a job at the end.
    ///
    /// # Errors
    /// [`PurgeError::Busy`] or [`PurgeError::Closed`].
    pub(crate) fn push(&self, job: Job) -> Result<(), PurgeError> {
        let mut jobs = self.0.lock();
        let jobs = jobs.as_mut().ok_or(PurgeError::Closed)?;
        if jobs.len() >= PURGES_MAX {
            return Err(PurgeError::Busy);
        }
        jobs.push_back(job);
        Ok(())
    }

    pub(crate) fn next(&self) -> Option<Job> {
        self.0.lock().as_mut()?.pop_front()
    }

    /// Gives up what waits.
    pub(crate) fn close(&self) {
        self.0.lock().take();
    }
}

/// Whether an entry is meant: it was begun before the purge.
fn is_about(purge: &Purge, epoch: Option<Epoch>, entry: &Entry) -> bool {
    epoch.is_none_or(|epoch| entry.meta.seen < epoch) && purge.select.matches(&entry.key, &entry.meta)
}

/// What becomes of a stored entry by a purge with that place in the order; none: a dry run. What nobody is served any more is
/// left to the usual sweep.
pub(crate) fn fate(purge: &Purge, epoch: Option<Epoch>, entry: &Entry, now_ms: u64) -> Fate {
    if !entry.is_retained(now_ms) || !is_about(purge, epoch, entry) {
        return Fate::Stays;
    }
    let at_ms = purge.at_ms.min(now_ms);
    match purge.how {
        _ if epoch.is_none() => Fate::Counted,
        PurgeHow::Hard => Fate::Leaves,
        PurgeHow::Soft if !entry.is_fresh(at_ms) => Fate::Counted,
        PurgeHow::Soft => {
            let expired = entry.expired_at(at_ms);
            if expired.is_retained(now_ms) { Fate::Expires(Box::new(expired)) } else { Fate::Leaves }
        }
    }
}
