//! CORS (fetch.spec.whatwg.org): preflights are answered here, since model servers answer them wrongly or not at all.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use http::{Method, Response, StatusCode};

use crate::body::Body;
use crate::route::Routed;

/// The response to a preflight; none if the request is none, or the route says nothing about CORS.
pub(crate) fn preflight(routed: &Routed) -> Option<Response<Body>> {
    let headers = &routed.head.parts.headers;
    let is_preflight =
        routed.head.parts.method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if !is_preflight || routed.state.route.cors_origins.is_empty() {
        return None;
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if allow(&routed.state.route.cors_origins, headers.get(ORIGIN), response.headers_mut()) {
        let answer = response.headers_mut();
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, OPTIONS"));
        answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        // SDKs send many x-stainless-* headers and add new ones: what is asked for is allowed.
        if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
    }
    Some(response)
}

/// Marks a response as readable by the request's origin, if the route allows it; replaces what the upstream said.
/// Returns whether it is allowed.
pub(crate) fn allow(origins: &[String], origin: Option<&HeaderValue>, response: &mut HeaderMap) -> bool {
    let Some(first) = origins.first() else { return false };
    response.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
    let Some(origin) = origin else { return false };
    if first == "*" {
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    } else if origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        response.append(VARY, HeaderValue::from_static("origin"));
    } else {
        return false;
    }
    let exposed = HeaderValue::from_static("cache-status, age, ratelimit, ratelimit-policy, retry-after");
    response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origins: &[&str], origin: Option<&'static str>) -> Option<HeaderValue> {
        let origins: Vec<String> = origins.iter().map(ToString::to_string).collect();
        let origin = origin.map(HeaderValue::from_static);
        let mut response = HeaderMap::new();
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("https://upstream.example"));
        allow(&origins, origin.as_ref(), &mut response);
        response.get(ACCESS_CONTROL_ALLOW_ORIGIN).cloned()
    }

    #[test]
    fn the_upstreams_word_on_origins_is_replaced_by_the_routes() {
        let chat = "https://chat.example";
        assert_eq!(allowed(&[chat], Some(chat)), Some(HeaderValue::from_static(chat)));
        assert_eq!(allowed(&[chat], Some("https://evil.example")), None);
        assert_eq!(allowed(&["*"], Some(chat)), Some(HeaderValue::from_static("*")));
        assert_eq!(allowed(&[chat], None), None);
        assert_eq!(allowed(&[], Some(chat)), Some(HeaderValue::from_static("https://upstream.example")));
    }
}
