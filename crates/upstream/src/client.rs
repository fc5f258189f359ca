//! One worker's client: takes a pool's endpoints in order, tries again where that is safe, and hands out the answer.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;
use refrain_core::Tasks;
use refrain_core::settings::Timeouts;
use tokio::time::Instant;

use crate::body::{Lease, Reuse};
use crate::connect::{self, Connection};
use crate::deadline::Timer;
use crate::endpoint::{EndpointState, LoadGuard};
use crate::headers::KeepAlive;
use crate::idle::IdleConnections;
use crate::request::{self, Progress, SentBody};
use crate::response::Timings;
use crate::{
    ClientTls, PoolState, UpstreamBody, UpstreamError, UpstreamRequest, UpstreamResponse, UpstreamStream,
    strip_hop_by_hop,
};

/// The upstream client of one data worker. Clones share its connections; never hand one to another runtime, since
/// connections are driven by the runtime that opened them.
#[derive(Clone, Debug)]
pub struct Client {
    tls: ClientTls,
    tasks: Tasks,
    idle: IdleConnections,
}

impl Client {
    /// A client without connections.
    pub fn new(tls: ClientTls, tasks: Tasks) -> Self {
        Self { tls, idle: IdleConnections::new(tasks.clone()), tasks }
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
        let mut asking = Asking::new(pool, request);
        let mut failed = UpstreamError::NoEndpoint { pool: pool.id().clone() };
        let mut order = pool.order().into_iter().peekable();
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
        if let Some(idle) = asking.takes_idle().then(|| self.idle.take(endpoint.key)).flatten() {
            endpoint.counters.reused.fetch_add(1, Relaxed);
            match self.exchange(asking, endpoint, idle, None).await {
                Err(failure) if asking.may_replace_idle(&failure) => {}
                outcome => return outcome,
            }
        }
        let started = Instant::now();
        let connection = self.open(asking, endpoint).await?;
        self.exchange(asking, endpoint, connection, Some(started.elapsed())).await
    }

