//! The task that reads one upstream answer: to the flight at once, along to a record, and to the store at its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use refrain_cache::Lead;
use refrain_core::{Dialect, Identity, Skip};
use refrain_llm::answer::{Answer, AnswerReader};
use refrain_upstream::{Client, UpstreamError, UpstreamRequest, UpstreamResponse, UpstreamStream};

use crate::ask::Asked;
use crate::generate::{FlightHead, form_of};
use crate::lookup::Miss;
use crate::route::RouteState;
use crate::snapshot::AnswerCache;
use crate::{store, upstream_headers};

/// How long an answer that could not be stored keeps identical requests from waiting for each other.
const HIT_FOR_PASS: Duration = Duration::from_secs(60);

/// Everything that makes an answer and its entry, with no tie to the client that caused it.
pub(crate) struct Generation {
    /// The worker's connections.
    pub(crate) client: Client,
    /// The route.
    pub(crate) state: Arc<RouteState>,
    /// Where the entry goes.
    pub(crate) cache: Arc<AnswerCache>,
    /// What is sent.
    pub(crate) request: UpstreamRequest,
    /// What was asked.
    pub(crate) asked: Arc<Asked>,
    /// By whom.
    pub(crate) identity: Arc<Identity>,
    /// Proof that nothing stored may be served.
    pub(crate) miss: Arc<Miss>,
}

impl Generation {
    /// Reads the upstream until it ends or nobody is left.
    pub(crate) async fn pump(self, lead: Lead<Arc<FlightHead>>) {
        let state = self.state.clone();
        tokio::select! {
            done = self.run(&lead) => match done {
                Ok(()) => lead.finish(),
                Err(error) => {
                    tracing::warn!(route = %state.route.id, reason = error.as_str(), %error, "upstream failed");
                    lead.fail(error.code());
                }
            },
            () = lead.abandoned() => state.metrics.skip(Skip::Cancelled),
        }
    }

    async fn run(self, lead: &Lead<Arc<FlightHead>>) -> Result<(), UpstreamError> {
        let begun = Instant::now();
        let Self { client, state, cache, request, asked, identity, miss } = self;
        let response = client.send(&state.pool, request).await?;
        state.metrics.first_byte(response.timings.first_byte);
        let model_now = state.pool.model_identity_at(&response.endpoint, &asked.model);
        let is_model_keyed = model_now.as_deref() == Some(&*miss.model_identity);
        let (head, mut body) = head_of(response, asked.request.prompt.api.dialect());
        lead.head(head.clone());
        let mut tee = Tee::new(&head, &asked, &miss);
        let settle = |answer: Result<Answer, Skip>| {
            let judged = answer.and_then(|answer| {
                if !is_model_keyed {
                    return Err(Skip::ModelChanged);
                }
                store::judge(answer, &miss.plan, &asked.request.prompt)
            });
            let kept = judged.and_then(|answer| {
                let entry = store::entry(&state, (&asked, &miss), &identity, &head, &answer, begun.elapsed());
                let usage = entry.usage;
                cache.store.insert(entry, miss.embedding.clone()).map(|_| state.metrics.stored(usage))
            });
            if let Err(skip) = kept {
                state.metrics.skip(skip);
                if head.status == StatusCode::OK && skip != Skip::NoStore {
                    let until = tokio::time::Instant::now() + HIT_FOR_PASS;
                    cache.flights.mark_uncacheable(*lead.key(), until);
                }
            }
        };
        while let Some(chunk) = body.chunk().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                // What comes after the dialect's terminator is of no meaning.
                Err(_) if tee.is_settled() => return Ok(()),
                Err(error) => {
                    state.metrics.skip(Skip::Incomplete);
                    return Err(error);
                }
            };
            // Before the client sees the end: its next request must find the entry.
            if let Some(answer) = tee.feed(&chunk) {
                settle(answer);
            }
            lead.push(chunk);
            lead.room().await;
        }
        if let Some(answer) = tee.finish() {
            settle(answer);
        }
        Ok(())
    }
}

/// Reads an answer along while it passes.
struct Tee {
    reading: Reading,
    received: u64,
    length: Option<u64>,
}

enum Reading {
    Open(Box<AnswerReader>),
    /// There will be no record of it.
    Lost(Skip),
    Settled,
}

impl Tee {
    fn new(head: &FlightHead, asked: &Asked, miss: &Miss) -> Self {
        let api = asked.request.prompt.api;
        let reading = match head.form {
            Some(form) => Reading::Open(Box::new(AnswerReader::new(api, form, miss.plan.entry_bytes_max))),
            None => Reading::Lost(Skip::Status),
        };
        Self { reading, received: 0, length: head.length }
    }

    fn is_settled(&self) -> bool {
        matches!(self.reading, Reading::Settled)
    }

    /// Takes the next bytes; gives the outcome once, as soon as it is known that nothing of meaning follows.
    fn feed(&mut self, chunk: &Bytes) -> Option<Result<Answer, Skip>> {
        self.received += chunk.len() as u64;
        let Reading::Open(reader) = &mut self.reading else { return None };
        if let Err(error) = reader.feed(chunk) {
            self.reading = Reading::Lost(error.skip());
            return None;
        }
        let complete = reader.is_terminated() || self.length == Some(self.received);
        if complete { self.finish() } else { None }
    }

    /// The outcome, if it was not given yet.
    fn finish(&mut self) -> Option<Result<Answer, Skip>> {
        match std::mem::replace(&mut self.reading, Reading::Settled) {
            Reading::Open(reader) => Some(reader.finish().map_err(|error| error.skip())),
            Reading::Lost(skip) => Some(Err(skip)),
            Reading::Settled => None,
        }
    }
}

fn head_of(response: UpstreamResponse, dialect: Dialect) -> (Arc<FlightHead>, UpstreamStream) {
    let UpstreamResponse { status, mut headers, body, .. } = response;
    upstream_headers::for_client(&mut headers);
    let form = if status == StatusCode::OK { form_of(&headers, dialect) } else { None };
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    (Arc::new(FlightHead { status, headers, form, length }), body)
}
