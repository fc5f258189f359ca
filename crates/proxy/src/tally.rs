//! One request's record. It begins with the request's head, travels with the response's body, and is settled once, when that
//! body has ended, has failed, or is given up: into the route's metrics, its limits and the access line.

use std::time::{Duration, Instant};

use http::{Method, Response, StatusCode};
use http_body::Body as _;
use refrain_core::{Code, Usage};

use crate::access;
use crate::body::Body;
use crate::gaps::GapCounts;
use crate::metrics::Outcome;
use crate::note::Note;
use crate::origin::{Dispatched, Origin, Stay};
use crate::paths::PathClass;
use crate::trace::Told;

/// How a request's answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Whole.
    Complete,
    /// It broke off, for this reason.
    Failed(Code),
    /// The client left before its end.
    Left,
}

/// What a request has cost, as its limits learn it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spent {
    /// Tokens, as far as the answer says.
    pub(crate) usage: Usage,
    /// About how many tokens have passed, where the answer doesn't say.
    pub(crate) passed_tokens: u64,
    /// The answer's status; none: there was none.
    pub(crate) status: Option<StatusCode>,
    /// What became of the request: whose tokens these are.
    pub(crate) outcome: Outcome,
}

/// One request's record.
pub(crate) struct Tally {
    /// What the stages tell of it.
    pub(crate) note: Note,
    /// When its head had been read.
    pub(crate) begun: Instant,
    /// Its answer's head, once there is one.
    pub(crate) answered: Option<Answered>,
    /// Where the answer comes from.
    pub(crate) origin: Origin,
    /// How its body comes.
    pub(crate) pace: Pace,
    /// Whether the body is a stream of events: only then do its chunks tell how tokens came.
    pub(crate) is_stream: bool,
    ending: Ending,
    /// Nothing follows the head, whatever the body has.
    is_head: bool,
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    /// When it was ready.
    pub(crate) at: Instant,
    /// Its status.
    pub(crate) status: StatusCode,
    /// What became of the request.
    pub(crate) outcome: Outcome,
    /// The error, if it is one of Refrain's own.
    pub(crate) error: Option<Code>,
    /// Whether it has an access line, however it ends.
    pub(crate) is_logged: bool,
}

/// How a body was handed to the connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// When its first byte was, and its last so far.
    pub(crate) span: Option<(Instant, Instant)>,
    /// The longest time between two chunks.
    pub(crate) longest_gap: Duration,
    /// How long the times between chunks were.
    pub(crate) gaps: GapCounts,
    /// Bytes of it.
    pub(crate) bytes: u64,
    /// Chunks of it.
    pub(crate) chunks: u32,
}

impl Tally {
    /// A record that begins now.
    pub(crate) fn begin(method: &Method) -> Box<Self> {
        Box::new(Self {
            note: Note::default(),
            begun: Instant::now(),
            answered: None,
            origin: Origin::Own,
            pace: Pace::default(),
            is_stream: false,
            ending: Ending::Left,
            is_head: *method == Method::HEAD,
        })
    }

    /// The response's head is ready; from here on the record travels with its body.
    pub(crate) fn travel(mut self: Box<Self>, response: Response<Body>, head: Answered) -> Response<Body> {
        self.answered = Some(head);
        response.map(|mut body| {
            self.origin = body.take_origin();
            self.is_stream = body.is_stream();
            if self.is_bodiless(head.status, &body) {
                self.ending = Ending::Complete;
            }
            body.with_tally(self)
        })
    }

    /// Whether nobody will ask for the body's end: an HTTP/1 connection drops what can't have a byte.
    fn is_bodiless(&self, status: StatusCode, body: &Body) -> bool {
        let is_bare = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.is_head || is_bare || body.size_hint().exact() == Some(0)
    }

