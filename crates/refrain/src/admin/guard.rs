//! Keeps web pages out: a browser on the operator's machine reaches loopback on behalf of any page that it shows.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method, Uri};

/// Why a request is refused, if it is.
///
/// A page may send a POST to any address: browsers then name the page as `Origin`, and no tool for operators does. A
/// page may also point its own name at 127.0.0.1 (DNS rebinding): a loopback listener answers to local names only.
pub(crate) fn refusal(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    is_local: bool,
) -> Option<&'static str> {
    if method != Method::GET && method != Method::HEAD && headers.contains_key(ORIGIN) {
        return Some("web pages may not call this; use curl");
    }
    let host = uri.authority().map(|authority| authority.as_str());
    let host = host.or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()));
    if is_local && host.is_some_and(|host| !is_local_name(host)) {
        return Some("this listener answers to localhost and to addresses only; use those in the URL");
    }
    None
}

/// Whether a `Host` is localhost or an address: names that no page can point elsewhere.
fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, header: (&'static str, &'static str), is_local: bool, refused: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header.0, header.1.parse().unwrap());
        let refusal = refusal(&method, &Uri::from_static("/reload"), &headers, is_local);
        assert_eq!(refusal.is_some(), refused, "{method} {header:?}");
    }

    #[test]
    fn a_page_of_another_site_can_not_reload() {
        check(Method::POST, ("origin", "https://evil.example"), true, true);
        check(Method::POST, ("origin", "null"), false, true);
        check(Method::POST, ("host", "127.0.0.1:9090"), true, false);
    }

    #[test]
    fn a_name_rebound_to_loopback_is_refused_there() {
        check(Method::GET, ("host", "evil.example:9090"), true, true);
        check(Method::GET, ("host", "refrain.internal:9090"), false, false);
        check(Method::GET, ("host", "LocalHost:9090"), true, false);
        check(Method::GET, ("host", "[::1]:9090"), true, false);
    }
}
