//! The access line: one event a sampled request, written when its response has ended, and never a prompt in it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use http::StatusCode;
use refrain_core::{Code, RouteId};

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

/// What one request's line says. Written on drop, so that a client that leaves half-way has its line too.
pub(crate) struct AccessLine {
    /// Who took it; none: nobody.
    pub(crate) route: Option<RouteId>,
    /// The path's class or API, never the path itself (it may hold names).
    pub(crate) api: &'static str,
    /// What became of it.
    pub(crate) outcome: &'static str,
    /// Why, if there is something to say.
    pub(crate) detail: &'static str,
    /// What policies say of it: the reason of one of them, and labels.
    pub(crate) policy: String,
    /// The error's code, if it is one of Refrain's own.
    pub(crate) error: Option<Code>,
    /// Status of the response.
    pub(crate) status: StatusCode,
    /// When its head had been read.
    pub(crate) begun: Instant,
    /// Bytes of body so far.
    bytes: usize,
}

impl AccessLine {
    /// A line for a response whose head is ready.
    pub(crate) fn new(status: StatusCode, begun: Instant) -> Self {
        Self {
            route: None,
            api: "",
            outcome: "",
            detail: "",
            policy: String::new(),
            error: None,
            status,
            begun,
            bytes: 0,
        }
    }

    /// So many bytes more were handed to the connection.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes;
    }
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        tracing::info!(
            target: "refrain::access",
            route = self.route.as_ref().map_or("-", RouteId::as_str),
            api = self.api,
            status = self.status.as_u16(),
            outcome = self.outcome,
            detail = self.detail,
            policy = self.policy,
            error = self.error.map_or("-", Code::as_str),
            ms = (self.begun.elapsed().as_secs_f64() * 1e6).round() / 1e3,
            bytes = self.bytes,
            "request"
        );
    }
}
