//! What answers and looks tell of an endpoint's health: whether it may be asked, and how much of its share it gets.
//!
//! Passive: an endpoint that can't be connected to is left alone for a moment; one that keeps failing is ejected for longer
//! each time, and one request at a time then tries it again. Active: looks ([`crate::watch`]) say whether it is ready at all.
//! What a client did wrong never counts, nor how long an answer takes: only if several in a row came to their time-out without
//! a byte of any answer in between, the endpoint answers nobody.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Millis;

/// How long an endpoint that refused a connection is left alone.
pub(crate) const COOL_DOWN: Duration = Duration::from_secs(3);
/// Failures in a row that eject.
const IN_A_ROW_MAX: u32 = 5;
/// First-byte time-outs that eject, if not a byte of any answer came in between: a server that is slow or works at something
/// long still sends somebody something.
const SILENT_MAX: u32 = 3;
/// Answers of which more than half failed that eject.
const SAMPLE_MIN: u32 = 20;
/// Answers that count: older ones are halved away.
const SAMPLE_MAX: u32 = 40;
/// Most that an ejection grows by.
const EJECTIONS_MAX: u32 = 30;
/// Good answers in a row that forget a former ejection.
const FORGIVEN_AFTER: u32 = 100;
/// Longest wait that an endpoint may ask for.
const BUSY_MAX: Duration = Duration::from_secs(60);
/// Looks in a row that change whether it is ready.
const LOOKS: u32 = 2;
/// Least part of its share that a slow start gives.
const START_SHARE: f64 = 0.1;

/// An endpoint's health. Without locks: lost updates cost a failure or two.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Until when it is left out, and two more bits: whether it can't even be connected to, and whether somebody tries it.
    /// 0: it isn't.
    outage: AtomicU64,
    /// Until when it wants to be left alone.
    busy_until: AtomicU64,
    /// Since when it has been back; 0: all along.
    returned_at: AtomicU64,
    /// Failures in a row.
    in_a_row: AtomicU32,
    /// First-byte time-outs since something was heard of it.
    silent: AtomicU32,
    /// Good answers in a row.
    good: AtomicU32,
    ejections: AtomicU32,
    answers: AtomicU32,
    failures: AtomicU32,
    readiness: AtomicU8,
    /// Looks in a row that said otherwise than `readiness`.
    doubts: AtomicU32,
}

/// Whether looks found an endpoint ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Readiness {
    /// Nobody has looked: it may be asked.
    Unknown = 0,
    /// It is new, and nothing is known of it: it isn't asked.
    Awaited = 1,
    Ready = 2,
    Unready = 3,
}

/// Whether an endpoint may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    /// Its time is up: one request may try it.
    OnTrial,
    /// It failed too often.
    Ejected,
    /// It wants to be left alone, by its own word.
    Busy,
    /// It can't be connected to, or looks failed.
    Down,
    /// New, and not ready yet.
    Awaited,
}

/// What happened that speaks against an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// No connection.
    Unreachable,
    /// A connection that broke, or an answer that says that it can't answer (502, 503, 504).
    Answer,
    /// No byte of the answer before the first-byte time-out.
    Silent,
}

const DOWN: u64 = 1;
const ON_TRIAL: u64 = 2;
/// Bits of the two.
const FLAGS: u32 = 2;

impl Health {
    /// Of an endpoint that has to show first that it is ready.
    pub(crate) fn awaited() -> Self {
        Self { readiness: AtomicU8::new(Readiness::Awaited as u8), ..Self::default() }
    }

    pub(crate) fn standing(&self, now: Millis) -> Standing {
        match self.readiness() {
            Readiness::Awaited => return Standing::Awaited,
            Readiness::Unready => return Standing::Down,
            Readiness::Unknown | Readiness::Ready => {}
        }
        let outage = self.outage.load(Relaxed);
        if outage != 0 {
            return match (now.0 < outage >> FLAGS, outage & DOWN != 0) {
                (true, true) => Standing::Down,
                (true, false) => Standing::Ejected,
                (false, _) => Standing::OnTrial,
            };
        }
        if now.0 < self.busy_until.load(Relaxed) { Standing::Busy } else { Standing::Good }
    }

