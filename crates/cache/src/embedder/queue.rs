//! The bounded queue between requests and embedding threads.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};
use refrain_core::ExactOnly;
use tokio::sync::oneshot;

use super::Embedding;

/// A text and whom to tell.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) text: String,
    pub(super) reply: oneshot::Sender<Result<Embedding, ExactOnly>>,
}

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    /// No thread is left, or the pool is going down.
    Closed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct QueueStats {
    pub(super) queued: usize,
    pub(super) threads: usize,
    pub(super) busy: u64,
    pub(super) abandoned: u64,
}

/// Jobs in arrival order. Its lock is held for moments, by requests and threads alike.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    jobs_max: usize,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    closed: bool,
    busy: u64,
    abandoned: u64,
}

impl Queue {
    /// At least one job may wait.
    pub(super) fn new(jobs_max: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), jobs_max: jobs_max.max(1) }
    }

    /// Makes room by dropping jobs whose callers left, before it refuses one.
    pub(super) fn push(&self, job: Job) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.closed || state.threads == 0 {
            return Err(Refused::Closed);
        }
        if state.jobs.len() >= self.jobs_max {
            state.drop_abandoned();
        }
        if state.jobs.len() >= self.jobs_max {
            state.busy += 1;
            return Err(Refused::Full);
        }
        state.jobs.push_back(job);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for the next job whose caller is still there. None once closed.
    pub(super) fn pop(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            match state.jobs.pop_front() {
                Some(job) if job.reply.is_closed() => state.abandoned += 1,
                Some(job) => return Some(job),
                None => self.filled.wait(&mut state),
            }
        }
    }

    /// A thread serves this queue from now on.
    pub(super) fn join(&self) {
        self.state.lock().threads += 1;
    }

    /// A thread is gone. With the last one every waiter is told.
    pub(super) fn leave(&self) {
        let mut state = self.state.lock();
        state.threads = state.threads.saturating_sub(1);
        if state.threads == 0 {
            state.jobs.clear();
        }
    }

    /// Tells every waiter, and lets the threads end.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.jobs.clear();
        drop(state);
        self.filled.notify_all();
    }

    pub(super) fn stats(&self) -> QueueStats {
        let state = self.state.lock();
        QueueStats {
            queued: state.jobs.len(),
            threads: state.threads,
            busy: state.busy,
            abandoned: state.abandoned,
        }
    }
}

impl State {
    fn drop_abandoned(&mut self) {
        let before = self.jobs.len();
        self.jobs.retain(|job| !job.reply.is_closed());
        self.abandoned += (before - self.jobs.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answer = oneshot::Receiver<Result<Embedding, ExactOnly>>;

    fn job(text: &str) -> (Job, Answer) {
        let (reply, answer) = oneshot::channel();
        (Job { text: text.into(), reply }, answer)
    }

    fn served(jobs_max: usize) -> Queue {
        let queue = Queue::new(jobs_max);
        queue.join();
        queue
    }

    #[test]
    fn a_full_queue_refuses_and_counts() {
        let queue = served(1);
        let (first, _kept) = job("a");
        queue.push(first).unwrap();
        assert_eq!(queue.push(job("b").0), Err(Refused::Full));
        assert_eq!((queue.stats().queued, queue.stats().busy), (1, 1));
    }

    #[test]
    fn a_caller_that_left_gives_its_place_to_the_next() {
        let queue = served(1);
        let (first, left) = job("a");
        queue.push(first).unwrap();
        drop(left);
        let (second, _kept) = job("b");
        queue.push(second).unwrap();
        assert_eq!(queue.pop().unwrap().text, "b");
        assert_eq!(queue.stats().abandoned, 1);
    }

    #[test]
    fn a_job_without_a_caller_is_skipped() {
        let queue = served(4);
        let (first, left) = job("a");
        let (second, _kept) = job("b");
        queue.push(first).unwrap();
        queue.push(second).unwrap();
        drop(left);
        assert_eq!(queue.pop().unwrap().text, "b");
    }

    #[test]
    fn waiters_are_told_when_the_last_thread_dies() {
        let queue = served(4);
        queue.join();
        let (waiting, mut answer) = job("a");
        queue.push(waiting).unwrap();
        queue.leave();
        assert!(answer.try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Empty));
        queue.leave();
        assert!(answer.try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Closed));
        assert_eq!(queue.push(job("b").0), Err(Refused::Closed));
    }

    #[test]
    fn closing_wakes_a_waiting_thread() {
        let queue = served(4);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.pop().is_none());
            queue.close();
            assert!(waiting.join().unwrap());
        });
    }
}
