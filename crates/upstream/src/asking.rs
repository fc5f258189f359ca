//! One request on its way through the tries: what of it can be sent again, and how long its head may take.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use parking_lot::Mutex;
use refrain_core::settings::Timeouts;
use tokio::time::Instant;

use crate::admission::Seat;
use crate::connection::{Connection, Told, Unanswered, WireFault};
use crate::endpoint::EndpointState;
use crate::ledger::Charge;
use crate::request::{self, Outgoing, Progress, SentBody};
use crate::response::Head;
use crate::{PoolState, UpstreamBody, UpstreamError, UpstreamRequest};

/// Most connections to one endpoint that are taken in place of others, for one request that no server processed.
const REPLACEMENTS_MAX: u32 = 3;

/// A failed try.
pub(crate) struct Failure {
    pub(crate) error: UpstreamError,
    /// Nothing of the request left this process, or the server says that it did not process it.
    pub(crate) unsent: bool,
    /// Whether its cause is news.
    pub(crate) told: Told,
}

impl Failure {
    fn sent(error: UpstreamError) -> Self {
        Self { error, unsent: false, told: Told::First }
    }
}

/// A request on its way through the tries.
pub(crate) struct Asking<'a> {
    pub(crate) pool: &'a Arc<PoolState>,
    /// Where it is being sent.
    pub(crate) seat: Option<Seat>,
    /// Where its cost is put down.
    charge: Option<Charge>,
    method: Method,
    path_and_query: PathAndQuery,
    headers: HeaderMap,
    /// None once a streamed body was handed to a connection.
    body: Option<UpstreamBody>,
    pub(crate) timeouts: Timeouts,
    started: Instant,
    /// How long it had to wait for room at an endpoint, the first time.
    pub(crate) waited: Duration,
    /// Connections tried so far, with or without success.
    pub(crate) attempts: u32,
    /// An idle connection was dead: others likely are too.
    distrusts_idle: bool,
    /// Times that another connection to the same endpoint was taken.
    replacements: u32,
}

impl<'a> Asking<'a> {
    pub(crate) fn new(pool: &'a Arc<PoolState>, request: UpstreamRequest) -> Self {
        let UpstreamRequest { method, path_and_query, mut headers, body, timeouts, demand: _, charge } =
            request;
        request::normalise(&mut headers);
        Self {
            pool,
            seat: None,
            charge,
            method,
            path_and_query,
            headers,
            body: Some(body),
            timeouts,
            started: Instant::now(),
            waited: Duration::ZERO,
            attempts: 0,
            distrusts_idle: false,
            replacements: 0,
        }
    }

    /// It is sent to this seat's endpoint next, at its own cost.
    pub(crate) fn sit(&mut self, mut seat: Seat) {
        if let Some(charge) = &self.charge {
            seat.charge(charge.clone());
        }
        self.seat = Some(seat);
    }

    /// There is room for it at an endpoint.
    pub(crate) fn seated(&mut self) {
        self.waited = self.started.elapsed();
    }

    pub(crate) fn total_deadline(&self) -> Instant {
        self.started + self.timeouts.total
    }

    /// A try that came to no connection.
    pub(crate) fn never_connected(&mut self, error: UpstreamError, told: Told) -> Failure {
        self.attempts += 1;
        Failure { error, unsent: true, told }
    }

    pub(crate) fn takes_idle(&self) -> bool {
        !self.distrusts_idle
    }

    /// Whether the next endpoint may be asked.
    pub(crate) fn may_move_on(&self, failure: &Failure) -> bool {
        self.body.is_some() && (failure.error.is_unconnected() || self.may_repeat(failure))
    }

    /// Whether another connection to the same endpoint may replace one that turned out dead: once a request, or a few times
    /// if the server says of each that it did nothing.
    pub(crate) fn may_replace(&mut self, failure: &Failure) -> bool {
        let max = if failure.unsent { REPLACEMENTS_MAX } else { 1 };
        let may = self.body.is_some() && self.replacements < max && self.may_repeat(failure);
        self.distrusts_idle |= may;
        self.replacements += u32::from(may);
        may
    }

    /// Whether another endpoint may be asked though this one has answered, that it can't: nothing was generated.
    pub(crate) fn may_ask_elsewhere(&self) -> bool {
        self.body.is_some() && self.pool.budget.withdraw()
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

    /// Sends it over a connection and waits for the response head.
    pub(crate) async fn exchange(
        &mut self,
        endpoint: &EndpointState,
        connection: &mut Connection,
        sent: Instant,
    ) -> Result<Head, Failure> {
        let (body, progress) = self.take_body();
        Outgoing::new(endpoint, &self.method, &self.path_and_query, &self.headers, body)
            .and_then(|request| connection.send(request))
            .map_err(|error| Failure { error, unsent: true, told: Told::First })?;
        let wait = HeadWait {
            sent,
            first_byte: self.timeouts.first_byte,
            total_deadline: self.total_deadline(),
            progress,
        };
        let answered = wait.wait(endpoint, connection).await.map_err(Failure::sent)?;
        answered.map_err(|unanswered| self.failure(endpoint, unanswered))
    }

    /// What an error before the response head means. A body that was not sent comes back for the next try.
    fn failure(&mut self, endpoint: &EndpointState, unanswered: Unanswered) -> Failure {
        let Unanswered { fault, told, is_unsent, body } = unanswered;
        if let Some(SentBody::Stream(body, _)) = body {
            self.body = Some(UpstreamBody::Stream(body));
        }
        let endpoint = endpoint.id().clone();
        let error = match fault {
            WireFault::Lost => UpstreamError::Reset { endpoint },
            WireFault::Malformed(detail) => UpstreamError::Malformed { endpoint, detail },
            WireFault::RequestBody => UpstreamError::RequestBody,
        };
        Failure { error, unsent: is_unsent, told }
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
    async fn wait(
        &self,
        endpoint: &EndpointState,
        connection: &mut Connection,
    ) -> Result<Result<Head, Unanswered>, UpstreamError> {
        poll_fn(|cx| {
            if let Poll::Ready(answer) = connection.poll_head(cx) {
                return Poll::Ready(Ok(answer));
            }
            loop {
                let deadline = self.deadline();
                ready!(connection.poll_deadline(cx, deadline));
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
