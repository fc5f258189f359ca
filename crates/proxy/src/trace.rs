//! One request in a distributed trace: its context in and out (W3C Trace Context), and what a span of it says.
//!
//! Spans are made from the request's record when it is settled, and only of requests that are sampled or went wrong; what is
//! not traced costs a branch. How spans look on the wire is for whoever empties the [`TraceSink`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rand::Rng as _;
use refrain_core::settings::{ParentContext, Traces};
use refrain_core::{Api, Code, EndpointId, PoolId, RouteId, Usage};
use tokio::sync::mpsc;

/// Finished requests that wait to be exported; more are dropped and counted.
pub const TRACES_MAX: usize = 2048;

/// Longest model name in a span, in bytes.
const MODEL_BYTES_MAX: usize = 128;

/// Where the sampled bit is in the flags.
const SAMPLED: u8 = 1;

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Takes finished requests.
#[derive(Clone, Debug)]
pub struct TraceSink {
    queue: mpsc::Sender<Box<RequestTrace>>,
    dropped: Arc<AtomicU64>,
}

/// One finished request, for spans.
#[derive(Debug)]
pub struct RequestTrace {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The request's own span.
    pub span_id: [u8; 8],
    /// The span of whoever called; none: the trace begins here.
    pub parent: Option<[u8; 8]>,
    /// The span of the request to an upstream: its parent is [`RequestTrace::span_id`].
    pub dispatch_id: [u8; 8],
    /// What the caller passed on of its `tracestate`.
    pub state: String,
    /// Whether it is sampled; if not, it is told for its error.
    pub is_sampled: bool,
    /// When it began.
    pub begun: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// What its stages took.
    pub stages: Vec<Stage>,
    /// Who took it.
    pub route: Option<RouteId>,
    /// What was asked.
    pub api: Option<Api>,
    /// The model that was asked for, cut to a bound.
    pub model: String,
    /// Whether the client wants a stream.
    pub stream: bool,
    /// Status of the response; none: the client left before.
    pub status: Option<StatusCode>,
    /// What became of it.
    pub outcome: &'static str,
    /// Why, if there is something to say.
    pub detail: &'static str,
    /// Where the answer came from: `own`, `cache` or `upstream`.
    pub origin: &'static str,
    /// How the answer ended.
    pub ended: &'static str,
    /// What went wrong.
    pub error: Option<Code>,
    /// Tokens of the answer.
    pub usage: Option<Usage>,
    /// Time to the first byte of the body.
    pub first_byte: Option<Duration>,
    /// The pool that it was for, once that was decided.
    pub pool: Option<PoolId>,
    /// Who answered.
    pub endpoint: Option<EndpointId>,
    /// How many tries it took.
    pub attempts: u32,
    /// Cosine similarity of the nearest stored question.
    pub similarity: Option<f32>,
}

/// A part of a request's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Which.
    pub kind: StageKind,
    /// When it began, after the request did.
    pub begun: Duration,
    /// How long it took.
    pub took: Duration,
}

/// A stage that has a span of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageKind {
    /// Deciding, and what the route's policies take.
    Policy,
    /// Looking for a stored answer.
    Lookup,
    /// Asking an upstream, or waiting for the answer that another request asked for.
    Dispatch,
}

/// Decides which requests are traced.
#[derive(Debug)]
pub(crate) struct Tracer {
    /// Traces whose id is below are sampled.
    below: u64,
    parent: ParentContext,
    sink: TraceSink,
}

/// One request's place in a trace.
pub(crate) struct Trace {
    sink: TraceSink,
    trace_id: [u8; 16],
    parent: Option<[u8; 8]>,
    span_id: [u8; 8],
    dispatch_id: [u8; 8],
    flags: u8,
    state: Option<HeaderValue>,
    begun: SystemTime,
    /// When each stage was over.
    marks: [Option<Instant>; 3],
    /// When the stages began.
    understood: Option<Instant>,
    model: String,
    api: Option<Api>,
    stream: bool,
    pool: Option<PoolId>,
}

/// What a span says that the request's record knows.
pub(crate) struct Told {
    pub(crate) begun: Instant,
    pub(crate) route: Option<RouteId>,
    /// By its path, for what nobody has read.
    pub(crate) api: Option<Api>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) outcome: &'static str,
    pub(crate) detail: &'static str,
    pub(crate) origin: &'static str,
    pub(crate) ended: &'static str,
    pub(crate) error: Option<Code>,
    pub(crate) usage: Option<Usage>,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) endpoint: Option<EndpointId>,
    pub(crate) attempts: u32,
    pub(crate) similarity: Option<f32>,
}

impl TraceSink {
    /// A sink, and what comes out of it.
    pub fn new() -> (Self, mpsc::Receiver<Box<RequestTrace>>) {
        let (queue, traces) = mpsc::channel(TRACES_MAX);
        (Self { queue, dropped: Arc::default() }, traces)
    }

