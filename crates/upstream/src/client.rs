//! One worker's client: takes a pool's endpoints in order, tries again where that is safe, and hands out the answer.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use refrain_core::Tasks;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::admission::{self, Seat};
use crate::asking::{Asking, Failure};
use crate::balance::{self, Choice};
use crate::body::{Lease, Reuse};
use crate::clock::Millis;
use crate::connect::{self, Connection};
use crate::endpoint::EndpointState;
use crate::headers::KeepAlive;
use crate::idle::IdleConnections;
use crate::response::Timings;
use crate::{
    ClientTls, PoolState, UpstreamError, UpstreamRequest, UpstreamResponse, UpstreamStream, strip_hop_by_hop,
};

/// The upstream client of one data worker. Clones share its connections; never hand one to another runtime, since
/// connections are registered with the runtime that opened them.
#[derive(Clone, Debug)]
pub struct Client(Arc<Parts>);

/// Behind one reference.
#[derive(Debug)]
struct Parts {
    tls: ClientTls,
    idle: Arc<IdleConnections>,
}

impl Client {
    /// A client without connections.
    pub fn new(tls: ClientTls, tasks: Tasks) -> Self {
        Self(Arc::new(Parts { tls, idle: IdleConnections::new(tasks) }))
    }

    /// Asks a pool: the endpoint that suits the request best, then the next ones, each at most once. Waits for room at one, as
    /// long as the pool lets requests wait.
    ///
    /// Another endpoint is asked only if connecting failed, or if the connection broke before the response head or the
    /// answer says that the server is busy (503), the body is [`UpstreamBody::Full`] and the pool's retry budget allows it;
    /// never after a time-out of the answer. Once a request, an idle connection that turns out dead is replaced by a fresh one
    /// to the same endpoint, so that a server's keep-alive limit does not move a conversation away from its prefix cache.
    ///
    /// # Errors
    /// The last try's, or why it was not tried.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection that is in use, so that the upstream stops working.
    pub async fn send(
        &self,
        pool: &Arc<PoolState>,
        mut request: UpstreamRequest,
    ) -> Result<UpstreamResponse, UpstreamError> {
        pool.budget.deposit();
        let demand = mem::take(&mut request.demand);
        let mut asking = Asking::new(pool, request);
        let mut tried: SmallVec<[u64; 4]> = SmallVec::new();
        let mut seat = admission::seat(pool, &demand, &tried).await?;
        loop {
            tried.push(seat.endpoint().key);
            let failure = match self.ask(&mut asking, seat).await {
                Ok(response) if response.status == StatusCode::SERVICE_UNAVAILABLE => {
                    let other = balance::choose(pool, &demand, &tried, Millis::now());
                    match other {
                        Choice::Seat(next) if asking.may_ask_elsewhere() => seat = next,
                        _ => return Ok(response),
                    }
                    continue;
                }
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            if !asking.may_move_on(&failure) {
                return Err(failure.error);
            }
            seat = match admission::seat(pool, &demand, &tried).await {
                Err(UpstreamError::NoEndpoint { .. }) => return Err(failure.error),
                next => next?,
            };
        }
    }

    /// Asks one endpoint of a pool, whatever its turn, state or load.
    ///
    /// # Errors
    /// The last try's.
    ///
    /// # Cancel safety
    /// As [`Client::send`].
    pub async fn send_to(
        &self,
        pool: &Arc<PoolState>,
        endpoint: &Arc<EndpointState>,
        request: UpstreamRequest,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let mut asking = Asking::new(pool, request);
        let seat = Seat::beyond_limits(pool, endpoint);
        self.ask(&mut asking, seat).await.map_err(|failure| failure.error)
    }

    /// One endpoint, and what its answer tells of its health.
    async fn ask(&self, asking: &mut Asking<'_>, seat: Seat) -> Result<UpstreamResponse, Failure> {
        let endpoint = seat.endpoint().clone();
        asking.seat = Some(seat);
        let answered = self.connect_and_ask(asking, &endpoint).await;
        asking.seat = None;
        let ejection = asking.pool.config().health.ejection;
        match &answered {
            Ok(response) => endpoint.note_answer(response.status, &response.headers, ejection),
            Err(failure) => endpoint.note_error(&failure.error, ejection),
        }
        answered
    }

    /// One endpoint: an idle connection, and a fresh one if that was dead or there is none.
    async fn connect_and_ask(
        &self,
        asking: &mut Asking<'_>,
        endpoint: &Arc<EndpointState>,
    ) -> Result<UpstreamResponse, Failure> {
        let started = Instant::now();
        if let Some(idle) = asking.takes_idle().then(|| self.0.idle.take(endpoint.key, started)).flatten() {
            endpoint.counters.reused.fetch_add(1, Relaxed);
            match self.exchange(asking, endpoint, (idle, started), None).await {
                Err(failure) if asking.may_replace_idle(&failure) => {}
                outcome => return outcome,
            }
        }
        let started = Instant::now();
        let connection = self.open(asking, endpoint).await?;
        let opened = Instant::now();
        self.exchange(asking, endpoint, (connection, opened), Some(opened - started)).await
    }

    async fn open(
        &self,
        asking: &mut Asking<'_>,
        endpoint: &Arc<EndpointState>,
    ) -> Result<Connection, Failure> {
        let opened = connect::open(endpoint, asking.timeouts.connect, &self.0.tls).await;
        match opened {
            Ok(connection) => {
                endpoint.counters.opened.fetch_add(1, Relaxed);
                Ok(connection)
            }
            Err(error) => {
                asking.attempts += 1;
                Err(Failure { error, unsent: true })
            }
        }
    }

    /// One request on one connection, up to the response head.
    async fn exchange(
        &self,
        asking: &mut Asking<'_>,
        endpoint: &Arc<EndpointState>,
        (mut connection, started): (Connection, Instant),
        connect: Option<Duration>,
    ) -> Result<UpstreamResponse, Failure> {
        asking.attempts += 1;
        endpoint.counters.requests.fetch_add(1, Relaxed);
        let answered = asking.exchange(endpoint, &mut connection, started).await;
        let response = answered?;
        let (mut head, incoming) = response.into_parts();
        let reuse = reuse(&mut connection, &head.headers, asking.pool.config().idle_connections_max);
        strip_hop_by_hop(&mut head.headers);
        // Who asks has seated it.
        let seat = asking.seat.take().unwrap_or_else(|| Seat::beyond_limits(asking.pool, endpoint));
        let lease = Lease { connection, seat, idle: self.0.idle.clone(), reuse };
        Ok(UpstreamResponse {
            status: head.status,
            headers: head.headers,
            body: UpstreamStream::new(incoming, lease, asking.timeouts.idle, asking.total_deadline()),
            endpoint: endpoint.id().clone(),
            attempts: asking.attempts,
            timings: Timings { connect, first_byte: started.elapsed() },
        })
    }
}

/// Notes what the upstream says about reuse, and decides. `max` counts all requests of a connection (llama.cpp repeats
/// it) or those that are left (Apache counts down); the first one said holds, which suits both.
fn reuse(connection: &mut Connection, headers: &HeaderMap, count_max: usize) -> Reuse {
    let hint = KeepAlive::of(headers);
    connection.served += 1;
    connection.served_max = connection.served_max.or(hint.max);
    if hint.close || connection.served_max.is_some_and(|max| connection.served >= max) {
        return Reuse::No;
    }
    Reuse::Yes { announced: hint.timeout, count_max }
}
