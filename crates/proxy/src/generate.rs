//! Eighth stage: a miss is generated, shared with whoever asks the same meanwhile, and offered to the store.
//!
//! The upstream is read by a task of its own, the pump: every client of the answer, the first one too, reads from the
//! flight. So a client that leaves ends nothing for the others, and the upstream is cancelled when nobody is left.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use refrain_cache::{FlightEnd, Found, Joined, Lead, Reader, unix_ms};
use refrain_core::{Bypass, Code, Dialect};
use refrain_llm::answer::Form;
use refrain_llm::request::Rewrite;
use refrain_upstream::UpstreamBody;

use crate::ask::Asked;
use crate::cache_status::Tier;
use crate::failure::Failure;
use crate::lookup::{self, Hit, Miss};
use crate::pump::Generation;
use crate::request::{Admitted, Note};
use crate::snapshot::AnswerCache;
use crate::store::Keeper;
use crate::upstream_headers::{self, Encoding};
use crate::worker::Worker;

/// Leaders that may die under one follower before it is told.
const LEADERS_MAX: usize = 3;

/// What every reader of a flight learns first.
#[derive(Debug)]
pub struct FlightHead {
    /// The upstream's status.
    pub(crate) status: StatusCode,
    /// The upstream's headers, without what concerns its connection.
    pub(crate) headers: HeaderMap,
    /// How the body comes; none: as it is, it can't be read (an error, a foreign type).
    pub(crate) form: Option<Form>,
    /// Length of the body, if announced.
    pub(crate) length: Option<u64>,
}

/// How a client came to its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// It was asked for this client.
    Led,
    /// It was under way.
    Joined,
}

/// Where the answer comes from after all.
pub(crate) enum Generated {
    /// It is being generated.
    Flight(Flight),
    /// Another request had it stored between this one's look-up and its turn.
    Stored(Hit),
}

/// An answer under way whose head is known.
pub(crate) struct Flight {
    /// The upstream's head.
    pub(crate) head: Arc<FlightHead>,
    /// The body.
    pub(crate) reader: Reader<Arc<FlightHead>>,
    /// How this client came to it.
    pub(crate) part: Part,
}

/// Starts or joins the generation of the answer, and waits for its head.
///
/// # Errors
/// What the upstream's failure before its head means to the client.
///
/// # Cancel safety
/// Safe: dropping the future leaves the flight; others go on.
pub(crate) async fn answer(
    worker: &Arc<Worker>,
    cache: &Arc<AnswerCache>,
    admitted: &Admitted,
    (asked, miss): (&Arc<Asked>, Miss),
    note: &mut Note,
) -> Result<Generated, Failure> {
    let miss = Arc::new(miss);
    for _ in 0..LEADERS_MAX {
        let (lead, mut reader) = join(cache, admitted, &miss, note);
        let part = if lead.is_some() { Part::Led } else { Part::Joined };
        if let Some(lead) = lead {
            if let Some(hit) = stored_meanwhile(cache, &miss).await {
                return Ok(Generated::Stored(hit));
            }
            let generation = generation(worker, cache, admitted, asked, &miss)?;
            worker.tasks.spawn(generation.pump(lead));
        }
        match reader.head().await {
            Ok(head) => return Ok(Generated::Flight(Flight { head, reader, part })),
            // Its leader found it stored, or died. Looking first keeps a crowd from leading one after the other.
            Err(FlightEnd::LeaderGone) if part == Part::Joined => {
                if let Some(hit) = stored_meanwhile(cache, &miss).await {
                    return Ok(Generated::Stored(hit));
                }
            }
            Err(end) => return Err(Failure::from(end)),
        }
    }
    Err(Failure::from(FlightEnd::LeaderGone))
}

/// An entry is stored before its flight ends, so who leads after a miss looks once more: embedding takes longer than some
/// generations.
async fn stored_meanwhile(cache: &AnswerCache, miss: &Miss) -> Option<Hit> {
    match cache.store.find(&miss.key, unix_ms()).await {
        Found::Hit(entry) if lookup::may_serve(&entry, &miss.plan) => Some(Hit { entry, tier: Tier::Exact }),
        Found::Hit(_) | Found::Miss => None,
    }
}

/// The code that a flight's end means to a reader.
pub(crate) fn code_of(end: FlightEnd) -> Code {
    match end {
        FlightEnd::Failed(code) => code,
        FlightEnd::Complete | FlightEnd::LeaderGone | FlightEnd::Lagged => Code::UpstreamBroken,
    }
}

impl From<FlightEnd> for Failure {
    fn from(end: FlightEnd) -> Self {
        Self::upstream(code_of(end))
    }
}

/// A lead if this request is to be generated for itself or as the first.
fn join(
    cache: &AnswerCache,
    admitted: &Admitted,
    miss: &Miss,
    note: &mut Note,
) -> (Option<Lead<Arc<FlightHead>>>, Reader<Arc<FlightHead>>) {
    let key = miss.key.key;
    let flights = &cache.flights;
    let directives = &miss.plan.directives;
    // Who wants a fresh answer can't have one that was begun before; who forbids storing isn't shared either.
    let shares =
        miss.plan.collapse && !directives.no_cache && !directives.no_store && directives.max_age.is_none();
    if shares {
        match flights.join(key) {
            Joined::Lead(lead, reader) => return (Some(lead), reader),
            Joined::Follow(reader) => return (None, reader),
            Joined::Pass => {
                admitted.state().metrics.bypass(Bypass::HitForPass);
                note.detail = Bypass::HitForPass.as_str();
            }
        }
    }
    let (lead, reader) = flights.solo(key);
    (Some(lead), reader)
}

fn generation(
    worker: &Worker,
    cache: &Arc<AnswerCache>,
    admitted: &Admitted,
    asked: &Arc<Asked>,
    miss: &Arc<Miss>,
) -> Result<Generation, Failure> {
    let state = admitted.state();
    let prompt = &asked.request.prompt;
    let rewrite = Rewrite {
        model: asked.renamed(),
        // So that a whole rendering of a streamed answer has its usage.
        include_usage: prompt.stream && !prompt.include_usage,
    };
    let body = UpstreamBody::Full(asked.request.upstream_body(&rewrite));
    let request = upstream_headers::request(admitted, Encoding::Identity, body)?;
    let keeper = Keeper {
        state: state.clone(),
        cache: cache.clone(),
        asked: asked.clone(),
        identity: admitted.caller.identity.clone(),
        miss: miss.clone(),
        is_settled: AtomicBool::new(false),
    };
    Ok(Generation { client: worker.client.clone(), request, keeper })
}

/// How a body of this type comes in a dialect.
pub(crate) fn form_of(headers: &HeaderMap, dialect: Dialect) -> Option<Form> {
    if headers.contains_key(http::header::CONTENT_ENCODING) {
        return None;
    }
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let kind = kind.split(';').next().unwrap_or_default().trim();
    match (dialect, kind) {
        (Dialect::Ollama, "application/x-ndjson") => Some(Form::Stream),
        (Dialect::OpenAi | Dialect::Anthropic, "text/event-stream") => Some(Form::Stream),
        (_, "application/json") => Some(Form::Whole),
        _ => None,
    }
}
