//! One worker's client: takes a pool's endpoints in order, tries again where that is safe, and hands out the answer.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::StatusCode;
use refrain_core::Tasks;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::admission::{self, Seat};
use crate::asking::{Asking, Failure};
use crate::balance::{self, Choice};
use crate::body::{Lease, Reuse};
use crate::clock::Millis;
use crate::connect::{Opened, Opener};
use crate::connection::{Connection, Told};
use crate::connections::{CheckOut, Connections, Handover, Need, Permit, Waiting};
use crate::endpoint::EndpointState;
use crate::headers::KeepAlive;
use crate::response::Timings;
use crate::{ClientTls, PoolState, UpstreamError, UpstreamRequest, UpstreamResponse, UpstreamStream};

/// The upstream client of one data worker. Clones share its connections; never hand one to another runtime, since
/// connections are registered with the runtime that opened them.
#[derive(Clone, Debug)]
pub struct Client(Arc<Parts>);

/// Behind one reference.
#[derive(Debug)]
struct Parts {
    tls: ClientTls,
    connections: Arc<Connections>,
}

impl Client {
    /// A client without connections.
    pub fn new(tls: ClientTls, tasks: Tasks) -> Self {
        Self(Arc::new(Parts { tls, connections: Connections::new(tasks) }))
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
        let give_up = asking.total_deadline();
        let mut seat = admission::seat(pool, &demand, &tried, give_up).await?;
        asking.seated();
        loop {
            tried.push(seat.endpoint().key);
            // What is given up here is dropped before anything else is waited for: it shall take nobody's place.
            let (next, failed) = match self.ask(&mut asking, seat).await {
                Ok(busy) if busy.status == StatusCode::SERVICE_UNAVAILABLE => {
                    match balance::choose(pool, &demand, &tried, Millis::now()) {
                        Choice::Nobody => return Ok(busy),
                        _ if !asking.may_ask_elsewhere() => return Ok(busy),
                        Choice::Seat(next) => (Some(next), None),
                        Choice::Full => (None, None),
                    }
                }
                Ok(response) => return Ok(response),
                Err(failure) if asking.may_move_on(&failure) => (None, Some(failure.error)),
                Err(failure) => return Err(failure.error),
            };
            seat = match next {
                Some(next) => next,
                None => match admission::seat(pool, &demand, &tried, give_up).await {
                    Err(nobody @ UpstreamError::NoEndpoint { .. }) => return Err(failed.unwrap_or(nobody)),
                    next => next?,
                },
            };
        }
    }