    /// So many bytes more were handed to the connection.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.pace.chunk(bytes, Instant::now());
    }

    /// It is known how the body ends.
    pub(crate) fn ended(&mut self, ending: Ending) {
        self.ending = ending;
    }

    /// How it ended.
    pub(crate) fn ending(&self) -> Ending {
        self.ending
    }

    /// Why it went wrong, before its head or after.
    pub(crate) fn error(&self) -> Option<Code> {
        let before = self.answered.and_then(|head| head.error);
        match self.ending {
            Ending::Failed(code) => before.or(Some(code)),
            Ending::Complete | Ending::Left => before,
        }
    }

    fn settle(&mut self) {
        let usage = self.origin.usage();
        let outcome = self.answered.map_or(Outcome::Left, |head| head.outcome);
        let billed = self.billed(outcome, usage);
        if let (Some(account), Outcome::Collapsed, Some(took)) =
            (&self.note.shared, billed, self.origin.took())
        {
            // It has the answer of a generation that others pay for: as good as a stored one.
            account.note_hit(usage.unwrap_or_default(), took);
        }
        if let Some(granted) = &mut self.note.granted {
            granted.settle(&Spent {
                usage: usage.unwrap_or_default(),
                passed_tokens: self.origin.passed_tokens(),
                status: self.answered.map(|head| head.status),
                outcome: billed,
            });
        }
        let generated = self.origin.dispatched().and_then(Dispatched::ended);
        if let Some(state) = &self.note.state {
            generated.into_iter().for_each(|usage| state.metrics.generated(usage));
            state.metrics.settled(self, usage);
        }
        self.end_trace(outcome, usage);
        let is_logged = self.answered.is_none_or(|head| head.is_logged);
        if is_logged || matches!(self.ending, Ending::Failed(_)) {
            access::log(self, usage);
        }
    }

    /// What became of it, as far as somebody must pay for that.
    fn billed(&self, outcome: Outcome, usage: Option<Usage>) -> Outcome {
        let is_known = usage.is_some_and(|usage| usage.output_tokens.is_some());
        let stay = if is_known || self.ending != Ending::Left { Stay::Stays } else { Stay::Leaves };
        if outcome != Outcome::Collapsed {
            self.origin.pay(stay);
            return outcome;
        }
        if self.origin.falls_to_follower(stay) { Outcome::Miss } else { outcome }
    }

    fn end_trace(&mut self, outcome: Outcome, usage: Option<Usage>) {
        let error = self.error();
        let Self { note, begun, answered, origin, pace, ending, .. } = self;
        let Some(trace) = &mut note.trace else { return };
        let dispatched = origin.dispatched();
        trace.end(Told {
            begun: *begun,
            route: note.state.as_ref().map(|state| state.route.id.clone()),
            api: note.class.and_then(PathClass::api),
            status: answered.map(|head| head.status),
            outcome: outcome.as_str(),
            detail: note.detail,
            origin: origin.as_str(),
            ended: ending.as_str(),
            error,
            usage,
            first_byte: pace.first().map(|first| first - *begun),
            endpoint: dispatched.map(|dispatched| dispatched.endpoint.clone()),
            attempts: dispatched.map_or(0, |dispatched| dispatched.attempts),
            similarity: note.similarity,
        });
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Pace {
    fn chunk(&mut self, bytes: usize, now: Instant) {
        self.bytes += bytes as u64;
        self.chunks = self.chunks.saturating_add(1);
        match &mut self.span {
            None => self.span = Some((now, now)),
            Some((_, last)) => {
                let gap = now.saturating_duration_since(*last);
                self.longest_gap = self.longest_gap.max(gap);
                self.gaps.add(gap);
                *last = now;
            }
        }
    }

    /// When the first byte was handed over.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.span.map(|(first, _)| first)
    }

    /// From the first byte to the last.
    pub(crate) fn lasted(&self) -> Duration {
        self.span.map_or(Duration::ZERO, |(first, last)| last - first)
    }
}

impl Ending {
    /// The token in logs and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Failed(_) => "failed",
            Self::Left => "left",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_knows_its_first_byte_and_its_longest_gap() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut pace = Pace::default();
        for (millis, bytes) in [(10, 4), (15, 1), (95, 1), (100, 2)] {
            pace.chunk(bytes, at(millis));
        }
        assert_eq!((pace.first(), pace.lasted()), (Some(at(10)), Duration::from_millis(90)));
        assert_eq!((pace.longest_gap, pace.bytes, pace.chunks), (Duration::from_millis(80), 8, 4));
    }
}
