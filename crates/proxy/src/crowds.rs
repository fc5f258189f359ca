//! How many different questions one stored answer served by likeness: an answer that suits them all is mostly none. Semantic
//! hits alone come by here, which have cost an embedding; memory is bounded.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long questions are counted together.
const WINDOW: Duration = Duration::from_secs(600);
/// Answers that are watched at once; others are not, until the next window.
const ANSWERS_MAX: usize = 1024;
/// Questions that are told apart for one answer.
const QUESTIONS_MAX: usize = 256;

/// One route's answers, and who they were served to.
#[derive(Default)]
pub(crate) struct Crowds(Mutex<State>);

#[derive(Default)]
struct State {
    since: Option<Instant>,
    /// By the answer's key: beginnings of the questions' keys.
    questions: HashMap<[u8; 32], HashSet<u64>>,
    most: usize,
    /// Of the window before, so that the number doesn't fall to zero each time.
    before: usize,
}

impl Crowds {
    /// An answer was served to a question by likeness.
    pub(crate) fn served(&self, answer: &[u8; 32], question: &[u8; 32], now: Instant) {
        let mut state = self.0.lock();
        state.turn(now);
        if state.questions.len() >= ANSWERS_MAX && !state.questions.contains_key(answer) {
            return;
        }
        let [first, ..] = question.as_chunks::<8>().0 else { return };
        let crowd = state.questions.entry(*answer).or_default();
        if crowd.len() < QUESTIONS_MAX {
            crowd.insert(u64::from_be_bytes(*first));
        }
        let size = crowd.len();
        state.most = state.most.max(size);
    }

    /// The most different questions that one answer served, in this window or the one before.
    pub(crate) fn most(&self, now: Instant) -> usize {
        let mut state = self.0.lock();
        state.turn(now);
        state.most.max(state.before)
    }
}

impl State {
    fn turn(&mut self, now: Instant) {
        let age = self.since.map(|since| now.saturating_duration_since(since));
        if age.is_some_and(|age| age < WINDOW) {
            return;
        }
        // After two windows without a hit, nothing is left of the first.
        self.before = if age.is_some_and(|age| age < 2 * WINDOW) { self.most } else { 0 };
        (self.since, self.most) = (Some(now), 0);
        self.questions.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_questions_of_one_answer_are_counted_for_two_windows() {
        let crowds = Crowds::default();
        let begun = Instant::now();
        for (answer, question) in [(1, 10), (1, 11), (1, 10), (2, 10)] {
            crowds.served(&[answer; 32], &[question; 32], begun);
        }
        assert_eq!(crowds.most(begun), 2);
        assert_eq!(crowds.most(begun + WINDOW), 2);
        assert_eq!(crowds.most(begun + 2 * WINDOW), 0);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let crowds = Crowds::default();
        let now = Instant::now();
        let key = |nth: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&nth.to_be_bytes());
            key
        };
        for nth in 0..2 * QUESTIONS_MAX {
            crowds.served(&key(0), &key(nth), now);
        }
        for nth in 0..2 * ANSWERS_MAX {
            crowds.served(&key(nth), &key(0), now);
        }
        assert_eq!((crowds.most(now), crowds.0.lock().questions.len()), (QUESTIONS_MAX, ANSWERS_MAX));
    }
}
