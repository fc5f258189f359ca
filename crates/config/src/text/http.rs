//! Parts of HTTP messages that config names.

use url::Url;

/// Response headers that belong to one connection, one answer or one client, and so are never replayed.
const NEVER_REPLAYED: [&str; 14] = [
    "age",
    "cache-status",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "keep-alive",
    "proxy-authenticate",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A header's name in lower case (RFC 9110, section 5.1: a token).
pub(crate) fn parse_header_name(text: &str) -> Result<String, String> {
    if is_token(text) { Ok(text.to_ascii_lowercase()) } else { Err("not a header name".to_owned()) }
}

/// The name of a header that may be stored with an answer.
pub(super) fn parse_replay_header(text: &str) -> Result<String, String> {
    let name = parse_header_name(text)?;
    if NEVER_REPLAYED.contains(&name.as_str()) {
        return Err(format!("{name} belongs to one answer or one client and is never replayed"));
    }
    Ok(name)
}

/// A method in upper case.
pub(super) fn parse_method(text: &str) -> Result<String, String> {
    if is_token(text) { Ok(text.to_ascii_uppercase()) } else { Err("not a method".to_owned()) }
}

/// A host name in lower case, without port; `*.` in front stands for one label.
pub(super) fn parse_host(text: &str) -> Result<String, String> {
    let host = text.to_ascii_lowercase();
    let name = host.strip_prefix("*.").unwrap_or(&host);
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let good = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.split('.').all(is_label),
    };
    if good {
        Ok(host)
    } else {
        Err("expected a host without port, like chat.example.com or *.example.com".to_owned())
    }
}

/// A path without a trailing slash, unless it is `/`.
pub(super) fn parse_path(text: &str) -> Result<String, String> {
    let segments = text.strip_prefix('/').ok_or("a path begins with a slash")?;
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains(['?', '#']) {
        return Err(
            "a path holds no spaces, no query and no fragment; percent-encode other characters".to_owned()
        );
    }
    let trimmed = segments.strip_suffix('/').unwrap_or(segments);
    if !segments.is_empty() && trimmed.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err("a path holds no empty, \".\" or \"..\" segment".to_owned());
    }
    Ok(format!("/{trimmed}"))
}

/// A path as it is, trailing slash included.
pub(super) fn parse_exact_path(text: &str) -> Result<String, String> {
    parse_path(text).map(|_| text.to_owned())
}

/// `*`, or an origin as browsers send it (RFC 6454).
pub(super) fn parse_origin(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    let origin = Url::parse(text).ok().map(|url| url.origin().ascii_serialization());
    origin.filter(|origin| *origin == text.to_ascii_lowercase()).ok_or_else(|| {
        "expected \"*\" or an origin like https://chat.example.com, without path and default port".to_owned()
    })
}

fn is_label(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_their_trailing_slash_and_keep_nothing_ambiguous() {
        for (text, expected) in [("/", "/"), ("/v1", "/v1"), ("/v1/", "/v1"), ("/a/b", "/a/b")] {
            assert_eq!(parse_path(text).as_deref(), Ok(expected));
        }
        for text in ["", "v1", "//", "/a//b", "/a/../b", "/./a", "/a?b", "/a#b", "/a b", "/ä"] {
            assert!(parse_path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_are_lower_case_and_without_port() {
        for (text, expected) in
            [("Chat.Example.com", "chat.example.com"), ("*.example.com", "*.example.com"), ("[::1]", "[::1]")]
        {
            assert_eq!(parse_host(text).as_deref(), Ok(expected));
        }
        for text in ["", "a:80", "*", "a.*.b", "a..b", "http://a", "[::1", "*."] {
            assert!(parse_host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn origins_have_no_path_and_no_default_port() {
        for text in ["*", "https://chat.example.com", "http://localhost:3000"] {
            assert_eq!(parse_origin(text).as_deref(), Ok(text));
        }
        for text in
            ["", "chat.example.com", "https://a/", "https://a:443", "https://a/b", "null", "file:///a"]
        {
            assert!(parse_origin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cookies_are_never_replayed() {
        assert!(parse_replay_header("Set-Cookie").is_err());
        assert_eq!(parse_replay_header("OpenAI-Model").as_deref(), Ok("openai-model"));
    }
}
