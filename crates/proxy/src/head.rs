//! First stage: the request's head, checked and brought into one form.

use http::header::HOST;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Version};
use refrain_core::settings::Limits;
use refrain_core::{Code, Dialect, ListenerId};

use crate::failure::Failure;
use crate::paths::{self, PathClass};

/// Proof that a head is usable: its host is known, its path is plain.
pub(crate) struct Head {
    /// Method, target, headers as they came.
    pub(crate) parts: Parts,
    /// Lower-case host without port; empty for an HTTP/1.0 request without one.
    pub(crate) host: String,
    /// What the path is.
    pub(crate) class: PathClass,
    /// How to answer.
    pub(crate) dialect: Dialect,
    /// Where it came in.
    pub(crate) listener: ListenerId,
}

impl Head {
    /// The path, without the query.
    pub(crate) fn path(&self) -> &str {
        self.parts.uri.path()
    }

    /// What to ask the upstream for.
    pub(crate) fn path_and_query(&self) -> Result<PathAndQuery, Failure> {
        let target = self.parts.uri.path_and_query().cloned();
        target.ok_or_else(|| Failure::new(Code::BadRequest, "the request has no path"))
    }

    /// A header's value, if it is there once or more and is visible ASCII.
    pub(crate) fn header(&self, name: &http::HeaderName) -> Option<&str> {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Checks the head. The connection's own bounds are wider, so that these are told in the client's dialect.
pub(crate) fn check(listener: &ListenerId, limits: &Limits, parts: Parts) -> Result<Head, Failure> {
    if !fits(&parts, limits) {
        let message =
            format!("at most {} headers of {} bytes together", limits.headers_max, limits.head_bytes_max);
        return Err(Failure::new(Code::HeadTooLarge, message));
    }
    // An upstream that answers TRACE would show the client what Refrain adds for it: credentials, too.
    if matches!(parts.method, Method::TRACE | Method::CONNECT) {
        let message = "neither TRACE nor CONNECT is passed on";
        return Err(Failure::new(Code::MethodNotAllowed, message).with_allowed("GET, HEAD, POST"));
    }
    let path = parts.uri.path();
    if !is_plain(path) {
        return Err(Failure::new(
            Code::BadRequest,
            "the path must be plain: no empty, dot or encoded segments",
        ));
    }
    let (class, dialect) = (paths::classify(path), Dialect::of_path(path));
    let host = host(&parts)?;
    Ok(Head { host, class, dialect, listener: listener.clone(), parts })
}

/// Whether target and headers are within the limits; each header counts with its `: ` and line end.
fn fits(parts: &Parts, limits: &Limits) -> bool {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let headers =
        parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
    parts.headers.len() <= limits.headers_max && target + headers <= limits.head_bytes_max
}

/// Whether a path means the same to every reader: routes and upstreams must not disagree about it.
fn is_plain(path: &str) -> bool {
    if !path.contains('%') {
        return has_plain_segments(path);
    }
    // Whoever decodes a slash, perhaps a front of the model servers, must find no other segments than these.
    has_plain_encoding(path) && has_plain_segments(&path.replace("%2F", "/").replace("%2f", "/"))
}

/// Whether no segment is empty (but the last) or made of dots.
fn has_plain_segments(path: &str) -> bool {
    let bytes = path.as_bytes();
    let begins_odd = |segment: &[u8]| {
        matches!(segment, [b'/', ..] | [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..])
    };
    let is_odd = |(at, byte): (usize, &u8)| match byte {
        b'/' => begins_odd(&bytes[at + 1..]),
        _ => false,
    };
    bytes.first() == Some(&b'/') && !bytes.iter().enumerate().any(is_odd)
}

/// Whether no percent-encoding hides a dot, a slash or a control character. Model names may hold an encoded slash.
fn has_plain_encoding(path: &str) -> bool {
    path.match_indices('%').all(|(at, _)| {
        let code = path.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            None | Some(0..=0x1f | b'.' | b'\\' | b'%' | 0x7f) => false,
            Some(b'/') => path.starts_with("/v1/models/"),
            Some(_) => true,
        }
    })
}

fn host(parts: &Parts) -> Result<String, Failure> {
    let mut fields = parts.headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(Failure::new(Code::BadRequest, "more than one Host field"));
    }
    if let Some(authority) = parts.uri.authority() {
        return Ok(authority.host().to_ascii_lowercase());
    }
    let Some(field) = field else {
        // RFC 9112, section 3.2.
        let is_needed = parts.version == Version::HTTP_11;
        let failure = || Failure::new(Code::BadRequest, "a request of HTTP/1.1 has a Host field");
        return if is_needed { Err(failure()) } else { Ok(String::new()) };
    };
    let host = field.to_str().ok().and_then(without_port);
    host.map(str::to_ascii_lowercase)
        .ok_or_else(|| Failure::new(Code::BadRequest, "the Host field is not a host"))
}

