//! The head of an upstream's answer, and what came before it.

use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode, Version};
use refrain_core::EndpointId;

use crate::UpstreamStream;
use crate::connection::WireFault;
use crate::headers::{KeepAlive, Transfer};

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

/// The head of an answer as a connection gives it.
#[derive(Debug)]
pub(crate) struct Head {
    /// Never 1xx.
    pub(crate) status: StatusCode,
    /// Without hop-by-hop fields.
    pub(crate) headers: HeaderMap,
    /// What those said.
    pub(crate) keep_alive: KeepAlive,
}

impl Head {
    /// Out of what was read, and how the body is framed.
    ///
    /// # Errors
    /// [`WireFault::Malformed`]: what is wrong with it.
    pub(crate) fn of(
        version: Version,
        status: StatusCode,
        mut headers: HeaderMap,
    ) -> Result<(Self, Transfer), WireFault> {
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(WireFault::Malformed("it switches protocols without being asked to"));
        }
        let transfer = Transfer::take(version, &mut headers).map_err(WireFault::Malformed)?;
        if status == StatusCode::NO_CONTENT {
            // RFC 9110, section 8.6: it must not be there, and clients of HTTP/2 take it for a body that is missing.
            headers.remove(CONTENT_LENGTH);
        }
        Ok((Self { status, headers, keep_alive: transfer.keep_alive }, transfer))
    }
}