    /// Requests that were not exported for want of room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Never waits: a collector that is away costs traces, not requests.
    fn take(&self, trace: Box<RequestTrace>) {
        if self.queue.try_send(trace).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Tracer {
    /// A tracer of these settings.
    pub(crate) fn new(traces: Traces, sink: TraceSink) -> Self {
        let below = (traces.sample.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        Self { below, parent: traces.parent, sink }
    }

    /// The place of a request that begins now.
    pub(crate) fn begin(&self, headers: &HeaderMap) -> Box<Trace> {
        let caller = match self.parent {
            ParentContext::Followed => parent_of(headers),
            ParentContext::Ignored => None,
        };
        let fresh: [u8; 32] = rand::rng().random();
        let (trace_id, parent, flags) = match caller {
            Some(caller) => (caller.trace_id, Some(caller.span_id), caller.flags),
            None => {
                let trace_id = part::<16>(&fresh, 16);
                (trace_id, None, if self.samples(&trace_id) { SAMPLED } else { 0 })
            }
        };
        Box::new(Trace {
            sink: self.sink.clone(),
            trace_id,
            parent,
            span_id: part(&fresh, 0),
            dispatch_id: part(&fresh, 8),
            flags,
            state: caller.and_then(|_| state_of(headers)),
            begun: SystemTime::now(),
            marks: [None; 3],
            understood: None,
            model: String::new(),
            api: None,
            stream: false,
            pool: None,
        })
    }

    /// By the trace's id alone, so that all proxies decide alike.
    fn samples(&self, trace_id: &[u8; 16]) -> bool {
        self.below == u64::MAX || u64::from_be_bytes(part(trace_id, 8)) < self.below
    }
}

impl Trace {
    /// The request's body was understood: the stages begin.
    pub(crate) fn understood(&mut self, api: Api, model: &str, stream: bool) {
        self.understood = Some(Instant::now());
        (self.api, self.stream) = (Some(api), stream);
        model[..model.floor_char_boundary(MODEL_BYTES_MAX)].clone_into(&mut self.model);
    }

    /// A stage is over: the first time counts, since another pool may have to stand in for the one that was asked.
    pub(crate) fn passed(&mut self, stage: StageKind) {
        self.marks[stage as usize].get_or_insert_with(Instant::now);
    }

    /// Where a miss goes.
    pub(crate) fn planned(&mut self, pool: &PoolId) {
        self.goes_to(pool);
        self.passed(StageKind::Policy);
    }

    /// Where it goes from now on.
    pub(crate) fn goes_to(&mut self, pool: &PoolId) {
        self.pool = Some(pool.clone());
    }

    /// What the upstream is told: its request's parent is the span of asking it.
    pub(crate) fn context(&self) -> Context {
        Context {
            trace_id: self.trace_id,
            span_id: self.dispatch_id,
            flags: self.flags,
            state: self.state.clone(),
        }
    }

    /// The trace's id, in hex.
    pub(crate) fn id(&self) -> String {
        refrain_core::hex(&self.trace_id)
    }

    /// The request has ended.
    pub(crate) fn end(&mut self, told: Told) {
        let is_wrong = told.error.is_some() || told.status.is_some_and(|status| status.is_server_error());
        if self.flags & SAMPLED == 0 && !is_wrong {
            return;
        }
        let stages = self.stages(&told);
        self.sink.take(Box::new(RequestTrace {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent: self.parent,
            dispatch_id: self.dispatch_id,
            state: self.state.as_ref().and_then(|state| state.to_str().ok()).unwrap_or_default().to_owned(),
            is_sampled: self.flags & SAMPLED != 0,
            begun: self.begun,
            took: told.begun.elapsed(),
            stages,
            route: told.route,
            api: self.api.or(told.api),
            model: std::mem::take(&mut self.model),
            stream: self.stream,
            status: told.status,
            outcome: told.outcome,
            detail: told.detail,
            origin: told.origin,
            ended: told.ended,
            error: told.error,
            usage: told.usage,
            first_byte: told.first_byte,
            pool: self.pool.take(),
            endpoint: told.endpoint,
            attempts: told.attempts,
            similarity: told.similarity,
        }));
    }

    /// Each from the end of the one before. The upstream's part is over when the answer is.
    fn stages(&self, told: &Told) -> Vec<Stage> {
        let mut begun = self.understood;
        let mut stages = Vec::with_capacity(3);
        for kind in [StageKind::Policy, StageKind::Lookup] {
            if let (Some(since), Some(over)) = (begun, self.marks[kind as usize]) {
                stages.push(Stage { kind, begun: since - told.begun, took: over - since });
                begun = Some(over);
            }
        }
        let asked = told.endpoint.is_some() || self.marks[StageKind::Dispatch as usize].is_some();
        if asked {
            let since = begun.unwrap_or(told.begun);
            stages.push(Stage {
                kind: StageKind::Dispatch,
                begun: since - told.begun,
                took: since.elapsed(),
            });
        }
        stages
    }
}

/// A place in a trace, as headers tell it.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
    state: Option<HeaderValue>,
}

impl Context {
    /// Puts it in the place of what was there.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let Self { trace_id, span_id, flags, state } = self;
        let text = format!("00-{}-{}-{flags:02x}", refrain_core::hex(trace_id), refrain_core::hex(span_id));
        headers.remove(TRACESTATE);
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(TRACEPARENT, value);
            headers.extend(state.clone().map(|state| (TRACESTATE, state)));
        }
    }
}

