//! Headers that belong to one connection and never pass through.

use std::time::Duration;

use http::Version;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what concerns one connection only: `Connection` and every field it names, `Keep-Alive`, `TE`, `Trailer`,
/// `Transfer-Encoding`, `Upgrade`, `Proxy-*` (RFC 9110, section 7.6.1). For requests and responses alike. A
/// `Content-Length` beside `Transfer-Encoding` goes too: it does not say how long the body is (RFC 9112, section 6.3).
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    strip(headers, Present::of(headers));
}

fn strip(headers: &mut HeaderMap, present: Present) {
    if present.has(TRANSFER_ENCODING_AT) && present.has(CONTENT_LENGTH_AT) {
        headers.remove(CONTENT_LENGTH);
    }
    if present.has(CONNECTION_AT) {
        for name in named_by_connection(headers) {
            headers.remove(name);
        }
    }
    for (at, name) in LOOKED_FOR.iter().enumerate() {
        if at != CONTENT_LENGTH_AT && present.has(at) {
            headers.remove(name);
        }
    }
}

/// What an answer's fields say of its connection and of where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) keep_alive: KeepAlive,
    /// Whether the body comes in chunks, whatever its length is said to be.
    pub(crate) is_chunked: bool,
    /// `Content-Length`, in bytes.
    pub(crate) length: Option<u64>,
}

impl Transfer {
    /// Reads it, and removes what concerns the connection only.
    ///
    /// # Errors
    /// What is odd about the framing: with the hop-by-hop fields gone, a client behind us could read the body otherwise
    /// than we did.
    pub(crate) fn take(version: Version, headers: &mut HeaderMap) -> Result<Self, &'static str> {
        let present = Present::of(headers);
        let is_chunked = present.has(TRANSFER_ENCODING_AT);
        if is_chunked && (version == Version::HTTP_10 || !is_chunked_once(headers)) {
            return Err("its transfer coding is not chunked");
        }
        let length = if present.has(CONTENT_LENGTH_AT) {
            Some(one_length(headers).ok_or("it has no length, or more than one")?)
        } else {
            None
        };
        let keep_alive = KeepAlive::of(version, headers, present);
        strip(headers, present);
        Ok(Self { keep_alive, is_chunked, length })
    }
}

/// The hop-by-hop fields, and the length.
static LOOKED_FOR: [HeaderName; 10] = [
    CONNECTION,
    KEEP_ALIVE,
    TRANSFER_ENCODING,
    CONTENT_LENGTH,
    TE,
    TRAILER,
    UPGRADE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
];
const CONNECTION_AT: usize = 0;
const KEEP_ALIVE_AT: usize = 1;
const TRANSFER_ENCODING_AT: usize = 2;
const CONTENT_LENGTH_AT: usize = 3;

/// Which of the fields that concern a connection there are: one look at all names is cheaper than a hash for each of those
/// that are mostly absent.
#[derive(Clone, Copy)]
struct Present(u16);

impl Present {
    fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().filter_map(Self::place).fold(0, |present, at| present | 1 << at))
    }

    /// Its place among those that are looked for. By length and text, which the compiler makes a few comparisons of.
    fn place(name: &HeaderName) -> Option<usize> {
        Some(match name.as_str() {
            "connection" => CONNECTION_AT,
            "keep-alive" => KEEP_ALIVE_AT,
            "transfer-encoding" => TRANSFER_ENCODING_AT,
            "content-length" => CONTENT_LENGTH_AT,
            "te" => 4,
            "trailer" => 5,
            "upgrade" => 6,
            "proxy-connection" => 7,
            "proxy-authenticate" => 8,
            "proxy-authorization" => 9,
            _ => return None,
        })
    }

    fn has(self, at: usize) -> bool {
        self.0 & (1 << at) != 0
    }
}

/// Options that name no field of their own, or one that goes anyway.
const OPTIONS: [&str; 2] = ["keep-alive", "close"];

/// Fields that `Connection` names. `Content-Length` and `Host` can't be named away: that would change the framing.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    tokens(headers)
        .filter(|token| !OPTIONS.iter().any(|option| token.eq_ignore_ascii_case(option)))
        .filter(|token| !token.eq_ignore_ascii_case("content-length") && !token.eq_ignore_ascii_case("host"))
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .collect()
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

fn is_chunked_once(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).into_iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    codings.next().is_some_and(is_chunked) && codings.next().is_none()
}

fn one_length(headers: &HeaderMap) -> Option<u64> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).into_iter();
    let length = lengths.next()?.to_str().ok()?;
    let is_number = length.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && lengths.next().is_none() { length.parse().ok() } else { None }
}

