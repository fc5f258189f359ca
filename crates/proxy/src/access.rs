//! The access line: one event a sampled request, written when its response has ended, and no prompt in it unless its
//! route says so.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rand::Rng as _;
use refrain_core::{Code, Usage};

use crate::note::Note;
use crate::tally::Tally;

/// Which requests have a line: errors always, of the others one of so many.
pub(crate) struct Sampler {
    one_of: u32,
    seen: AtomicU32,
}

impl Sampler {
    /// One line in `one_of` requests; 0: none.
    pub(crate) fn new(one_of: u32) -> Self {
        Self { one_of, seen: AtomicU32::new(0) }
    }

    /// Whether this request has a line.
    pub(crate) fn takes(&self, is_error: bool) -> bool {
        let nth = || self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.one_of);
        is_error || (self.one_of != 0 && nth())
    }
}

/// Writes a request's line: what it was (the path's class, never the path itself, which may hold names), what became of it,
/// and what it took.
pub(crate) fn log(tally: &Tally, usage: Option<Usage>) {
    let note = &tally.note;
    let head = tally.answered;
    let dispatched = tally.origin.dispatched();
    let identity = note.admitted.as_ref().map(|admitted| &admitted.caller.identity);
    let usage = usage.unwrap_or_default();
    tracing::info!(
        target: "refrain::access",
        route = note.state.as_ref().map_or("-", |state| state.route.id.as_str()),
        api = note.class.map_or("", |class| class.as_str()),
        status = head.map(|head| head.status.as_u16()),
        tenant = identity.map(|identity| identity.tenant.as_str()),
        user = identity.and_then(|identity| Some(pseudonym(identity.tenant.as_str(), identity.user.as_ref()?.as_str()))),
        outcome = head.map_or("left", |head| head.outcome.as_str()),
        detail = note.detail,
        policy = note.policy_line(),
        error = tally.error().map_or("-", Code::as_str),
        ended = tally.ending().as_str(),
        endpoint = dispatched.map(|dispatched| dispatched.endpoint.as_str()),
        attempts = dispatched.map(|dispatched| dispatched.attempts),
        upstream_ms = dispatched.map(|dispatched| millis(dispatched.timings.first_byte)),
        head_ms = head.map(|head| millis(head.at - tally.begun)),
        ms = millis(tally.begun.elapsed()),
        first_byte_ms = tally.pace.first().map(|first| millis(first - tally.begun)),
        bytes = tally.pace.bytes,
        prompt = prompt(note),
        trace = note.trace.as_ref().map(|trace| trace.id()),
        input_tokens = usage.input_tokens,
        output_tokens = usage.output_tokens,
        "request"
    );
}

/// What was asked, on routes that log it.
fn prompt(note: &Note) -> Option<String> {
    let redaction = note.state.as_ref()?.redaction.as_ref()?;
    Some(redaction.show(note.prompt.as_deref()?))
}

/// The same for the same user, as long as this process runs; nobody can tell from it who that is.
fn pseudonym(tenant: &str, user: &str) -> String {
    static KEY: LazyLock<[u8; 32]> = LazyLock::new(|| rand::rng().random());
    let mut hasher = blake3::Hasher::new_keyed(&KEY);
    hasher.update(&(tenant.len() as u64).to_le_bytes()).update(tenant.as_bytes()).update(user.as_bytes());
    refrain_core::hex(&hasher.finalize().as_bytes()[..6])
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