/// The caller's `tracestate`. Several fields are one list (W3C Trace Context, section 3.3.1).
fn state_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let all: Vec<&HeaderValue> = headers.get_all(TRACESTATE).iter().collect();
    match all[..] {
        [] => None,
        [only] => Some(only.clone()),
        [..] => {
            let lists: Vec<&[u8]> = all.into_iter().map(HeaderValue::as_bytes).collect();
            HeaderValue::from_bytes(&lists.join(&b","[..])).ok()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parent {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

/// The caller's place, if there is exactly one and it can be read (W3C Trace Context, section 3.2).
fn parent_of(headers: &HeaderMap) -> Option<Parent> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    parse(value.to_str().ok()?)
}

/// Later versions may say more after the flags.
fn parse(text: &str) -> Option<Parent> {
    let (head, rest) = text.split_at_checked(55)?;
    let bytes = head.as_bytes();
    let is_formed = bytes[2] == b'-' && bytes[35] == b'-' && bytes[52] == b'-';
    let is_lower = head.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    let version = &head[..2];
    let has_rest = !rest.is_empty();
    if !is_formed || !is_lower || version == "ff" || (has_rest && (version == "00" || !rest.starts_with('-')))
    {
        return None;
    }
    refrain_core::unhex::<1>(version.as_bytes())?;
    let trace_id = refrain_core::unhex::<16>(&bytes[3..35])?;
    let span_id = refrain_core::unhex::<8>(&bytes[36..52])?;
    let [flags] = refrain_core::unhex::<1>(&bytes[53..55])?;
    let is_valid = trace_id != [0; 16] && span_id != [0; 8];
    // Of the flags, only what version 00 knows is passed on.
    is_valid.then_some(Parent { trace_id, span_id, flags: flags & SAMPLED })
}

/// `N` bytes from a place on.
fn part<const N: usize>(bytes: &[u8], from: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[from..from + N]);
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(parent: &str) -> HeaderMap {
        let fields = [(TRACEPARENT, parent), (TRACESTATE, "vendor=1")];
        fields.into_iter().map(|(name, value)| (name, HeaderValue::from_str(value).unwrap())).collect()
    }

    fn tracer(sample: f64, parent: ParentContext) -> Tracer {
        Tracer::new(Traces { sample, parent }, TraceSink::new().0)
    }

    fn sent(trace: &Trace) -> (String, Option<String>) {
        let mut headers = headers("00-client-s");
        trace.context().write(&mut headers);
        let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap().to_owned());
        (text(TRACEPARENT).unwrap(), text(TRACESTATE))
    }

    #[test]
    fn a_callers_trace_goes_on_with_another_parent() {
        let trace = tracer(0.0, ParentContext::Followed).begin(&headers(PARENT));
        let (parent, state) = sent(&trace);
        assert!(parent.starts_with(&PARENT[..36]) && parent.ends_with("-01"), "{parent}");
        assert_ne!(parent, PARENT);
        assert_eq!(state.as_deref(), Some("vendor=1"));
        let unsampled = tracer(1.0, ParentContext::Followed).begin(&headers(&PARENT.replace("-01", "-00")));
        assert!(sent(&unsampled).0.ends_with("-00"));
    }

    #[test]
    fn a_state_in_several_fields_goes_on_as_one_list() {
        let mut headers = headers(PARENT);
        headers.append(TRACESTATE, HeaderValue::from_static("other=2"));
        let trace = tracer(1.0, ParentContext::Followed).begin(&headers);
        assert_eq!(sent(&trace).1.as_deref(), Some("vendor=1,other=2"));
    }

    #[test]
    fn what_is_broken_or_not_trusted_begins_a_trace() {
        let all_zero = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let upper = PARENT.to_uppercase();
        let longer = format!("{PARENT}-00");
        for broken in ["", "00", &PARENT[1..], &all_zero, &upper, &longer, &PARENT.replace("00-4", "ff-4")] {
            let trace = tracer(1.0, ParentContext::Followed).begin(&headers(broken));
            assert_eq!((trace.parent, sent(&trace).1), (None, None), "{broken}");
        }
        let later = format!("{}-more", PARENT.replace("00-4", "01-4"));
        assert!(parse(&later).is_some());
        assert_eq!(tracer(1.0, ParentContext::Ignored).begin(&headers(PARENT)).parent, None);
    }

    #[test]
    fn the_share_of_samples_is_about_what_was_asked_for() {
        let sampled = |share| {
            let tracer = tracer(share, ParentContext::Followed);
            (0..2000).filter(|_| tracer.begin(&HeaderMap::new()).flags == SAMPLED).count()
        };
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 2000));
        assert!((400..600).contains(&sampled(0.25)));
    }
}