/// What an upstream says about reusing the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeepAlive {
    /// `Connection: close`, HTTP/1.0 that doesn't say otherwise, or a length beside a transfer coding: then nobody knows
    /// where the next answer starts (RFC 9112, section 6.1).
    pub(crate) close: bool,
    /// `Keep-Alive: timeout=`.
    pub(crate) timeout: Option<Duration>,
    /// `Keep-Alive: max=`: requests this connection takes.
    pub(crate) max: Option<u32>,
}

impl KeepAlive {
    /// Reads `Connection` and `Keep-Alive`; what can't be read is as if absent.
    fn of(version: Version, headers: &HeaderMap, present: Present) -> Self {
        let doubly_framed = present.has(TRANSFER_ENCODING_AT) && present.has(CONTENT_LENGTH_AT);
        let says = |option: &str| {
            present.has(CONNECTION_AT) && tokens(headers).any(|token| token.eq_ignore_ascii_case(option))
        };
        let is_old = version == Version::HTTP_10 && !says("keep-alive");
        let mut hint = Self { close: doubly_framed || is_old || says("close"), ..Self::default() };
        if !present.has(KEEP_ALIVE_AT) {
            return hint;
        }
        if let Some(value) = headers.get(KEEP_ALIVE).and_then(|value| value.to_str().ok()) {
            for parameter in value.split(',') {
                hint.read(parameter);
            }
        }
        hint
    }

    fn read(&mut self, parameter: &str) {
        let Some((name, value)) = parameter.split_once('=') else { return };
        let Ok(value) = value.trim().parse::<u32>() else { return };
        match name.trim() {
            name if name.eq_ignore_ascii_case("timeout") => {
                self.timeout = Some(Duration::from_secs(value.into()));
            }
            name if name.eq_ignore_ascii_case("max") => self.max = Some(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn take(headers: &mut HeaderMap) -> Result<Transfer, &'static str> {
        Transfer::take(Version::HTTP_11, headers)
    }

    #[test]
    fn connection_takes_the_fields_it_names_with_it() {
        let mut headers = map(&[
            ("connection", "close, X-Trace"),
            ("x-trace", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("proxy-authorization", "Basic eA=="),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-type", "text/plain"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("content-type", "text/plain")]));
    }

    #[test]
    fn every_field_that_is_looked_for_is_found_at_its_place() {
        for (at, name) in LOOKED_FOR.iter().enumerate() {
            assert_eq!(Present::place(name), Some(at), "{name}");
        }
        assert_eq!(Present::place(&http::header::DATE), None);
    }

    #[test]
    fn a_length_beside_a_transfer_coding_is_dropped() {
        let mut headers = map(&[("transfer-encoding", "chunked"), ("content-length", "1")]);
        let transfer = take(&mut headers).unwrap();
        assert!(transfer.keep_alive.close && transfer.is_chunked);
        assert!(headers.is_empty());
    }

    #[test]
    fn connection_cannot_name_the_framing_away() {
        let mut headers =
            map(&[("connection", "content-length, host"), ("content-length", "3"), ("host", "a")]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("content-length", "3"), ("host", "a")]));
    }

    #[test]
    fn odd_framing_is_seen() {
        let is_odd = |fields: &[_]| take(&mut map(fields)).is_err();
        assert!(!is_odd(&[]));
        assert!(!is_odd(&[("content-length", "12")]));
        assert!(!is_odd(&[("transfer-encoding", "Chunked")]));
        assert!(is_odd(&[("transfer-encoding", "gzip, chunked")]));
        assert!(is_odd(&[("content-length", "2, 2")]));
        assert!(is_odd(&[("content-length", "+2")]));
        assert!(is_odd(&[("content-length", "")]));
        assert!(is_odd(&[("content-length", "18446744073709551616")]));
        assert!(is_odd(&[("content-length", "2"), ("content-length", "2")]));
        assert!(Transfer::take(Version::HTTP_10, &mut map(&[("transfer-encoding", "chunked")])).is_err());
    }

    #[test]
    fn http_1_0_closes_unless_it_says_otherwise() {
        let closes =
            |fields: &[_]| Transfer::take(Version::HTTP_10, &mut map(fields)).unwrap().keep_alive.close;
        assert!(closes(&[]));
        assert!(closes(&[("connection", "close")]));
        assert!(!closes(&[("connection", "Keep-Alive")]));
    }

    #[test]
    fn keep_alive_is_read_as_llama_cpp_sends_it() {
        let mut headers = map(&[("keep-alive", "timeout=5, max=100"), ("connection", "keep-alive")]);
        let hint = take(&mut headers).unwrap().keep_alive;
        let expected = KeepAlive { close: false, timeout: Some(Duration::from_secs(5)), max: Some(100) };
        assert_eq!(hint, expected);
    }

    #[test]
    fn nonsense_in_keep_alive_is_as_if_absent() {
        let hint = take(&mut map(&[("keep-alive", "timeout=soon, max, =3, max=-1")])).unwrap().keep_alive;
        assert_eq!(hint, KeepAlive::default());
    }
}