    /// Whether this request may be the one that tries it. If so, the others wait for how it ends, or for another while: as long as
    /// it was ejected before, since one that answers nobody would swallow a request each time. `ejection`: how long its first
    /// ejection would last.
    pub(crate) fn takes_trial(&self, now: Millis, ejection: Duration) -> bool {
        let outage = self.outage.load(Relaxed);
        if outage == 0 {
            // Somebody brought it back meanwhile.
            return true;
        }
        let is_ejected = outage & DOWN == 0;
        let pause = if is_ejected { ejection * self.ejections.load(Relaxed).max(1) } else { COOL_DOWN };
        let next = (now.after(pause).0 << FLAGS) | (outage & DOWN) | ON_TRIAL;
        outage >> FLAGS <= now.0 && self.outage.compare_exchange(outage, next, Relaxed, Relaxed).is_ok()
    }

    /// The request that tried it is gone, whatever came of it: if nothing did, the next one may try.
    pub(crate) fn end_trial(&self, now: Millis) {
        let outage = self.outage.load(Relaxed);
        if outage & ON_TRIAL != 0 {
            let next = (now.0 << FLAGS) | (outage & DOWN) | ON_TRIAL;
            // Else somebody has learned something meanwhile.
            let _ = self.outage.compare_exchange(outage, next, Relaxed, Relaxed);
        }
    }

    /// The part of its share that it may have, 0 to 1.
    pub(crate) fn share(&self, now: Millis, slow_start: Duration) -> f64 {
        let returned = self.returned_at.load(Relaxed);
        if returned == 0 {
            return 1.0;
        }
        let part = now.since(Millis(returned)).as_secs_f64() / slow_start.as_secs_f64();
        part.clamp(START_SHARE, 1.0)
    }

    /// It answered.
    pub(crate) fn note_good(&self, now: Millis) {
        self.note_answered(now);
        if self.in_a_row.load(Relaxed) != 0 {
            self.in_a_row.store(0, Relaxed);
        }
        if self.answers.load(Relaxed) != 0 {
            self.count(0);
        }
        if self.ejections.load(Relaxed) != 0 && self.good.fetch_add(1, Relaxed) >= FORGIVEN_AFTER {
            self.ejections.store(0, Relaxed);
            self.good.store(0, Relaxed);
        }
    }

    /// A byte of an answer came.
    pub(crate) fn note_heard(&self) {
        if self.silent.load(Relaxed) != 0 {
            self.silent.store(0, Relaxed);
        }
    }

    /// It failed. `ejection`: how long the first lasts.
    pub(crate) fn note_failed(&self, failed: Failed, now: Millis, ejection: Duration) {
        self.good.store(0, Relaxed);
        let is_too_much = match failed {
            Failed::Unreachable => {
                self.count_in_a_row();
                self.outage.store((now.after(COOL_DOWN).0 << FLAGS) | DOWN, Relaxed);
                return;
            }
            Failed::Answer => self.count_in_a_row() >= IN_A_ROW_MAX || self.fails_mostly(),
            Failed::Silent => self.silent.fetch_add(1, Relaxed) + 1 >= SILENT_MAX,
        };
        let outage = self.outage.load(Relaxed);
        let is_left_alone = outage != 0 && outage & ON_TRIAL == 0;
        // What was under way when it broke fails too, and says nothing new.
        if !is_left_alone && (outage & ON_TRIAL != 0 || is_too_much) {
            self.eject(now, ejection);
        }
    }

    fn note_answered(&self, now: Millis) {
        // Answers that were under way when it was ejected prove nothing.
        if self.outage.load(Relaxed) & (DOWN | ON_TRIAL) != 0 {
            self.outage.store(0, Relaxed);
            self.note_returned(now);
        }
    }

    /// It says that it is busy, and for how long.
    pub(crate) fn note_busy(&self, now: Millis, wait: Duration) {
        self.note_answered(now);
        self.busy_until.store(now.after(wait.min(BUSY_MAX)).0, Relaxed);
    }

    /// A look found it ready, or not. The first look decides alone, and so does the first that finds a new one ready.
    pub(crate) fn note_look(&self, is_ready: bool, now: Millis) {
        // It can be connected to again; who was ejected for its answers stays so.
        if is_ready && self.outage.load(Relaxed) & DOWN != 0 {
            self.outage.store(0, Relaxed);
            self.note_returned(now);
        }
        let (was, is) = (self.readiness(), if is_ready { Readiness::Ready } else { Readiness::Unready });
        if was == is || (was == Readiness::Awaited && !is_ready) {
            self.doubts.store(0, Relaxed);
            return;
        }
        let doubts = self.doubts.fetch_add(1, Relaxed) + 1;
        let at_once = matches!((was, is), (Readiness::Unknown | Readiness::Awaited, Readiness::Ready));
        if !at_once && doubts < LOOKS {
            return;
        }
        self.doubts.store(0, Relaxed);
        self.readiness.store(is as u8, Relaxed);
        if is_ready && was != Readiness::Unknown {
            self.note_returned(now);
        }
    }

