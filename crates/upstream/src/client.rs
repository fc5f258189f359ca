//! One worker's client: takes a pool's endpoints in order, tries again where that is safe, and hands out the answer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::HeaderMap;
use refrain_core::{Fault, Tasks};
use tokio::time::Instant;

use crate::asking::{Asking, Failure};
use crate::body::{Lease, Reuse};
use crate::connect::{self, Connection};
use crate::endpoint::{EndpointState, LoadGuard};
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

    /// Asks a pool: the endpoint whose turn it is, then the next ones, each at most once.
    ///
    /// Another endpoint is asked only if connecting failed, or if the connection broke before the response head, the
    /// body is [`UpstreamBody::Full`] and the pool's retry budget allows it; never after a time-out of the answer. Once
    /// a request, an idle connection that turns out dead is replaced by a fresh one to the same endpoint, so that a
    /// server's keep-alive limit does not move a conversation away from its prefix cache.
    ///
    /// # Errors
    /// The last try's.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection that is in use, so that the upstream stops working.
    pub async fn send(
        &self,
        pool: &PoolState,
        request: UpstreamRequest,
    ) -> Result<UpstreamResponse, UpstreamError> {
        pool.budget.deposit();
        let mut order = pool.order(request.routing_key.as_ref()).into_iter().peekable();
        let mut asking = Asking::new(pool, request);
        let mut failed = UpstreamError::NoEndpoint { pool: pool.id().clone() };
        while let Some(index) = order.next() {
            let failure = match self.ask(&mut asking, &pool.endpoints()[index]).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            failed = failure.error.clone();
            if order.peek().is_none() || !asking.may_move_on(&failure) {
                break;
            }
        }
        Err(failed)
    }

    /// Asks one endpoint of a pool, whatever its turn or state.
    ///
    /// # Errors
    /// The last try's.
    ///
    /// # Cancel safety
    /// As [`Client::send`].
    pub async fn send_to(
        &self,
        pool: &PoolState,
        endpoint: &Arc<EndpointState>,
        request: UpstreamRequest,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let mut asking = Asking::new(pool, request);
        self.ask(&mut asking, endpoint).await.map_err(|failure| failure.error)
    }

    /// One endpoint: an idle connection, and a fresh one if that was dead or there is none.
    async fn ask(
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
                endpoint.note_unreachable(std::time::Instant::now());
                endpoint.counters.failures.fetch_add(1, Relaxed);
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
        let load = LoadGuard::new(endpoint);
        let answered = asking.exchange(endpoint, &mut connection, started).await;
        let response = answered.inspect_err(|failure| {
            let blamed = failure.error.fault() == Fault::Upstream;
            endpoint.counters.failures.fetch_add(u64::from(blamed), Relaxed);
        })?;
        endpoint.note_reachable();
        let (mut head, incoming) = response.into_parts();
        let reuse = reuse(&mut connection, &head.headers, asking.pool.config().idle_connections_max);
        strip_hop_by_hop(&mut head.headers);
        let lease = Lease { connection, load, idle: self.0.idle.clone(), reuse };
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
