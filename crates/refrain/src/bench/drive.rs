//! Sends a workload's requests when they are due.
//!
//! In an open loop the time of each request is fixed before anything is answered. One that can't be sent then (the server holds
//! all that may be under way) is sent late, and its latency still counts from when it was due; one that could not be sent at
//! all is counted. So a server that stalls is charged for everybody who would have asked meanwhile, and not only for the
//! requests that it happened to hold: nothing is omitted in coordination with it.
//!
//! In a closed loop a user asks again when the answer before has come: that is how the loop is meant, and a stall holds users up.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::outcome::Outcome;
use super::schedule::Schedule;
use super::workload::{Ask, Flow, Session, Workload};

/// Sends one request and says what came of it.
pub(crate) trait Asker: Clone + Send + Sync + 'static {
    /// Never fails: failures are outcomes.
    ///
    /// # Cancel safety
    /// Dropping the future gives the request up.
    fn ask(&self, ask: Ask) -> impl Future<Output = Outcome> + Send;
}

/// Who decides when a request is sent.
#[derive(Debug)]
pub(crate) enum Loop {
    /// So many users, who wait for their answers.
    Closed(usize),
    /// The clock; so many sessions take turns.
    Open(Schedule, usize),
}

/// How much is sent.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// Requests that are due before are not measured.
    pub(crate) from: Instant,
    /// When requests stop.
    pub(crate) until: Option<Instant>,
    /// How many are sent at most.
    pub(crate) requests: u64,
    /// How many may be under way at once.
    pub(crate) in_flight: usize,
    /// How long answers may take after the last request.
    pub(crate) grace: Duration,
}

/// A request that is over.
#[derive(Debug)]
pub(crate) struct Done {
    /// When it was due.
    pub(crate) due: Instant,
    /// What came of it.
    pub(crate) outcome: Outcome,
}

/// Requests that have no outcome.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Undone {
    /// How many were due and never sent.
    pub(crate) unsent: u64,
    /// How many were sent and not answered when everything ended.
    pub(crate) unfinished: u64,
}

/// Sends everything, waits for the answers and returns; outcomes go to `done` as they come. Ends early when `stop` is raised.
///
/// # Cancel safety
/// Dropping the future gives up what is under way.
pub(crate) async fn drive<A: Asker>(
    asker: A,
    workload: Arc<Workload>,
    how: Loop,
    extent: Extent,
    done: mpsc::Sender<Done>,
    stop: CancellationToken,
) -> Undone {
    let start = Instant::now();
    let room = Arc::new(Semaphore::new(extent.in_flight));
    let launch = Launch { asker, room, done, extent, stop, under_way: Arc::default() };
    match how {
        Loop::Closed(users) => launch.closed(workload, users).await,
        Loop::Open(schedule, width) => launch.open(start, schedule, Flow::new(workload, width)).await,
    }
}

/// Hands out sessions in their order, so that what is asked doesn't depend on who is quicker.
struct Sessions {
    workload: Arc<Workload>,
    next: u64,
    /// Requests.
    left: u64,
    /// Requests of sessions that were handed out, and are not sent yet.
    waiting: u64,
    /// Raised when nothing is left to be sent.
    all_sent: CancellationToken,
}

impl Sessions {
    /// The next one; the last one is cut so that no more requests are sent than shall be.
    fn take(&mut self) -> Option<Session> {
        let session = if self.left == 0 { None } else { self.workload.session(self.next) };
        let Some(mut session) = session else {
            self.left = 0;
            self.sent(0);
            return None;
        };
        self.next += 1;
        for wave in &mut session.waves {
            wave.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= wave.len() as u64;
            self.waiting += wave.len() as u64;
        }
        session.waves.retain(|wave| !wave.is_empty());
        Some(session)
    }

    /// So many of what was handed out are sent.
    fn sent(&mut self, count: u64) {
        self.waiting -= count;
        if self.left == 0 && self.waiting == 0 {
            self.all_sent.cancel();
        }
    }
}

/// What a request needs to be sent.
#[derive(Clone)]
struct Launch<A> {
    asker: A,
    room: Arc<Semaphore>,
    done: mpsc::Sender<Done>,
    extent: Extent,
    stop: CancellationToken,
    /// Requests that were sent, are measured and have no outcome yet.
    under_way: Arc<AtomicU64>,
}