    /// Whether nobody has found it otherwise than ready.
    pub(crate) fn is_believed(&self) -> bool {
        matches!(self.readiness(), Readiness::Unknown | Readiness::Ready)
    }

    pub(crate) fn readiness(&self) -> Readiness {
        match self.readiness.load(Relaxed) {
            1 => Readiness::Awaited,
            2 => Readiness::Ready,
            3 => Readiness::Unready,
            _ => Readiness::Unknown,
        }
    }

    /// Failures in a row.
    pub(crate) fn failures_in_a_row(&self) -> u32 {
        self.in_a_row.load(Relaxed)
    }

    fn note_returned(&self, now: Millis) {
        self.returned_at.store(now.0, Relaxed);
    }

    /// Failures in a row, with this one.
    fn count_in_a_row(&self) -> u32 {
        self.count(1);
        self.in_a_row.fetch_add(1, Relaxed) + 1
    }

    fn fails_mostly(&self) -> bool {
        let (answers, failures) = (self.answers.load(Relaxed), self.failures.load(Relaxed));
        answers >= SAMPLE_MIN && failures * 2 > answers
    }

    fn eject(&self, now: Millis, ejection: Duration) {
        let count = self.ejections.load(Relaxed).saturating_add(1).min(EJECTIONS_MAX);
        self.ejections.store(count, Relaxed);
        self.outage.store(now.after(ejection * count).0 << FLAGS, Relaxed);
        self.in_a_row.store(0, Relaxed);
        self.silent.store(0, Relaxed);
        self.answers.store(0, Relaxed);
        self.failures.store(0, Relaxed);
    }