    async fn open(
        &self,
        asking: &mut Asking<'_>,
        endpoint: &Arc<EndpointState>,
    ) -> Result<Connection, Failure> {
        let opened = connect::open(endpoint, asking.timeouts.connect, &self.tls, &self.tasks).await;
        match opened {
            Ok(connection) => {
                endpoint.note_reachable();
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
        mut connection: Connection,
        connect: Option<Duration>,
    ) -> Result<UpstreamResponse, Failure> {
        asking.attempts += 1;
        let load = LoadGuard::new(endpoint);
        let started = Instant::now();
        let mut timer = Timer::new(started + asking.timeouts.first_byte.min(asking.timeouts.idle));
        let answered = asking.exchange(endpoint, &mut connection, &mut timer, started).await;
        let response = answered.inspect_err(|_| {
            endpoint.counters.failures.fetch_add(1, Relaxed);
        })?;
        let (mut head, incoming) = response.into_parts();
        let reuse = reuse(&mut connection, &head.headers, asking.pool.config().idle_connections_max);
        strip_hop_by_hop(&mut head.headers);
        let lease = Lease { connection, load, idle: self.idle.clone(), reuse };
        Ok(UpstreamResponse {
            status: head.status,
            headers: head.headers,
            body: UpstreamStream::new(incoming, lease, timer, asking.timeouts.idle, asking.total_deadline()),
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

/// A failed try.
struct Failure {
    error: UpstreamError,
    /// Nothing of the request left this process.
    unsent: bool,
}

/// A request on its way through the tries.
struct Asking<'a> {
    pool: &'a PoolState,
    method: Method,
    path_and_query: PathAndQuery,
    headers: HeaderMap,
    /// None once a streamed body was handed to a connection.
    body: Option<UpstreamBody>,
    timeouts: Timeouts,
    started: Instant,
    attempts: u32,
    /// An idle connection was dead: others likely are too.
    distrusts_idle: bool,
}

impl<'a> Asking<'a> {
    fn new(pool: &'a PoolState, request: UpstreamRequest) -> Self {
        let UpstreamRequest { method, path_and_query, mut headers, body, timeouts } = request;
        request::normalise(&mut headers);
        Self {
            pool,
            method,
            path_and_query,
            headers,
            body: Some(body),
            timeouts,
            started: Instant::now(),
            attempts: 0,
            distrusts_idle: false,
        }
    }

    fn total_deadline(&self) -> Instant {
        self.started + self.timeouts.total
    }

    fn takes_idle(&self) -> bool {
        !self.distrusts_idle
    }

    /// Whether the next endpoint may be asked.
    fn may_move_on(&self, failure: &Failure) -> bool {
        self.body.is_some() && (failure.error.is_unconnected() || self.may_repeat(failure))
    }

    /// Whether a fresh connection may replace an idle one that turned out dead. Once a request.
    fn may_replace_idle(&mut self, failure: &Failure) -> bool {
        self.body.is_some() && self.may_repeat(failure) && !std::mem::replace(&mut self.distrusts_idle, true)
    }

    fn may_repeat(&self, failure: &Failure) -> bool {
        matches!(failure.error, UpstreamError::Reset { .. })
            && (failure.unsent || self.pool.budget.withdraw())
    }

    /// The body for one try; a whole one stays here too.
    fn take_body(&mut self) -> (SentBody, Option<Arc<Mutex<Progress>>>) {
        match self.body.take() {
            Some(UpstreamBody::Full(bytes)) => {
                self.body = Some(UpstreamBody::Full(bytes.clone()));
                (SentBody::Full(bytes), None)
            }
            Some(UpstreamBody::Stream(body)) => {
                let progress = Progress::new(Instant::now());
                (SentBody::Stream(body, progress.clone()), Some(progress))
            }
            None => (SentBody::Full(Bytes::new()), None),
        }
    }

    async fn exchange(
        &mut self,
        endpoint: &EndpointState,
        connection: &mut Connection,
        timer: &mut Timer,
        sent: Instant,
    ) -> Result<Response<Incoming>, Failure> {
        let (body, progress) = self.take_body();
        let request =
            request::build(endpoint, self.method.clone(), &self.path_and_query, self.headers.clone(), body)
                .map_err(|error| Failure { error, unsent: true })?;
        let wait = HeadWait {
            sent,
            first_byte: self.timeouts.first_byte,
            total_deadline: self.total_deadline(),
            progress,
        };
        let answered = wait.wait(endpoint, connection.sender.try_send_request(request), timer).await;
        let response = match answered.map_err(|error| Failure { error, unsent: false })? {
            Ok(response) => response,
            Err(mut failed) => {
                let unsent = failed.take_message().map(Request::into_body);
                return Err(self.failure(endpoint, failed.error(), unsent));
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let detail = "it switches protocols without being asked to";
            let error = UpstreamError::Malformed { endpoint: endpoint.id().clone(), detail };
            return Err(Failure { error, unsent: false });
        }
        Ok(response)
    }

    /// What an error before the response head means. A body that was not sent comes back for the next try.
    fn failure(
        &mut self,
        endpoint: &EndpointState,
        error: &hyper::Error,
        unsent: Option<SentBody>,
    ) -> Failure {
        let is_unsent = unsent.is_some();
        if let Some(SentBody::Stream(body, _)) = unsent {
            self.body = Some(UpstreamBody::Stream(body));
        }
        let endpoint = endpoint.id().clone();
        let error = if error.is_parse_too_large() {
            UpstreamError::Malformed { endpoint, detail: "its head is too large" }
        } else if error.is_parse() {
            UpstreamError::Malformed { endpoint, detail: "it is not HTTP/1" }
        } else if error.is_user() {
            UpstreamError::RequestBody
        } else {
            UpstreamError::Reset { endpoint }
        };
        Failure { error, unsent: is_unsent }
    }
}

/// How long the response head may take.
struct HeadWait {
    sent: Instant,
    first_byte: Duration,
    total_deadline: Instant,
    /// Of a streamed request body.
    progress: Option<Arc<Mutex<Progress>>>,
}

impl HeadWait {
    async fn wait<T>(
        &self,
        endpoint: &EndpointState,
        answer: impl Future<Output = T>,
        timer: &mut Timer,
    ) -> Result<T, UpstreamError> {
        let mut answer = pin!(answer);
        poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            loop {
                let deadline = self.deadline();
                ready!(timer.poll(cx, deadline));
                if self.deadline() <= deadline {
                    return Poll::Ready(Err(self.timed_out(endpoint)));
                }
            }
        })
        .await
    }

    /// Moves on as long as the client still sends.
    fn deadline(&self) -> Instant {
        let owed_since = match &self.progress {
            Some(progress) => progress.lock().upstream_owes_since(Instant::now()),
            None => self.sent,
        };
        self.total_deadline.min(owed_since + self.first_byte)
    }

    fn timed_out(&self, endpoint: &EndpointState) -> UpstreamError {
        let endpoint = endpoint.id().clone();
        if Instant::now() >= self.total_deadline {
            UpstreamError::TotalTimeout { endpoint }
        } else {
            UpstreamError::FirstByteTimeout { endpoint }
        }
    }
}
