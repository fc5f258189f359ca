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
use crate::busy::Began;
use crate::clock::{self, Millis};
use crate::demand::Demand;
use crate::endpoint::EndpointState;
use crate::ledger::Charge;
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
    /// It finds out whether the endpoint is back.
    is_trial: bool,
    /// Where its cost is put down. Boxed, as seats are moved often.
    charged: Option<Box<Charged>>,
}

/// A request whose cost is put down.
#[derive(Debug)]
struct Charged {
    charge: Charge,
    /// When it began.
    began: Began,
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
        let others = counters.in_flight.fetch_update(SeqCst, Relaxed, has_room).ok()?;
        counters.tokens.fetch_add(tokens.into(), Relaxed);
        counters.time.begin(clock::nanos(), others);
        Some(Self::of(pool, endpoint, Some(tokens)))
    }

    fn of(pool: &Arc<PoolState>, endpoint: &Arc<EndpointState>, tokens: Option<u32>) -> Self {
        Self { pool: pool.clone(), endpoint: endpoint.clone(), tokens, is_trial: false, charged: None }
    }

    /// The same, taken by the request that tries the endpoint.
    pub(crate) fn on_trial(mut self) -> Self {
        self.is_trial = true;
        self
    }

    /// A place beyond all limits: for looks, and for what must reach this endpoint. It takes nobody's room, and no autoscaler
    /// sees it.
    pub(crate) fn beyond_limits(pool: &Arc<PoolState>, endpoint: &Arc<EndpointState>) -> Self {
        Self::of(pool, endpoint, None)
    }

    /// From now on its cost is put down there.
    pub(crate) fn charge(&mut self, charge: Charge) {
        let began = self.endpoint.counters.time.reading(clock::nanos());
        self.charged = Some(Box::new(Charged { charge, began }));
    }

    /// Where it is.
    pub fn endpoint(&self) -> &Arc<EndpointState> {
        &self.endpoint
    }

    /// Something of the answer came. What is beyond limits proves nothing: a server may list its models and answer nobody.
    pub(crate) fn note_heard(&self) {
        if self.tokens.is_some() {
            self.endpoint.health.note_heard();
        }
    }

    /// Whose it is.
    pub(crate) fn pool(&self) -> &Arc<PoolState> {
        &self.pool
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(tokens) = self.tokens else { return };
        if self.is_trial {
            self.endpoint.health.end_trial(Millis::now());
        }
        let counters = &self.endpoint.counters;
        counters.tokens.fetch_sub(tokens.into(), Relaxed);
        let in_flight = counters.in_flight.fetch_sub(1, SeqCst);
        let now = clock::nanos();
        counters.time.end(now, in_flight);
        if let Some(Charged { charge, began }) = self.charged.as_deref() {
            charge.note(counters.time.taken(*began, now), self.endpoint.price());
        }
        self.pool.queue.note_done();
        if self.pool.queue.is_waited_at() {
            dispatch(&self.pool);
        }
    }
}

/// A seat for a request, waited for within the pool's limits, and until `give_up` at most. `tried`: keys of endpoints that it
/// was sent to before.
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
    give_up: Instant,
) -> Result<Seat, UpstreamError> {
    // Nobody overtakes those that wait.
    if !pool.queue.is_waited_at() {
        match balance::choose(pool, demand, tried, Millis::now()) {
            Choice::Seat(seat) => return Ok(seat),
            Choice::Nobody => return Err(nobody(pool)),
            Choice::Full => {}
        }
    }
    Box::pin(wait(pool, demand, tried, give_up)).await
}

async fn wait(
    pool: &Arc<PoolState>,
    demand: &Demand,
    tried: &[u64],
    give_up: Instant,
) -> Result<Seat, UpstreamError> {
    let (reply, mut answer) = oneshot::channel();
    let waiter = Waiter::new(demand.clone(), tried.to_vec(), reply);
    let begun = Instant::now();
    let admission = &pool.config().admission;
    let place = pool.queue.join(waiter, admission.queue_max);
    let _place = place.map_err(|turned| overloaded(pool, turned))?;
    // There may be room for this one: those before it may all wait for another model.
    dispatch(pool);
    let seated = served(pool, give_up.min(begun + admission.queue_timeout), &mut answer).await;
    pool.queue.note_wait(begun.elapsed());
    seated.map_err(|turned| match turned {
        Turned::NobodyLeft => nobody(pool),
        Turned::Late => {
            pool.queue.note_late();
            overloaded(pool, turned)
        }
        Turned::Full | Turned::Share => overloaded(pool, turned),
    })
}