    fn count(&self, failures: u32) {
        self.failures.fetch_add(failures, Relaxed);
        if self.answers.fetch_add(1, Relaxed) + 1 >= SAMPLE_MAX {
            self.answers.store(SAMPLE_MAX / 2, Relaxed);
            self.failures.store(self.failures.load(Relaxed) / 2, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EJECTION: Duration = Duration::from_secs(10);
    const NOW: Millis = Millis(1_000);

    fn failed(health: &Health, times: u32, now: Millis) {
        for _ in 0..times {
            health.note_failed(Failed::Answer, now, EJECTION);
        }
    }

    #[test]
    fn five_failures_in_a_row_eject_and_each_ejection_lasts_longer() {
        let health = Health::default();
        failed(&health, 4, NOW);
        health.note_good(NOW);
        failed(&health, 4, NOW);
        assert_eq!(health.standing(NOW), Standing::Good);
        failed(&health, 1, NOW);
        assert_eq!(health.standing(NOW.after(EJECTION - Duration::from_millis(1))), Standing::Ejected);

        let then = NOW.after(EJECTION);
        assert_eq!(health.standing(then), Standing::OnTrial);
        assert!(health.takes_trial(then, EJECTION));
        assert!(!health.takes_trial(then, EJECTION), "one at a time");
        failed(&health, 1, then);
        assert_eq!(health.standing(then.after(EJECTION)), Standing::Ejected);
        assert_eq!(health.standing(then.after(2 * EJECTION)), Standing::OnTrial);
    }

    #[test]
    fn what_was_under_way_when_it_broke_ejects_it_once() {
        let health = Health::default();
        failed(&health, 100, NOW);
        assert_eq!(health.standing(NOW.after(EJECTION)), Standing::OnTrial);
    }

    #[test]
    fn more_than_half_of_twenty_eject_though_never_five_in_a_row() {
        let health = Health::default();
        for round in 0..7 {
            assert_eq!(health.standing(NOW), Standing::Good, "{round}");
            failed(&health, 2, NOW);
            health.note_good(NOW);
        }
        assert_eq!(health.standing(NOW), Standing::Ejected);
    }

    #[test]
    fn a_trial_that_goes_well_brings_it_back_slowly() {
        let health = Health::default();
        failed(&health, 5, NOW);
        let then = NOW.after(EJECTION);
        assert!(health.takes_trial(then, EJECTION));
        health.note_good(then);
        assert_eq!(health.standing(then), Standing::Good);
        let slow_start = Duration::from_secs(10);
        let shares = [0, 5, 10, 20].map(|s| health.share(then.after(Duration::from_secs(s)), slow_start));
        assert_eq!(shares, [0.1, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn a_trial_that_nobody_ends_is_taken_up_by_another() {
        let health = Health::default();
        health.note_failed(Failed::Unreachable, NOW, EJECTION);
        assert_eq!(health.standing(NOW), Standing::Down);
        let then = NOW.after(COOL_DOWN);
        assert!(health.takes_trial(then, EJECTION));
        assert_eq!(health.standing(then), Standing::Down);
        assert!(health.takes_trial(then.after(COOL_DOWN), EJECTION));
    }

    #[test]
    fn one_that_is_well_by_now_needs_no_trial() {
        let health = Health::default();
        assert!(health.takes_trial(NOW, EJECTION));
        assert_eq!(health.standing(NOW), Standing::Good);
    }

    #[test]
    fn one_that_answers_nobody_is_ejected_and_tried_less_and_less() {
        let health = Health::default();
        let silent = |now| health.note_failed(Failed::Silent, now, EJECTION);
        for heard in [true, false] {
            silent(NOW);
            silent(NOW);
            if heard {
                health.note_heard();
            }
        }
        assert_eq!(health.standing(NOW), Standing::Good, "something came in between");
        silent(NOW);
        let then = NOW.after(EJECTION);
        assert_eq!(health.standing(NOW), Standing::Ejected);
        assert!(health.takes_trial(then, EJECTION));
        assert_eq!(health.standing(then.after(EJECTION - Duration::from_millis(1))), Standing::Ejected);
        silent(then);
        assert_eq!(health.standing(then.after(EJECTION)), Standing::Ejected, "the trial failed");
    }

    #[test]
    fn a_trial_whose_client_leaves_costs_no_time_and_one_that_is_answered_by_busy_is_over() {
        let health = Health::default();
        failed(&health, 5, NOW);
        let then = NOW.after(EJECTION);
        assert!(health.takes_trial(then, EJECTION));
        health.end_trial(then);
        assert_eq!(health.standing(then), Standing::OnTrial);
        assert!(health.takes_trial(then, EJECTION));
        health.note_busy(then, Duration::from_secs(1));
        health.end_trial(then);
        assert_eq!(health.standing(then), Standing::Busy);
        assert_eq!(health.standing(then.after(Duration::from_secs(1))), Standing::Good);
    }

    #[test]
    fn two_looks_change_what_one_look_found() {
        let health = Health::default();
        health.note_look(true, NOW);
        health.note_look(false, NOW);
        assert_eq!(health.standing(NOW), Standing::Good);
        health.note_look(false, NOW);
        assert_eq!(health.standing(NOW), Standing::Down);
        health.note_look(true, NOW);
        health.note_look(false, NOW);
        health.note_look(true, NOW);
        assert_eq!(health.standing(NOW), Standing::Down, "in a row");
        health.note_look(true, NOW);
        assert_eq!(health.standing(NOW), Standing::Good);
    }

    #[test]
    fn a_look_at_one_that_could_not_be_connected_to_brings_it_back_and_at_one_that_failed_does_not() {
        let health = Health::default();
        health.note_look(true, NOW);
        health.note_failed(Failed::Unreachable, NOW, EJECTION);
        assert_eq!(health.standing(NOW), Standing::Down);
        health.note_look(true, NOW);
        assert_eq!(health.standing(NOW), Standing::Good);
        failed(&health, 5, NOW);
        health.note_look(true, NOW);
        assert_eq!(health.standing(NOW), Standing::Ejected);
    }

    #[test]
    fn a_new_one_is_not_asked_before_a_look_finds_it_ready() {
        let health = Health::awaited();
        health.note_look(false, NOW);
        health.note_look(false, NOW);
        assert_eq!(health.standing(NOW), Standing::Awaited);
        health.note_look(true, NOW);
        assert_eq!(health.standing(NOW), Standing::Good);
        assert!(health.share(NOW, Duration::from_secs(10)) < 0.5);
    }

    #[test]
    fn who_asks_to_be_left_alone_is_for_a_minute_at_most() {
        let health = Health::default();
        health.note_busy(NOW, Duration::from_secs(3600));
        assert_eq!(health.standing(NOW), Standing::Busy);
        assert_eq!(health.standing(NOW.after(BUSY_MAX)), Standing::Good);
    }
}