impl<A: Asker> Launch<A> {
    async fn open(self, start: Instant, mut schedule: Schedule, flow: Flow) -> Undone {
        let mut requests = JoinSet::new();
        let flow = flow.take(usize::try_from(self.extent.requests).unwrap_or(usize::MAX));
        let mut due = start;
        let mut unsent = 0;
        for (recorded, ask) in flow {
            due = schedule.next(start, due, recorded);
            if self.is_late(due) || self.stop.is_cancelled() {
                break;
            }
            // Once the end has come, what was due before is only counted.
            match self.permit(due).await {
                Some(permit) => {
                    while requests.try_join_next().is_some() {}
                    requests.spawn(self.clone().one(ask, due, permit));
                }
                None if self.stop.is_cancelled() => break,
                None => unsent += u64::from(due >= self.extent.from),
            }
        }
        let until = self.extent.until;
        let unfinished =
            self.finish(requests, async { sleep_until(until.unwrap_or_else(Instant::now)).await }).await;
        Undone { unsent, unfinished }
    }

    async fn closed(self, workload: Arc<Workload>, users: usize) -> Undone {
        let all_sent = CancellationToken::new();
        let (left, all) = (self.extent.requests, all_sent.clone());
        let sessions = Sessions { workload, next: 0, left, waiting: 0, all_sent: all };
        let sessions = Arc::new(Mutex::new(sessions));
        let mut asking = JoinSet::new();
        for _ in 0..users {
            asking.spawn(self.clone().user(sessions.clone()));
        }
        let launch = self.clone();
        let end = async move {
            tokio::select! {
                () = launch.end() => {}
                () = all_sent.cancelled() => {}
            }
        };
        Undone { unsent: 0, unfinished: self.finish(asking, end).await }
    }

    /// One session after the other.
    async fn user(self, sessions: Arc<Mutex<Sessions>>) {
        while !self.is_over() {
            let Some(session) = sessions.lock().take() else { return };
            for wave in session.waves {
                let due = Instant::now();
                if self.is_over() {
                    return;
                }
                let mut requests = JoinSet::new();
                let count = wave.len() as u64;
                for ask in wave {
                    requests.spawn(self.clone().one_of_a_wave(ask, due));
                }
                sessions.lock().sent(count);
                while requests.join_next().await.is_some() {}
            }
        }
    }

    async fn one_of_a_wave(self, ask: Ask, due: Instant) {
        if let Some(permit) = self.permit(due).await {
            self.one(ask, due, permit).await;
        }
    }

    /// Waits until a request is due and there is room for it; none if everything ended before. Timers are coarse: one that is
    /// due right before the end is sent, if there is room, though both have come at once.
    async fn permit(&self, due: Instant) -> Option<OwnedSemaphorePermit> {
        let room = async {
            sleep_until(due).await;
            self.room.clone().acquire_owned().await.ok()
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            permit = room => permit,
            () = self.end() => None,
        }
    }

    async fn end(&self) {
        match self.extent.until {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    }

    async fn one(self, ask: Ask, due: Instant, _permit: OwnedSemaphorePermit) {
        let measured = u64::from(due >= self.extent.from);
        self.under_way.fetch_add(measured, Ordering::Relaxed);
        let outcome = self.asker.ask(ask).await;
        // Nobody counts any more if the receiver is gone.
        let _ = self.done.send(Done { due, outcome }).await;
        self.under_way.fetch_sub(measured, Ordering::Relaxed);
    }

    /// Waits for what is under way, no longer than the grace after `end`; how many answers did not come.
    async fn finish(self, mut requests: JoinSet<()>, end: impl Future<Output = ()>) -> u64 {
        let all = async { while requests.join_next().await.is_some() {} };
        let grace_over = async {
            end.await;
            sleep(self.extent.grace).await;
        };
        tokio::select! {
            () = all => {}
            () = grace_over => {}
            () = self.stop.cancelled() => {}
        }
        requests.shutdown().await;
        self.under_way.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.stop.is_cancelled() || self.is_late(Instant::now())
    }

    fn is_late(&self, due: Instant) -> bool {
        self.extent.until.is_some_and(|until| due >= until)
    }
}

#[cfg(test)]
mod tests;
