//! Eighth stage: a miss is generated, shared with whoever asks the same meanwhile, and offered to the store.
//!
//! The upstream is read by the pump: every client of the answer, the first one too, reads from the flight. So a client that
//! leaves ends nothing for the others, and the upstream is cancelled when nobody is left. Who polls the pump: `leader`.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use refrain_cache::{Claim, ClaimGuard, FlightEnd, Found, Joined, Lead, Reader, UnderWay, unix_ms};
use refrain_core::settings::Priority;
use refrain_core::{Bypass, Code, Dialect};
use refrain_llm::answer::Form;
use refrain_upstream::{Charge, Purpose};
use tokio::time::{Instant, sleep};

use crate::affinity;
use crate::cache_status::{Staleness, Tier};
use crate::cost;
use crate::failure::Failure;
use crate::key::Keyed;
use crate::leader::Reading;
use crate::lookup::{self, Hit, Miss, Takes};
use crate::note::Note;
use crate::origin::Dispatched;
use crate::outgoing::{self, Usage};
use crate::pump::Generation;
use crate::snapshot::AnswerCache;
use crate::store::Keeper;
use crate::upstream_headers::{self, Encoding};
use crate::worker::Worker;

/// How long another proxy's generation is waited for.
const OTHERS_PATIENCE: Duration = Duration::from_millis(200);
/// How often it is looked for meanwhile.
const OTHERS_LOOK: Duration = Duration::from_millis(20);
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
    /// The upstream's part in it.
    pub(crate) dispatched: Arc<Dispatched>,
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
    pub(crate) reading: Reading,
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
    miss: &Arc<Miss>,
    note: &mut Note,
) -> Result<Generated, Failure> {
    for _ in 0..LEADERS_MAX {
        let (lead, reader) = join(cache, miss, note);
        let part = if lead.is_some() { Part::Led } else { Part::Joined };
        let mut reading = match lead {
            None => Reading::following(reader),
            Some(lead) => match turn(cache, miss).await {
                Turn::Stored(hit) => return Ok(Generated::Stored(hit)),
                Turn::Ours(claim) => {
                    let generation = generation(worker, cache, (miss, Purpose::Miss), claim)?;
                    Reading::leading(worker, generation, lead, reader)
                }
            },
        };
        match reading.head().await {
            Ok(head) => return Ok(Generated::Flight(Flight { head, reading, part })),
            // Its leader found it stored, or died. Looking first keeps a crowd from leading one after the other.
            Err(FlightEnd::LeaderGone) if part == Part::Joined => {
                if let Some(hit) = stored_meanwhile(cache, miss) {
                    return Ok(Generated::Stored(hit));
                }
            }
            Err(end) => return Err(Failure::from(end)),
        }
    }
    Err(Failure::from(FlightEnd::LeaderGone))
}

/// Whose turn it is to generate.
enum Turn {
    /// This process's; the claim tells other proxies, where they share the store.
    Ours(Option<ClaimGuard>),
    /// Nobody's: it is stored by now.
    Stored(Hit),
}

/// Looks once more, and waits for a proxy that generates the same, for a moment.
async fn turn(cache: &AnswerCache, miss: &Miss) -> Turn {
    if let Some(hit) = stored_meanwhile(cache, miss) {
        return Turn::Stored(hit);
    }
    if !shares(miss) || asks_policies(miss) {
        return Turn::Ours(None);
    }
    let key = &miss.keyed.key;
    let until = Instant::now() + OTHERS_PATIENCE;
    loop {
        match cache.store.claim(key).await {
            Claim::Mine(guard) => return Turn::Ours(Some(guard)),
            Claim::Free => return Turn::Ours(None),
            Claim::Theirs if Instant::now() >= until => return Turn::Ours(None),
            Claim::Theirs => sleep(OTHERS_LOOK).await,
        }
        if let Some(hit) = usable(cache.store.find(key, unix_ms()).await, miss) {
            return Turn::Stored(hit);
        }
    }
}

/// An entry is stored before its flight ends, so who leads after a miss looks once more: embedding takes longer than some
/// generations.
fn stored_meanwhile(cache: &AnswerCache, miss: &Miss) -> Option<Hit> {
    if miss.takes == Takes::Nothing || asks_policies(miss) {
        return None;
    }
    usable(cache.store.find_in_memory(&miss.keyed.key, unix_ms()), miss)
}

/// Whether policies have a word about what is served: nobody has asked them about what turns up meanwhile.
fn asks_policies(miss: &Miss) -> bool {
    miss.keyed.planned.policed.as_deref().is_some_and(|policed| policed.chain.validates())
}

fn usable(found: Found, miss: &Miss) -> Option<Hit> {
    match found {
        Found::Hit(entry, place) if lookup::may_serve(&entry, &miss.keyed.plan) => {
            let staleness = Staleness::Fresh;
            Some(Hit { entry, tier: Tier::Exact, place, staleness, similar: None })
        }
        Found::Hit(..) | Found::Stale(..) | Found::Miss => None,
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
    miss: &Miss,
    note: &mut Note,
) -> (Option<Lead<Arc<FlightHead>>>, Reader<Arc<FlightHead>>) {
    let key = cache.store.epoch().flight(&miss.keyed.key);
    let flights = &cache.flights;
    if shares(miss) {
        match flights.join(key) {
            Joined::Lead(lead, reader) => return (Some(lead), reader),
            Joined::Follow(reader) => return (None, reader),
            Joined::Pass => {
                miss.keyed.admitted.state().metrics.bypass(Bypass::HitForPass);
                note.detail = Bypass::HitForPass.as_str();
            }
        }
    }
    let (lead, reader) = flights.solo(key);
    (Some(lead), reader)
}

/// What joining would come to for a miss that may share its generation. Joins nothing.
pub(crate) fn under_way(cache: &AnswerCache, miss: &Miss) -> Option<UnderWay> {
    shares(miss).then(|| cache.flights.look(&cache.store.epoch().flight(&miss.keyed.key)))
}

/// Whether identical requests may have the same generation. Who wants a fresh answer can't have one that was begun before;
/// who forbids storing isn't shared either.
fn shares(miss: &Miss) -> bool {
    let plan = &miss.keyed.plan;
    let directives = &plan.directives;
    plan.collapse
        && miss.takes == Takes::Stored
        && !directives.no_cache
        && !directives.no_store
        && directives.max_age.is_none()
}

/// The upstream request of a miss, ready to be made.
pub(crate) fn generation(
    worker: &Worker,
    cache: &Arc<AnswerCache>,
    (miss, purpose): (&Arc<Miss>, Purpose),
    claim: Option<ClaimGuard>,
) -> Result<Generation, Failure> {
    let Keyed { admitted, planned, .. } = &miss.keyed;
    let body = outgoing::body(admitted, planned, Usage::Wanted);
    let mut request = upstream_headers::request(admitted, Encoding::Identity, body)?;
    request.demand = affinity::demand(admitted, planned);
    if purpose == Purpose::Audit {
        // Nobody waits for it.
        request.demand.priority = Priority::Low;
    }
    let charge = Charge { account: cost::account(admitted, &planned.target.pool), purpose };
    request.charge = Some(charge.clone());
    let keeper = Keeper::new(cache.clone(), miss.clone(), (charge, claim));
    Ok(Generation { client: worker.client.clone(), request, keeper, bill: Arc::default() })
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
