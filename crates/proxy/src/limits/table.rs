//! The counts of one limit in this process. Outlives configurations.
//!
//! Bounded, and nobody's count is ever forgotten for another's sake: what leaves is what would begin at nothing again. Where
//! that makes no room, newcomers share one count: they are limited too much rather than too little, and the others not at
//! all differently.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use refrain_core::settings::Rate;

use super::meter::Meter;
use super::subject::Subject;

/// Parts with a lock each.
const SHARDS: usize = 64;
/// A part with fewer subjects is not swept.
const SWEEP_LEN_MIN: usize = 64;
/// A full part is swept no more often than this.
const SWEEP_INTERVAL_MS: u64 = 1000;

/// What is counted of one subject.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// By [`Rate::slot`].
    pub(crate) meters: [Meter; Rate::SLOTS],
    /// Requests under way.
    pub(crate) in_flight: u32,
    /// From when on its meters say nothing that new ones don't, in Unix milliseconds.
    pub(crate) drained_ms: u64,
}

/// Which count a subject has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// Its own.
    Own,
    /// That of all for whom there is no room.
    Common,
}

/// The counts of all subjects.
#[derive(Debug)]
pub(crate) struct Table {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    common: Mutex<Counts>,
    /// How many subjects may have a count of their own, in all.
    subjects_max: AtomicUsize,
    /// Requests that were counted with others for want of room.
    crowded: AtomicU64,
}

#[derive(Debug)]
struct Shard {
    counts: HashMap<Subject, Counts>,
    /// At how many subjects it is swept next.
    sweep_len: usize,
    swept_ms: u64,
}

impl Table {
    /// Without counts.
    pub(crate) fn new(subjects_max: usize) -> Self {
        let shard = || Shard { counts: HashMap::new(), sweep_len: SWEEP_LEN_MIN, swept_ms: 0 };
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            hasher: RandomState::new(),
            common: Mutex::default(),
            subjects_max: AtomicUsize::new(subjects_max),
            crowded: AtomicU64::new(0),
        }
    }

    /// Another bound from now on. Who is there stays.
    pub(crate) fn resize(&self, subjects_max: usize) {
        self.subjects_max.store(subjects_max, Relaxed);
    }

    /// Looks at a subject's counts, or changes them.
    pub(crate) fn with<T>(
        &self,
        subject: &Subject,
        now_ms: u64,
        then: impl FnOnce(&mut Counts) -> T,
    ) -> (Count, T) {
        let mut shard = self.shard(subject).lock();
        if let Some(counts) = shard.counts.get_mut(subject) {
            return (Count::Own, then(counts));
        }
        if shard.has_room(self.subjects_max.load(Relaxed) / SHARDS, now_ms) {
            return (Count::Own, then(shard.counts.entry(subject.clone()).or_default()));
        }
        drop(shard);
        self.crowded.fetch_add(1, Relaxed);
        (Count::Common, then(&mut self.common.lock()))
    }

    /// What [`Table::with`] would show. Makes no room, and takes none.
    pub(crate) fn look(&self, subject: &Subject) -> Counts {
        let shard = self.shard(subject).lock();
        let is_full = || shard.counts.len() >= (self.subjects_max.load(Relaxed) / SHARDS).max(1);
        match shard.counts.get(subject) {
            Some(counts) => counts.clone(),
            None if is_full() => self.common.lock().clone(),
            None => Counts::default(),
        }
    }

    /// The same of a count that [`Table::with`] gave before.
    pub(crate) fn again(&self, subject: &Subject, count: Count, then: impl FnOnce(&mut Counts)) {
        match count {
            // What is gone meanwhile had nothing in flight, and nothing taken.
            Count::Own => then(self.shard(subject).lock().counts.entry(subject.clone()).or_default()),
            Count::Common => then(&mut self.common.lock()),
        }
    }

    /// Subjects with a count of their own.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().counts.len()).sum()
    }

    /// Requests that were counted with others for want of room.
    pub(crate) fn crowded(&self) -> u64 {
        self.crowded.load(Relaxed)
    }

    fn shard(&self, subject: &Subject) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(subject) as usize % SHARDS]
    }
}

impl Shard {
    /// Whether one more fits, now or after a sweep. Sweeps cost a constant time a newcomer: each waits until there are twice as
    /// many as the last one left.
    fn has_room(&mut self, len_max: usize, now_ms: u64) -> bool {
        let is_full = self.counts.len() >= len_max.max(1);
        let is_due =
            self.counts.len() >= self.sweep_len || (is_full && now_ms >= self.swept_ms + SWEEP_INTERVAL_MS);
        if is_due {
            self.counts.retain(|_, counts| counts.in_flight > 0 || counts.drained_ms > now_ms);
            self.sweep_len = (self.counts.len() * 2).max(SWEEP_LEN_MIN);
            self.swept_ms = now_ms;
        }
        self.counts.len() < len_max.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(name: usize) -> Subject {
        Subject::of_key(&name.to_string())
    }

    fn spend(counts: &mut Counts) {
        counts.in_flight += 1;
        counts.drained_ms = 60_000;
    }

    #[test]
    fn a_crowd_of_subjects_neither_grows_the_table_nor_resets_anybodys_count() {
        let table = Table::new(SHARDS * 8);
        let victim = subject(0);
        table.with(&victim, 0, spend);
        for name in 1..10_000 {
            table.with(&subject(name), 10, spend);
        }
        assert!(table.len() <= SHARDS * 8);
        let (count, in_flight) = table.with(&victim, 20, |counts| counts.in_flight);
        assert_eq!((count, in_flight), (Count::Own, 1));
        let (count, in_flight) = table.with(&subject(9_999), 20, |counts| counts.in_flight);
        assert_eq!(count, Count::Common);
        assert!(in_flight > 1_000, "who finds no room is counted with the others");
        assert!(table.crowded() > 9_000);
    }

    #[test]
    fn what_would_begin_at_nothing_makes_room() {
        let table = Table::new(SHARDS * 8);
        for name in 0..10_000 {
            table.with(&subject(name), 0, |counts| counts.drained_ms = 100);
        }
        assert_eq!(table.with(&subject(20_000), 5_000, spend).0, Count::Own);
        for name in 30_000..100_000 {
            table.with(&subject(name), 5_000, |_| {});
        }
        assert!(table.len() <= SHARDS * 8);
        assert_eq!(table.with(&subject(20_000), 5_000, |counts| counts.in_flight), (Count::Own, 1));
    }
}