/// The host of `host[:port]`: a name, an IPv4 address, or an IPv6 address in brackets (which stay).
fn without_port(text: &str) -> Option<&str> {
    let (host, port, is_allowed): (_, _, fn(u8) -> bool) = match text.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')? + 2;
            (&text[..end], &text[end..], |byte| byte.is_ascii_hexdigit() || b"[]:.".contains(&byte))
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            (&text[..end], &text[end..], |byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    let is_port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    (is_port && !host.is_empty() && host.bytes().all(is_allowed)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn checked(uri: &str, hosts: &[&str]) -> Result<Head, Failure> {
        let mut request = Request::get(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        check(&ListenerId::new("main"), &Limits::default(), request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn host_is_lower_case_and_without_port() {
        assert_eq!(checked("/v1/models", &["LLM.example.com:8080"]).unwrap().host, "llm.example.com");
        assert_eq!(checked("http://A.b:1/v1/models", &["c"]).unwrap().host, "a.b");
        assert_eq!(checked("/", &["[::1]:80"]).unwrap().host, "[::1]");
    }

    #[test]
    fn only_http_1_1_must_name_its_host() {
        let checked = |version| {
            let request = Request::get("/").version(version).body(()).unwrap();
            check(&ListenerId::new("main"), &Limits::default(), request.into_parts().0)
        };
        assert_eq!(checked(Version::HTTP_11).err().map(|failure| failure.code), Some(Code::BadRequest));
        for version in [Version::HTTP_10, Version::HTTP_2] {
            assert_eq!(checked(version).unwrap().host, "");
        }
    }

    #[test]
    fn what_would_show_a_request_to_its_sender_is_refused() {
        for method in [Method::TRACE, Method::CONNECT] {
            let request = Request::builder().method(method).uri("/v1/models").header(HOST, "a");
            let checked =
                check(&ListenerId::new("main"), &Limits::default(), request.body(()).unwrap().into_parts().0);
            assert_eq!(checked.err().map(|failure| failure.code), Some(Code::MethodNotAllowed));
        }
    }

    #[test]
    fn a_head_over_the_limits_is_refused() {
        let limits = Limits { head_bytes_max: 64, headers_max: 3, ..Limits::default() };
        let check = |fields: &[(&str, usize)]| {
            let bare = Request::get("/v1/models").version(Version::HTTP_10);
            let request = fields
                .iter()
                .fold(bare, |request, (name, length)| request.header(*name, "x".repeat(*length)));
            check(&ListenerId::new("main"), &limits, request.body(()).unwrap().into_parts().0)
                .err()
                .map(|f| f.code)
        };
        // The path has 10 bytes, each header 5 beside its value.
        assert_eq!(check(&[("a", 24), ("b", 20)]), None);
        assert_eq!(check(&[("a", 24), ("b", 21)]), Some(Code::HeadTooLarge));
        assert_eq!(check(&[("a", 0), ("b", 0), ("c", 0), ("d", 0)]), Some(Code::HeadTooLarge));
    }

    #[test]
    fn two_hosts_or_a_broken_one_are_refused() {
        for hosts in
            [&["a", "b"][..], &["a b"], &["user@a"], &["a/b"], &["[::1"], &["a:b"], &["[a]b"], &[":80"]]
        {
            assert_eq!(checked("/", hosts).err().map(|f| f.code), Some(Code::BadRequest), "{hosts:?}");
        }
    }

    #[test]
    fn paths_that_two_readers_could_read_differently_are_refused() {
        for path in [
            "/v1//models",
            "/v1/./models",
            "/v1/../api/pull",
            "/v1/%2e%2e/api/pull",
            "/api%2fpull",
            "/a%zz",
            "/v1/models/x%2F..%2F..%2f..%2Fapi%2Fpull",
            "/v1/models/%2F..",
            "/v1/models/x%2f.",
            "/v1/models/x%2F%2Fy",
        ] {
            assert_eq!(checked(path, &["a"]).err().map(|f| f.code), Some(Code::BadRequest), "{path}");
        }
        assert!(checked("/v1/models/google%2Fgemma-3", &["a"]).is_ok());
    }
}
