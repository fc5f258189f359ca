//! Strings that say who may ask: moments, places of key sets, kinds of credentials.

use std::time::SystemTime;

use refrain_core::settings::{AuthMethod, Endpoint};
use url::Url;

use crate::settle::endpoint_of_url;

/// A document on a web server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WebPlace {
    /// The server, without a base path.
    pub(crate) endpoint: Endpoint,
    /// Path and query.
    pub(crate) path: String,
}

/// Reads a day (its first second, UTC) or a time (RFC 3339).
///
/// # Errors
/// What is expected.
pub fn parse_moment(text: &str) -> Result<SystemTime, String> {
    let whole = if text.len() == "2027-01-31".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    humantime::parse_rfc3339(&whole)
        .map_err(|_| "expected a day like 2027-01-31, or a time like 2027-01-31T12:00:00Z".to_owned())
}

/// Reads a URL of http or https with whatever path and query it has.
pub(crate) fn parse_web_url(text: &str) -> Result<WebPlace, String> {
    let expected = "expected a URL like https://sso.example.com/jwks.json";
    let mut url = Url::parse(text).map_err(|error| format!("not a URL ({error}); {expected}"))?;
    url.set_fragment(None);
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("{}{query}", url.path());
    url.set_query(None);
    url.set_path("");
    Ok(WebPlace { endpoint: endpoint_of_url(url.as_str())?, path })
}

/// Reads `key`, `jwt`, `jwt:NAME`, `mtls` or `anonymous`.
pub(crate) fn parse_auth_method(text: &str) -> Result<AuthMethod, String> {
    match text {
        "key" => Ok(AuthMethod::Key),
        "jwt" => Ok(AuthMethod::Jwt(None)),
        "mtls" => Ok(AuthMethod::Certificate),
        "anonymous" => Ok(AuthMethod::Anonymous),
        _ => match text.strip_prefix("jwt:") {
            Some(name) if !name.is_empty() => Ok(AuthMethod::Jwt(Some(name.into()))),
            _ => Err("expected \"key\", \"jwt\", \"jwt:NAME\", \"mtls\" or \"anonymous\"".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_may_lie_anywhere_on_a_server() {
        let place = parse_web_url("https://sso.example.com/realms/a/certs?v=1#x").unwrap();
        assert_eq!((&*place.path, &*place.endpoint.host), ("/realms/a/certs?v=1", "sso.example.com"));
        assert!(place.endpoint.base_path.is_empty() && place.endpoint.tls.is_some());
        assert_eq!(parse_web_url("http://127.0.0.1:1").unwrap().path, "/");
        assert!(parse_web_url("ftp://a/b").is_err() && parse_web_url("https://u:p@a/").is_err());
    }

    #[test]
    fn a_day_is_its_first_second() {
        assert_eq!(parse_moment("2027-01-31"), parse_moment("2027-01-31T00:00:00Z"));
        assert!(parse_moment("31.1.2027").is_err() && parse_moment("2027-13-01").is_err());
    }

    #[test]
    fn methods_are_words() {
        assert_eq!(parse_auth_method("jwt:corp"), Ok(AuthMethod::Jwt(Some("corp".into()))));
        assert!(parse_auth_method("jwt:").is_err() && parse_auth_method("basic").is_err());
    }
}