    /// Asks one endpoint of a pool, whatever its turn, state or load. What comes of it is not held for or against it: that a
    /// server lists its models says nothing of its answers, and one that still loads is not broken.
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
        asking.seat = Some(Seat::beyond_limits(pool, endpoint));
        self.connect_and_ask(&mut asking, endpoint).await.map_err(|failure| failure.error)
    }

    /// One endpoint, and what its answer tells of its health.
    async fn ask(&self, asking: &mut Asking<'_>, seat: Seat) -> Result<UpstreamResponse, Failure> {
        let endpoint = seat.endpoint().clone();
        asking.sit(seat);
        let answered = self.connect_and_ask(asking, &endpoint).await;
        let ejection = asking.pool.config().health.ejection;
        match &answered {
            Ok(response) => endpoint.note_answer(response.status, &response.headers, ejection),
            Err(failure) => endpoint.note_error(&failure.error, failure.told, ejection),
        }
        // After that: whoever takes it next shall know.
        asking.seat = None;
        answered
    }

    /// One endpoint: a connection that is open, and another if that was dead or there is none.
    async fn connect_and_ask(
        &self,
        asking: &mut Asking<'_>,
        endpoint: &Arc<EndpointState>,
    ) -> Result<UpstreamResponse, Failure> {
        loop {
            let obtained = self.obtain(asking, endpoint).await?;
            let is_fresh = obtained.connect.is_some() && matches!(obtained.connection, Connection::Own(_));
            match self.exchange(asking, endpoint, obtained).await {
                Err(failure) if !is_fresh && asking.may_replace(&failure) => {}
                outcome => return outcome,
            }
        }
    }

    /// A connection to an endpoint, within the connect time-out.
    async fn obtain(
        &self,
        asking: &mut Asking<'_>,
        endpoint: &Arc<EndpointState>,
    ) -> Result<Obtained, Failure> {
        let now = Instant::now();
        let need = Need {
            now,
            endpoint_key: endpoint.key,
            connections_max: asking.pool.config().connections_max,
            shares: endpoint.is_likely_shared(),
            trusts_idle: asking.takes_idle(),
        };
        match self.0.connections.check_out(need) {
            CheckOut::Ready(connection) => Ok(Obtained::reused(endpoint, connection, now)),
            CheckOut::Open(permit) => Box::pin(self.open(asking, endpoint, permit, now)).await,
            CheckOut::Wait(waiting) => Box::pin(self.wait(asking, endpoint, waiting)).await,
            CheckOut::Full => Err(asking.never_connected(endpoint.at_limit(), Told::First)),
        }
    }

    /// Waits for a connection, or for the right to open one.
    async fn wait(
        &self,
        asking: &mut Asking<'_>,
        endpoint: &Arc<EndpointState>,
        waiting: Waiting,
    ) -> Result<Obtained, Failure> {
        let started = Instant::now();
        match waiting.turn(started + asking.timeouts.connect).await {
            Some(Handover::Ready(connection)) => Ok(Obtained::reused(endpoint, connection, Instant::now())),
            Some(Handover::Open(permit)) => self.open(asking, endpoint, permit, started).await,
            Some(Handover::Failed(error)) => Err(asking.never_connected(error, Told::Before)),
            None => Err(asking.never_connected(endpoint.at_limit(), Told::First)),
        }
    }

    async fn open(
        &self,
        asking: &mut Asking<'_>,
        endpoint: &Arc<EndpointState>,
        permit: Permit,
        started: Instant,
    ) -> Result<Obtained, Failure> {
        let Parts { tls, connections } = &*self.0;
        let opener = Opener { tls, tasks: &connections.tasks };
        let connection = match opener.open(endpoint, started + asking.timeouts.connect).await {
            Ok(Opened::Http1(line)) => {
                endpoint.chose_http1.store(true, Relaxed);
                connections.own(permit, line)
            }
            Ok(Opened::Http2(line)) => {
                endpoint.chose_http1.store(false, Relaxed);
                connections.share(permit, line)
            }
            Err(error) => {
                connections.failed(permit, &error);
                return Err(asking.never_connected(error, Told::First));
            }
        };
        endpoint.counters.opened.fetch_add(1, Relaxed);
        let at = Instant::now();
        Ok(Obtained { connection, connect: Some(at - started), at })
    }

    /// One request on one connection, up to the response head.
    async fn exchange(
        &self,
        asking: &mut Asking<'_>,
        endpoint: &Arc<EndpointState>,
        Obtained { mut connection, connect, at: started }: Obtained,
    ) -> Result<UpstreamResponse, Failure> {
        asking.attempts += 1;
        endpoint.counters.requests.fetch_add(1, Relaxed);
        let head = asking.exchange(endpoint, &mut connection, started).await?;
        let reuse = reuse(&mut connection, head.keep_alive, asking.pool.config().idle_connections_max);
        // Who asks has seated it.
        let seat = asking.seat.take().unwrap_or_else(|| Seat::beyond_limits(asking.pool, endpoint));
        let lease = Lease { connection, seat, connections: self.0.connections.clone(), reuse };
        Ok(UpstreamResponse {
            status: head.status,
            headers: head.headers,
            body: UpstreamStream::new(lease, asking.timeouts.idle, asking.total_deadline()),
            endpoint: endpoint.id().clone(),
            attempts: asking.attempts,
            timings: Timings { waited: asking.waited, connect, first_byte: started.elapsed() },
        })
    }
}

/// A connection, and how it was come by.
struct Obtained {
    connection: Connection,
    /// How long it took to open; none if it was open.
    connect: Option<Duration>,
    /// Since when it is there.
    at: Instant,
}

impl Obtained {
    fn reused(endpoint: &EndpointState, connection: Connection, at: Instant) -> Self {
        endpoint.counters.reused.fetch_add(1, Relaxed);
        Self { connection, connect: None, at }
    }
}

/// Notes what the upstream says about reuse, and decides. `max` counts all requests of a connection (llama.cpp repeats
/// it) or those that are left (Apache counts down); the first one said holds, which suits both. A shared connection needs no
/// decision.
fn reuse(connection: &mut Connection, hint: KeepAlive, count_max: usize) -> Reuse {
    let Connection::Own(line) = connection else { return Reuse::No };
    line.served += 1;
    line.served_max = line.served_max.or(hint.max);
    if hint.close || line.served_max.is_some_and(|max| line.served >= max) {
        return Reuse::No;
    }
    Reuse::Yes { announced: hint.timeout, count_max }
}
