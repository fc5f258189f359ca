//! Ninth stage: the response to a hit, and to a generation under way.

use http::header::{AGE, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, SET_COOKIE};
use http::{HeaderMap, Response};
use refrain_cache::unix_ms;
use refrain_core::{Api, Code, Dialect, Prompt, Skip};
use refrain_llm::answer::{AnswerReader, Form, Rendering, content_type};

use crate::body::{Body, Relay, Source};
use crate::failure::Failure;
use crate::generate::{Flight, FlightHead, Part, code_of};
use crate::leader::Reading;
use crate::lookup::Hit;
use crate::origin::{Dispatched, Origin};
use crate::snapshot::AnswerCache;

/// Longest answer that is read whole to be put into another form, in bytes.
pub(crate) const CONVERTED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How this client wants its answer.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    api: Api,
    stream: bool,
    include_usage: bool,
}

impl Wanted {
    /// As its request says.
    pub(crate) fn by(prompt: &Prompt) -> Self {
        Self { api: prompt.api, stream: prompt.stream, include_usage: prompt.include_usage }
    }

    fn rendering(self) -> Rendering {
        if self.stream { Rendering::Stream { include_usage: self.include_usage } } else { Rendering::Whole }
    }
}

/// The answer of an entry, in the form that this client asked for.
///
/// # Errors
/// The entry can't be read: a bug, since its record's digest was right.
pub(crate) fn hit(cache: &AnswerCache, hit: &Hit, wanted: Wanted) -> Result<Response<Body>, Failure> {
    let rendering = wanted.rendering();
    let body = cache.store.render(&hit.entry, rendering).map_err(|error| {
        tracing::error!(%error, "a stored answer can't be read");
        Failure::new(
            Code::Internal,
            "a stored answer can't be read; ask again with `Cache-Control: no-cache`",
        )
    })?;
    let mut response = Response::new(Body::full(body).from(Origin::Stored(hit.entry.usage)));
    let headers = response.headers_mut();
    for (name, value) in &hit.entry.meta.replay_headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(wanted.api, rendering)));
    headers.insert(AGE, HeaderValue::from(hit.entry.age_ms(unix_ms()) / 1000));
    Ok(response)
}

/// Seconds until an entry's time is over; below zero from then on.
pub(crate) fn ttl_s(hit: &Hit) -> i64 {
    let millis = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
    millis(hit.entry.meta.expires_at_ms).saturating_sub(millis(unix_ms())).div_euclid(1000)
}

/// The answer of a generation, in the form that this client asked for: as it comes where that is the upstream's own form.
///
/// # Errors
/// Where the form must be changed: the upstream's failure, since nothing was sent yet.
///
/// # Cancel safety
/// Safe: dropping the future leaves the flight.
pub(crate) async fn generated(flight: Flight, wanted: Wanted) -> Result<Response<Body>, Failure> {
    let Flight { head, reading, part } = flight;
    let form_wanted = if wanted.stream { Form::Stream } else { Form::Whole };
    let mut response = match head.form {
        Some(form) if form != form_wanted => converted(&head, form, reading, wanted).await?,
        _ => relayed(&head, reading, wanted),
    };
    response = response.map(|body| body.from(Origin::Flight(head.dispatched.clone())));
    if part == Part::Joined {
        // It was set for whoever led.
        response.headers_mut().remove(SET_COOKIE);
    }
    Ok(response)
}

fn relayed(head: &FlightHead, reading: Reading, wanted: Wanted) -> Response<Body> {
    let dialect = wanted.api.dialect();
    let is_stream = head.form == Some(Form::Stream);
    // A stream may be edited on its way, and may end in an error event: no length is promised.
    let length = if is_stream { None } else { head.length };
    let mut relay = Relay::new(Source::Flight(reading), is_stream.then_some(dialect), length);
    if is_stream && dialect == Dialect::OpenAi && !wanted.include_usage {
        relay = relay.without_usage();
    }
    let mut response = Response::new(Body::relay(relay));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers.clone();
    if is_stream {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response
}

/// The answer was asked for in another form than this client's, by another client or for the sake of a front that cuts silent
/// connections: it is read whole and rendered anew.
async fn converted(
    head: &FlightHead,
    form: Form,
    mut flight: Reading,
    wanted: Wanted,
) -> Result<Response<Body>, Failure> {
    let mut assembly = Assembly::new(wanted.api, form, CONVERTED_BYTES_MAX);
    while let Some(chunk) = flight.chunk().await {
        let chunk = chunk.map_err(|end| Failure::upstream(code_of(end)))?;
        assembly.feed(&chunk)?;
    }
    assembly.finish(&head.headers, wanted, &head.dispatched)
}

/// An answer on its way into another form.
pub(crate) struct Assembly(AnswerReader);

impl Assembly {
    /// Of an answer that comes in this form.
    pub(crate) fn new(api: Api, form: Form, bytes_max: usize) -> Self {
        Self(AnswerReader::new(api, form, bytes_max))
    }

    /// Reads more of it.
    ///
    /// # Errors
    /// It is none, or too long.
    pub(crate) fn feed(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        self.0.feed(chunk).map_err(|error| unreadable(error.skip()))
    }

    /// The response, with the upstream's headers. `dispatched` learns what it used.
    ///
    /// # Errors
    /// It broke off.
    pub(crate) fn finish(
        self,
        headers: &HeaderMap,
        wanted: Wanted,
        dispatched: &Dispatched,
    ) -> Result<Response<Body>, Failure> {
        let answer = self.0.finish().map_err(|error| unreadable(error.skip()))?;
        dispatched.used(answer.usage());
        let rendering = wanted.rendering();
        let mut response = Response::new(Body::full(answer.render(rendering)));
        *response.headers_mut() = headers.clone();
        let headers = response.headers_mut();
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(wanted.api, rendering)));
        Ok(response)
    }
}

fn unreadable(skip: Skip) -> Failure {
    tracing::debug!(reason = skip.as_str(), "an answer can't be put into another form");
    Failure::upstream(Code::UpstreamBroken)
}