/// What the queue says, by its deadline.
async fn served(
    pool: &Arc<PoolState>,
    deadline: Instant,
    answer: &mut oneshot::Receiver<Result<Seat, Turned>>,
) -> Result<Seat, Turned> {
    loop {
        let look = (Instant::now() + LOOK_INTERVAL).min(deadline);
        tokio::select! {
            biased;
            // Whoever serves the queue always answers.
            served = &mut *answer => return served.unwrap_or(Err(Turned::Late)),
            () = sleep_until(look) => {}
        }
        if pool.queue.takes_look(Instant::now(), LOOK_INTERVAL) {
            dispatch(pool);
        }
        if Instant::now() >= deadline {
            answer.close();
            return answer.try_recv().unwrap_or(Err(Turned::Late));
        }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use futures_util::FutureExt;
    use refrain_core::settings::{Admission, Pool, PoolKind, Priority};

    use super::*;
    use crate::Upstreams;
    use crate::models::Models;

    /// The same with all the time that the pool gives.
    async fn seat(pool: &Arc<PoolState>, demand: &Demand, tried: &[u64]) -> Result<Seat, UpstreamError> {
        super::seat(pool, demand, tried, Instant::now() + Duration::from_secs(3600)).await
    }

    /// Two endpoints with a model each; every one takes one request at a time.
    fn pool(queue_max: usize) -> Arc<PoolState> {
        let plain = crate::pool::tests::pool("p", PoolKind::Generic, &["a", "b"]);
        let admission = Admission { concurrency: 1, parallelism: 1, queue_max, ..Admission::default() };
        let config = Arc::new(Pool { admission, ..(*plain).clone() });
        let upstreams = Upstreams::new(&BTreeMap::from([(config.id.clone(), config)])).unwrap();
        let pool = upstreams.pools().next().unwrap().clone();
        for (endpoint, list) in pool.endpoints().iter().zip([r#"[{"id":"x"}]"#, r#"[{"id":"y"}]"#]) {
            let models = Models::of_openai(format!(r#"{{"data":{list}}}"#).as_bytes());
            endpoint.models.store(models.map(Arc::new));
        }
        pool
    }

    fn wants(model: &str, tenant: &str) -> Demand {
        Demand { model: Some(model.into()), tenant: Some(tenant.into()), ..Demand::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_for_another_model_passes_all_that_wait_for_a_full_one() {
        let pool = pool(100);
        let held = seat(&pool, &wants("x", "t"), &[]).await.unwrap();
        let demand = wants("x", "t");
        let mut waiting: Vec<_> = (0..50).map(|_| Box::pin(seat(&pool, &demand, &[]))).collect();
        assert!(waiting.iter_mut().all(|waiter| waiter.as_mut().now_or_never().is_none()));
        let other = seat(&pool, &wants("y", "t"), &[]).now_or_never().unwrap().unwrap();
        assert_eq!(other.endpoint().id().as_str(), "b");
        drop(held);
        let served = waiting.remove(0).await.unwrap();
        assert_eq!(served.endpoint().id().as_str(), "a");
        drop(waiting);
        assert_eq!(pool.queue.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_are_served_in_turn_and_the_longest_line_gives_way() {
        let pool = pool(4);
        let held = seat(&pool, &wants("x", "many"), &[]).await.unwrap();
        let (many, few) = (wants("x", "many"), wants("x", "few"));
        let mut of_many: Vec<_> = (0..4).map(|_| Box::pin(seat(&pool, &many, &[]))).collect();
        assert!(of_many.iter_mut().all(|waiter| waiter.as_mut().now_or_never().is_none()));
        let mut of_few = Box::pin(seat(&pool, &few, &[]));
        assert!(of_few.as_mut().now_or_never().is_none());
        let pushed_out = of_many.pop().unwrap().await.unwrap_err();
        assert!(matches!(pushed_out, UpstreamError::Overloaded { by_tenant: true, .. }));
        drop(held);
        drop(of_many.remove(0).await.unwrap());
        let second = of_few.now_or_never().expect("it is the other tenant's turn").unwrap();
        assert!(of_many[0].as_mut().now_or_never().is_none());
        drop(second);
    }

    fn of(tenant: &str, priority: Priority) -> Demand {
        Demand { priority, ..wants("x", tenant) }
    }

    #[tokio::test(start_paused = true)]
    async fn the_higher_priority_goes_first_and_the_lowest_still_gets_its_turn() {
        let pool = pool(1_000);
        let (low, high) = (of("a", Priority::Low), of("b", Priority::High));
        let mut held = seat(&pool, &wants("x", "t"), &[]).await.unwrap();
        let mut of_low = Box::pin(seat(&pool, &low, &[]));
        assert!(of_low.as_mut().now_or_never().is_none());
        let mut of_high: Vec<_> = (0..100).map(|_| Box::pin(seat(&pool, &high, &[]))).collect();
        assert!(of_high.iter_mut().all(|waiter| waiter.as_mut().now_or_never().is_none()));
        for served in 0.. {
            drop(held);
            if let Some(seated) = of_low.as_mut().now_or_never() {
                assert!(seated.is_ok());
                assert_eq!(served, 16, "after so many of the others");
                break;
            }
            held = of_high.remove(0).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_sheds_the_lowest_priority_first() {
        let pool = pool(2);
        let _held = seat(&pool, &wants("x", "t"), &[]).await.unwrap();
        let (low, normal, high) =
            (of("a", Priority::Low), of("a", Priority::Normal), of("b", Priority::High));
        let mut of_low = Box::pin(seat(&pool, &low, &[]));
        let mut of_normal = Box::pin(seat(&pool, &normal, &[]));
        assert!(of_low.as_mut().now_or_never().is_none() && of_normal.as_mut().now_or_never().is_none());
        let mut of_high = Box::pin(seat(&pool, &high, &[]));
        assert!(of_high.as_mut().now_or_never().is_none());
        assert!(matches!(
            of_low.now_or_never(),
            Some(Err(UpstreamError::Overloaded { by_tenant: false, .. }))
        ));
        let mut second = Box::pin(seat(&pool, &high, &[]));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(matches!(of_normal.now_or_never(), Some(Err(_))));
        let third = seat(&pool, &normal, &[]).now_or_never();
        assert!(
            matches!(third, Some(Err(UpstreamError::Overloaded { .. }))),
            "nobody of its own or less is there"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_behind_many_for_another_model_is_served_and_not_overtaken() {
        let pool = pool(32);
        let _x = seat(&pool, &wants("x", "t"), &[]).await.unwrap();
        let y = seat(&pool, &wants("y", "t"), &[]).await.unwrap();
        let (for_x, for_y) = (wants("x", "t"), wants("y", "t"));
        let mut many: Vec<_> = (0..20).map(|_| Box::pin(seat(&pool, &for_x, &[]))).collect();
        assert!(many.iter_mut().all(|waiter| waiter.as_mut().now_or_never().is_none()));
        let mut behind = Box::pin(seat(&pool, &for_y, &[]));
        assert!(behind.as_mut().now_or_never().is_none());
        drop(y);
        assert!(Box::pin(seat(&pool, &for_y, &[])).now_or_never().is_none(), "it came later");
        assert!(behind.now_or_never().expect("there is room for it").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_and_no_seat_is_lost() {
        let pool = pool(4);
        let held = seat(&pool, &wants("x", "t"), &[]).await.unwrap();
        let begun = Instant::now();
        let late = seat(&pool, &wants("x", "t"), &[]).await.unwrap_err();
        assert!(matches!(late, UpstreamError::Overloaded { by_tenant: false, .. }));
        assert_eq!(begun.elapsed().as_secs(), pool.config().admission.queue_timeout.as_secs());
        let demand = wants("x", "t");
        let mut leaves = Box::pin(seat(&pool, &demand, &[]));
        assert!(leaves.as_mut().now_or_never().is_none());
        // Its seat is on the way to it when it leaves.
        drop(held);
        drop(leaves);
        assert_eq!(pool.stats().iter().map(|endpoint| endpoint.in_flight).sum::<u32>(), 0);
        assert!(seat(&pool, &wants("x", "t"), &[]).now_or_never().unwrap().is_ok());
        assert!(pool.queue.retry_after() >= Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_returns_is_noticed_though_nobody_left() {
        let pool = pool(4);
        let _held = seat(&pool, &wants("x", "t"), &[]).await.unwrap();
        let demand = Demand::default();
        let first = pool.endpoints()[1].clone();
        first.set_draining(true);
        let mut waits = Box::pin(seat(&pool, &demand, &[]));
        assert!(waits.as_mut().now_or_never().is_none());
        first.set_draining(false);
        assert_eq!(waits.await.unwrap().endpoint().id().as_str(), "b");
    }
}
