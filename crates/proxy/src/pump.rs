//! What reads one upstream answer: to the flight at once, along to a reader, and to the store at its end.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use refrain_cache::Lead;
use refrain_core::{Api, Dialect, Skip};
use refrain_llm::answer::{AnswerReader, Encoded};
use refrain_upstream::{Client, UpstreamError, UpstreamRequest, UpstreamResponse, UpstreamStream};

use crate::generate::{FlightHead, form_of};
use crate::origin::{Bill, Dispatched};
use crate::pass;
use crate::store::{Keeper, Provenance};

/// One upstream request and what becomes of its answer, with no tie to the client that caused it.
pub(crate) struct Generation {
    /// The worker's connections.
    pub(crate) client: Client,
    /// What is sent.
    pub(crate) request: UpstreamRequest,
    /// Who decides about storing.
    pub(crate) keeper: Keeper,
    /// Who pays.
    pub(crate) bill: Arc<Bill>,
}

impl Generation {
    /// Reads the upstream until it ends or nobody is left.
    pub(crate) async fn pump(self, lead: Lead<Arc<FlightHead>>) {
        let Self { client, request, keeper, bill } = self;
        let done = tokio::select! {
            biased;
            done = run(&client, request, (&keeper, bill), &lead) => Some(done),
            () = lead.abandoned() => None,
        };
        // Whoever asks the same from now on joins, until it is stored.
        keeper.conclude().await;
        match done {
            Some(Ok(())) => lead.finish(),
            Some(Err(error)) => {
                tracing::warn!(route = %keeper.state().route.id, reason = error.as_str(), %error, "upstream failed");
                keeper.failed();
                lead.fail(error.code());
            }
            None => keeper.abandoned(),
        }
    }
}

async fn run(
    client: &Client,
    request: UpstreamRequest,
    (keeper, bill): (&Keeper, Arc<Bill>),
    lead: &Lead<Arc<FlightHead>>,
) -> Result<(), UpstreamError> {
    let begun = Instant::now();
    let response = {
        let sending = pin!(client.send(&keeper.miss.keyed.planned.target.pool, request));
        meanwhile(sending, || keeper.look_ahead()).await?
    };
    keeper.state().metrics.first_byte(response.timings);
    // What it takes of a server begins when there is room at one.
    let begun = begun + response.timings.waited;
    let api = keeper.miss.keyed.planned.asked.request.prompt.api;
    let (from, mut body) = provenance(response, api.dialect(), bill);
    lead.head(from.head.clone());
    let mut passing = Passing::new((keeper, from, begun), api);
    while let Some(chunk) = body.chunk().await {
        match chunk {
            Ok(chunk) => passing.pass(chunk, lead),
            // What comes after the dialect's terminator is of no meaning.
            Err(_) if passing.tee.is_settled() => break,
            Err(error) => {
                keeper.broke_off();
                return Err(error);
            }
        }
        lead.room().await;
    }
    passing.end();
    Ok(())
}

/// A future, and work that is done once while it is waited for; not at all, if it is ready at once.
async fn meanwhile<F: Future>(mut future: Pin<&mut F>, work: impl FnOnce()) -> F::Output {
    let mut work = Some(work);
    poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        if polled.is_pending()
            && let Some(work) = work.take()
        {
            work();
        }
        polled
    })
    .await
}

/// An answer on its way to its flight, and to the store.
struct Passing<'k> {
    keeper: &'k Keeper,
    from: Provenance,
    begun: Instant,
    tee: Tee,
}

impl<'k> Passing<'k> {
    fn new((keeper, from, begun): (&'k Keeper, Provenance, Instant), api: Api) -> Self {
        let tee = Tee::new(&from.head, api, keeper.miss.keyed.plan.entry_bytes_max);
        Self { keeper, from, begun, tee }
    }

    fn pass(&mut self, chunk: Bytes, lead: &Lead<Arc<FlightHead>>) {
        // Before the client sees the end: its next request, or a purge, must find the entry.
        if let Some(answer) = self.tee.feed(&chunk) {
            self.settle(answer);
        }
        lead.push(chunk);
    }

    fn end(mut self) {
        if let Some(answer) = self.tee.finish() {
            self.settle(answer);
        }
    }

    fn settle(&self, answer: Result<Encoded, Skip>) {
        self.keeper.settle(answer, &self.from, self.begun.elapsed());
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
    fn new(head: &FlightHead, api: Api, bytes_max: usize) -> Self {
        let reading = match head.form {
            Some(form) => Reading::Open(Box::new(AnswerReader::new(api, form, bytes_max))),
            None => Reading::Lost(Skip::Status),
        };
        Self { reading, received: 0, length: head.length }
    }

    fn is_settled(&self) -> bool {
        matches!(self.reading, Reading::Settled)
    }

    /// Takes the next bytes; gives the outcome once, as soon as it is known that nothing of meaning follows.
    fn feed(&mut self, chunk: &Bytes) -> Option<Result<Encoded, Skip>> {
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
    fn finish(&mut self) -> Option<Result<Encoded, Skip>> {
        match std::mem::replace(&mut self.reading, Reading::Settled) {
            Reading::Open(reader) => Some(reader.finish_encoded().map_err(|error| error.skip())),
            Reading::Lost(skip) => Some(Err(skip)),
            Reading::Settled => None,
        }
    }
}

fn provenance(response: UpstreamResponse, dialect: Dialect, bill: Arc<Bill>) -> (Provenance, UpstreamStream) {
    let dispatched = Arc::new(Dispatched::of(&response).billed(bill));
    let UpstreamResponse { status, headers, body, endpoint, attempts: _, timings: _ } = response;
    let form = if status == StatusCode::OK { form_of(&headers, dialect) } else { None };
    let length = pass::announced(&headers);
    (Provenance { head: Arc::new(FlightHead { status, headers, form, length, dispatched }), endpoint }, body)
}
