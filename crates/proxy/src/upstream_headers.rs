//! What passes between client and upstream beside bodies, in both directions.

use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, SET_COOKIE,
};
use refrain_upstream::{Demand, UpstreamBody, UpstreamRequest};

use crate::failure::Failure;
use crate::request::Admitted;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Headers by which front ends say who their user is: for Refrain at most, never for a model server.
const FRONT_END_IDENTITY: &str = "x-openwebui-user-";

/// Headers that are for Refrain alone.
const OWN: &str = "x-refrain-";

/// Whether an answer may come compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Whatever the client accepts: the answer is passed through.
    AsAsked,
    /// Plain: Refrain reads the answer.
    Identity,
}

/// The client's request as the upstream may see it, with this body.
///
/// # Errors
/// The request names no path.
pub(crate) fn request(
    admitted: &Admitted,
    encoding: Encoding,
    body: UpstreamBody,
) -> Result<UpstreamRequest, Failure> {
    let (head, state) = (&admitted.routed.head, admitted.state());
    let route = &state.route;
    Ok(UpstreamRequest {
        method: head.parts.method.clone(),
        path_and_query: head.path_and_query()?,
        headers: for_upstream(
            &head.parts.headers,
            route.forward_credentials,
            &state.identity_headers,
            encoding,
        ),
        body,
        timeouts: route.timeouts,
        demand: Demand::default(),
        charge: None,
    })
}

/// The client's headers as the upstream may see them, those of its connection apart: the upstream client drops them.
fn for_upstream(
    client: &HeaderMap,
    forward_credentials: bool,
    identity: &[String],
    encoding: Encoding,
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(client.len());
    for (name, value) in client {
        let dropped = is_framing(name)
            || (!forward_credentials && is_credential(name))
            || (encoding == Encoding::Identity && name == ACCEPT_ENCODING)
            || name.as_str().starts_with(FRONT_END_IDENTITY)
            || identity.iter().any(|header| header == name.as_str())
            || name.as_str().starts_with(OWN);
        if !dropped {
            headers.append(name, value.clone());
        }
    }
    headers
}

/// What of an upstream's response headers is kept with an entry: listed names only, never a cookie.
pub(crate) fn replayed(headers: &HeaderMap, listed: &[String]) -> Vec<(String, String)> {
    let kept = listed.iter().filter(|name| *name != SET_COOKIE.as_str());
    kept.filter_map(|name| Some((name.clone(), headers.get(name)?.to_str().ok()?.to_owned()))).collect()
}

fn is_framing(name: &HeaderName) -> bool {
    *name == HOST || *name == CONTENT_LENGTH || *name == EXPECT
}

fn is_credential(name: &HeaderName) -> bool {
    *name == AUTHORIZATION || *name == COOKIE || *name == X_API_KEY || name.as_str().starts_with("proxy-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields.iter();
        fields.map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn credentials_framing_and_front_end_identity_stay_here() {
        let client = headers(&[
            ("authorization", "Bearer k"),
            ("x-api-key", "k"),
            ("cookie", "a=b"),
            ("proxy-authorization", "x"),
            ("host", "refrain"),
            ("content-length", "3"),
            ("x-openwebui-user-id", "7"),
            ("x-user-token", "t"),
            ("x-openwebui-chat-id", "c"),
            ("x-stainless-lang", "python"),
            ("accept-encoding", "gzip"),
        ]);
        let sent = for_upstream(&client, false, &["x-user-token".to_owned()], Encoding::Identity);
        let mut names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["x-openwebui-chat-id", "x-stainless-lang"]);
        let sent = for_upstream(&client, true, &[], Encoding::AsAsked);
        assert!(sent.contains_key(AUTHORIZATION) && sent.contains_key(ACCEPT_ENCODING));
    }

    #[test]
    fn cookies_are_never_replayed() {
        let upstream = headers(&[("set-cookie", "s=1"), ("x-model-build", "7")]);
        let listed = ["set-cookie".to_owned(), "x-model-build".to_owned()];
        assert_eq!(replayed(&upstream, &listed), [("x-model-build".to_owned(), "7".to_owned())]);
    }
}
