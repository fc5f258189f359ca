//! Room at endpoints: a request holds a seat from when it is sent until its answer has ended, and waits for one if the
//! endpoints that could answer it are at their limits.

mod drain_rate;
mod queue;

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::UpstreamError;
use crate::balance::{self, Choice};
use crate::clock::Millis;
use crate::demand::Demand;
use crate::endpoint::EndpointState;
use crate::pool::PoolState;

pub(crate) use queue::Queue;
use queue::{Next, Turned, Waiter};

/// How often the queue is looked at though nobody left: endpoints return, come, and change their limits.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// One request's place at an endpoint, counted until dropped.
#[derive(Debug)]
pub struct Seat {
    pool: Arc<PoolState>,
    endpoint: Arc<EndpointState>,
    /// Of its prompt; none: it is beyond all limits, and no load.
    tokens: Option<u32>,
}

impl Seat {
    /// A place at an endpoint, if fewer than `limit` are taken.
    pub(crate) fn take(
        pool: &Arc<PoolState>,
        endpoint: &Arc<EndpointState>,
        limit: u32,
        tokens: u32,
    ) -> Option<Self> {
        let counters = &endpoint.counters;
        let has_room = |in_flight: u32| (in_flight < limit).then_some(in_flight + 1);
        counters.in_flight.fetch_update(SeqCst, Relaxed, has_room).ok()?;
        counters.tokens.fetch_add(tokens.into(), Relaxed);
        Some(Self { pool: pool.clone(), endpoint: endpoint.clone(), tokens: Some(tokens) })
    }

    /// A place beyond all limits: for looks, and for what must reach this endpoint. It takes nobody's room, and no autoscaler
    /// sees it.
    pub(crate) fn beyond_limits(pool: &Arc<PoolState>, endpoint: &Arc<EndpointState>) -> Self {
        Self { pool: pool.clone(), endpoint: endpoint.clone(), tokens: None }
    }

    /// Where it is.
    pub fn endpoint(&self) -> &Arc<EndpointState> {
        &self.endpoint
    }

    /// Whose it is.
    pub(crate) fn pool(&self) -> &Arc<PoolState> {
        &self.pool
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(tokens) = self.tokens else { return };
        let counters = &self.endpoint.counters;
        counters.tokens.fetch_sub(tokens.into(), Relaxed);
        counters.in_flight.fetch_sub(1, SeqCst);
        self.pool.queue.note_done();
        if self.pool.queue.is_waited_at() {
            dispatch(&self.pool);
        }
    }
}

/// A seat for a request, waited for within the pool's limits. `tried`: keys of endpoints that it was sent to before.
///
/// # Errors
/// [`UpstreamError::NoEndpoint`] if nobody is left to be asked; [`UpstreamError::Overloaded`] if too many wait, or it
/// waited too long.
///
/// # Cancel safety
/// Safe: a seat that was given is given back.
pub(crate) async fn seat(
    pool: &Arc<PoolState>,
    demand: &Demand,
    tried: &[u64],
) -> Result<Seat, UpstreamError> {
    // Nobody overtakes those that wait.
    if !pool.queue.is_waited_at() {
        match balance::choose(pool, demand, tried, Millis::now()) {
            Choice::Seat(seat) => return Ok(seat),
            Choice::Nobody => return Err(nobody(pool)),
            Choice::Full => {}
        }
    }
    Box::pin(wait(pool, demand, tried)).await
}

async fn wait(pool: &Arc<PoolState>, demand: &Demand, tried: &[u64]) -> Result<Seat, UpstreamError> {
    let (reply, mut answer) = oneshot::channel();
    let waiter = Waiter { demand: demand.clone(), tried: tried.to_vec(), reply };
    let begun = Instant::now();
    let ticket = pool.queue.join(waiter, pool.config().admission.queue_max);
    let _place = ticket.map_err(|turned| overloaded(pool, turned))?;
    dispatch(pool);
    let deadline = begun + pool.config().admission.queue_timeout;
    let seated = loop {
        let look = (Instant::now() + LOOK_INTERVAL).min(deadline);
        tokio::select! {
            biased;
            seated = &mut answer => break seated,
            () = sleep_until(look) => {}
        }
        dispatch(pool);
        if Instant::now() >= deadline {
            answer.close();
            break answer.try_recv().or(Ok(Err(Turned::Late)));
        }
    };
    pool.queue.note_wait(begun.elapsed());
    match seated {
        Ok(Ok(seat)) => Ok(seat),
        Ok(Err(Turned::NobodyLeft)) => Err(nobody(pool)),
        Ok(Err(turned)) => {
            if turned == Turned::Late {
                pool.queue.note_late();
            }
            Err(overloaded(pool, turned))
        }
        // Whoever serves the queue always answers.
        Err(_) => Err(overloaded(pool, Turned::Late)),
    }
}

/// Gives seats to those that wait, as far as there are any.
pub(crate) fn dispatch(pool: &Arc<PoolState>) {
    let now = Millis::now();
    // Dropped outside the queue's lock: a seat that is given back dispatches.
    let left =
        pool.queue.serve(now, |waiter| match balance::choose(pool, &waiter.demand, &waiter.tried, now) {
            Choice::Seat(seat) => Next::Give(Ok(seat)),
            Choice::Nobody => Next::Give(Err(Turned::NobodyLeft)),
            Choice::Full => Next::Wait,
        });
    drop(left);
}

fn nobody(pool: &PoolState) -> UpstreamError {
    UpstreamError::NoEndpoint { pool: pool.id().clone() }
}

fn overloaded(pool: &PoolState, turned: Turned) -> UpstreamError {
    UpstreamError::Overloaded {
        pool: pool.id().clone(),
        by_tenant: turned == Turned::Share,
        retry_after: pool.queue.retry_after(),
    }
}
