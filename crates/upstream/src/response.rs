//! The head of an upstream's answer, and what came before it.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use refrain_core::EndpointId;

use crate::UpstreamStream;

/// An upstream's answer, whatever its status: turning a 503 into something else is the caller's decision.
#[derive(Debug)]
pub struct UpstreamResponse {
    /// Its status; never 1xx.
    pub status: StatusCode,
    /// Its headers, without hop-by-hop ones.
    pub headers: HeaderMap,
    /// Its body. Holds the connection and counts as load until it ended or was dropped.
    pub body: UpstreamStream,
    /// Who answered.
    pub endpoint: EndpointId,
    /// How many tries it took, 1 for none in vain.
    pub attempts: u32,
    /// How long its parts took.
    pub timings: Timings,
}

/// Where the time went before the response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Waiting for room at an endpoint, next to nothing if there was some.
    pub waited: Duration,
    /// Opening a connection; none if an idle one was taken.
    pub connect: Option<Duration>,
    /// From handing over the request, on the connection that answered, to the response head.
    pub first_byte: Duration,
}
