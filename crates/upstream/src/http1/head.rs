//! The heads of requests and answers as HTTP/1.1 writes them (RFC 9112, sections 2 to 5).

use std::io::Write;
use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use smallvec::SmallVec;

use super::framing::Framing;
use crate::connect::HEAD_BYTES_MAX;
use crate::connection::WireFault;
use crate::request::{BodyLength, Outgoing};
use crate::response::Head;

/// Most fields of an answer.
const FIELDS_MAX: usize = 100;

/// As many fields as most answers have at most: their places are kept on the stack.
const FIELDS_USUAL: usize = 32;

const TOO_LARGE: WireFault = WireFault::Malformed("its head is too large");
const NOT_HTTP1: WireFault = WireFault::Malformed("it is not HTTP/1");

/// Writes a request's head. Nothing in it needs escaping: each part was checked when it was made.
pub(super) fn write(request: &Outgoing<'_>, out: &mut Vec<u8>) {
    let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    put(&[request.method.as_str().as_bytes(), b" ", request.target.as_str().as_bytes()]);
    put(&[b" HTTP/1.1\r\nhost: ", request.host().as_bytes(), b"\r\n"]);
    for (name, value) in request.fields() {
        put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    match request.body_length() {
        BodyLength::None => put(&[b"\r\n"]),
        // A vector takes whatever is written to it.
        BodyLength::Known(bytes) => _ = write!(out, "content-length: {bytes}\r\n\r\n"),
        BodyLength::Unknown => put(&[b"transfer-encoding: chunked\r\n\r\n"]),
    }
}

/// An answer's head as it was read.
#[derive(Debug)]
pub(super) struct ReadHead {
    version: Version,
    status: StatusCode,
    headers: HeaderMap,
}

/// Takes a head off the inbox, once it is whole. `looked_through`: how much of the inbox is known to hold no end of one, kept
/// from call to call.
pub(super) fn read(inbox: &mut BytesMut, looked_through: &mut usize) -> Result<Option<ReadHead>, WireFault> {
    if !may_be_whole(inbox, *looked_through) {
        return wanting(inbox, looked_through);
    }
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        inbox,
        &mut fields,
    );
    let bytes = match parsed {
        Ok(httparse::Status::Complete(bytes)) if bytes <= HEAD_BYTES_MAX => bytes,
        Ok(httparse::Status::Partial) => return wanting(inbox, looked_through),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE),
        Err(_) => return Err(NOT_HTTP1),
    };
    let version = if response.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let status = StatusCode::from_u16(response.code.unwrap_or_default()).map_err(|_| NOT_HTTP1)?;
    let places: SmallVec<[Place; FIELDS_USUAL]> =
        response.headers.iter().map(|field| Place::of(field, inbox)).collect();
    *looked_through = 0;
    // Values share the memory that they were read to.
    let head = inbox.split_to(bytes).freeze();
    let mut headers = HeaderMap::with_capacity(places.len());
    for place in places {
        let name = HeaderName::from_bytes(&head[place.name]).map_err(|_| NOT_HTTP1)?;
        let value = HeaderValue::from_maybe_shared(head.slice(place.value)).map_err(|_| NOT_HTTP1)?;
        headers.append(name, value);
    }
    Ok(Some(ReadHead { version, status, headers }))
}

/// Where in the inbox a field is.
struct Place {
    name: Range<usize>,
    value: Range<usize>,
}

impl Place {
    fn of(field: &httparse::Header<'_>, inbox: &[u8]) -> Self {
        let range = |part: &[u8]| {
            let start = part.as_ptr().addr() - inbox.as_ptr().addr();
            start..start + part.len()
        };
        Self { name: range(field.name.as_bytes()), value: range(field.value) }
    }
}

/// Whether what came last may have ended a head: one that comes bit by bit is not read from its beginning each time.
fn may_be_whole(inbox: &[u8], looked_through: usize) -> bool {
    if looked_through == 0 {
        return !inbox.is_empty();
    }
    let fresh = &inbox[looked_through.saturating_sub(3)..];
    fresh.windows(2).any(|pair| pair == b"\n\n") || fresh.windows(3).any(|three| three == b"\n\r\n")
}

fn wanting(inbox: &BytesMut, looked_through: &mut usize) -> Result<Option<ReadHead>, WireFault> {
    *looked_through = inbox.len();
    if inbox.len() > HEAD_BYTES_MAX { Err(TOO_LARGE) } else { Ok(None) }
}

impl ReadHead {
    /// Whether it is the answer's, and none that only informs.
    pub(super) fn is_final(&self) -> bool {
        !self.status.is_informational() || self.status == StatusCode::SWITCHING_PROTOCOLS
    }

    /// What it says of the connection is taken out of it. `is_all`: the request was for a head only.
    pub(super) fn judge(self, is_all: bool) -> Result<(Head, Framing), WireFault> {
        let Self { version, status, headers } = self;
        let (head, transfer) = Head::of(version, status, headers)?;
        let has_no_body = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let framing = match transfer.length {
            _ if is_all || has_no_body => Framing::NONE,
            _ if transfer.is_chunked => Framing::CHUNKED,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        };
        Ok((head, framing))
    }
}
