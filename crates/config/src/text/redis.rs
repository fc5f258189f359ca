//! Redis: URLs, first parts of key names, names in certificates.
//!
//! No message holds text of a URL: it may be a password.

use std::net::IpAddr;
use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use refrain_core::settings::{RedisCredentials, RedisNode, Secret};
use url::{Host, Url};

/// Port of a URL without one.
const PORT: u16 = 6379;

/// Longest path of a socket (`sun_path` of Linux, without its final zero).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Longest first part of a key name.
const PREFIX_BYTES_MAX: usize = 64;

/// Longest host name (RFC 1035).
const HOST_BYTES_MAX: usize = 253;

/// What a path's text escapes.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What a URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RedisServer {
    /// Where it listens.
    pub(crate) node: RedisNode,
    /// Whether to speak TLS.
    pub(crate) tls: bool,
    /// Who connects, percent-decoded.
    pub(crate) credentials: RedisCredentials,
    /// Database number.
    pub(crate) database: u32,
}

/// Reads `redis://user:password@host:6379/0`, `rediss://...` and `redis+unix:///path?db=0&user=...&pass=...`.
pub(super) fn parse_url(text: &str) -> Result<RedisServer, String> {
    let url = Url::parse(text.trim()).map_err(|error| {
        format!(
            "not a URL ({error}); expected one like redis://user:password@host:6379/0, with special characters of the \
             password percent-encoded"
        )
    })?;
    match url.fragment() {
        None => {}
        Some("insecure") => {
            return Err(
                "\"#insecure\" would trust whoever answers; leave it out, and name whom to trust in \
                        store.redis.tls.ca_file"
                    .to_owned(),
            );
        }
        Some(_) => {
            return Err("what follows \"#\" means nothing here; in a password, write it as %23".to_owned());
        }
    }
    match url.scheme() {
        "redis" => tcp(&url),
        "rediss" => tcp(&url).map(|server| RedisServer { tls: true, ..server }),
        "redis+unix" | "unix" => socket(&url),
        _ => Err("expected a URL that begins with redis://, rediss:// or redis+unix://".to_owned()),
    }
}

fn tcp(url: &Url) -> Result<RedisServer, String> {
    if url.query().is_some() {
        return Err(
            "options after \"?\" mean nothing here: use the keys of [store.redis]; in a password, write it \
                    as %3F"
                .to_owned(),
        );
    }
    let host = match url.host() {
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        Some(Host::Domain(name)) if is_host(name) => name.to_owned(),
        Some(Host::Domain(name)) if !name.is_empty() => {
            return Err("a host has letters, digits, \"-\", \"_\" and \".\"".to_owned());
        }
        _ => return Err("the URL names no host".to_owned()),
    };
    let port = url.port().unwrap_or(PORT);
    if port == 0 {
        return Err("port 0 can't be connected to".to_owned());
    }
    let password = url.password().map(decode).transpose()?;
    Ok(RedisServer {
        node: RedisNode::Tcp { host, port },
        tls: false,
        credentials: credentials(decode(url.username())?, password.unwrap_or_default()),
        database: database(url.path().trim_start_matches('/'))?,
    })
}

fn socket(url: &Url) -> Result<RedisServer, String> {
    if url.has_host() && url.host_str().is_some_and(|host| !host.is_empty()) {
        return Err("a socket's path begins with a third slash: redis+unix:///run/redis.sock".to_owned());
    }
    let path = decode(url.path())?;
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err("the URL names no socket; expected one like redis+unix:///run/redis.sock".to_owned());
    }
    if path.len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!("a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes"));
    }
    let (mut user, mut password, mut number) = (String::new(), String::new(), 0);
    for part in url.query().into_iter().flat_map(|query| query.split('&')) {
        match part.split_once('=') {
            Some(("db", value)) => number = database(value)?,
            Some(("user", value)) => user = decode(value)?,
            Some(("pass", value)) => password = decode(value)?,
            _ => {
                return Err(
                    "after \"?\" there may be db, user and pass, as in ?db=1&user=u&pass=p".to_owned()
                );
            }
        }
    }
    let credentials = credentials(user, password);
    Ok(RedisServer { node: RedisNode::Unix(path.into()), tls: false, credentials, database: number })
}

/// Empty ones are none.
fn credentials(username: String, password: String) -> RedisCredentials {
    RedisCredentials {
        username: Some(username).filter(|name| !name.is_empty()),
        password: Some(password).filter(|password| !password.is_empty()).map(Secret),
    }
}

fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| "its percent-encoded parts must be UTF-8".to_owned())
}

fn database(text: &str) -> Result<u32, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number);
    number.ok_or_else(|| "the database is a number, as in redis://host:6379/0".to_owned())
}

/// Writes a URL without credentials, which reads as the same server.
pub(crate) fn format_redis_url(node: &RedisNode, tls: bool, database: u32) -> String {
    let scheme = if tls { "rediss" } else { "redis" };
    match node {
        RedisNode::Tcp { .. } => format!("{scheme}://{node}/{database}"),
        RedisNode::Unix(path) => format!("redis+unix://{}?db={database}", escaped(path)),
    }
}

fn escaped(path: &Path) -> String {
    utf8_percent_encode(&path.to_string_lossy(), ESCAPED).to_string()
}

/// Reads the first part of key names. Without braces: what is between them is what a cluster places keys by.
pub(super) fn parse_prefix(text: &str) -> Result<String, String> {
    let takes = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if (1..=PREFIX_BYTES_MAX).contains(&text.len()) && text.bytes().all(takes) {
        return Ok(text.to_owned());
    }
    Err("a prefix has 1 to 64 letters, digits, \"-\", \"_\", \".\" or \":\"".to_owned())
}

/// Reads a name that a certificate may have.
pub(super) fn parse_server_name(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() || is_host(text) {
        return Ok(text.to_owned());
    }
    Err("expected a host name or an IP address, like redis.example.com".to_owned())
}

fn is_host(name: &str) -> bool {
    (1..=HOST_BYTES_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, node: &str, tls: bool, user: Option<&str>, password: Option<&str>, database: u32) {
        let server = parse_url(text).unwrap();
        let found = (server.node.to_string(), server.tls, server.database);
        assert_eq!(found, (node.to_owned(), tls, database));
        assert_eq!(server.credentials.username.as_deref(), user);
        assert_eq!(server.credentials.password.as_ref().map(|secret| secret.0.as_str()), password);
        let again = parse_url(&format_redis_url(&server.node, server.tls, server.database)).unwrap();
        assert_eq!(again, RedisServer { credentials: RedisCredentials::default(), ..server });
    }

    #[test]
    fn urls_become_servers() {
        check("redis://cache", "cache:6379", false, None, None, 0);
        check(" REDIS://cache:7000/ \n", "cache:7000", false, None, None, 0);
        check("redis://:p@10.0.0.1:1/15", "10.0.0.1:1", false, None, Some("p"), 15);
        check("redis://u:pa%40ss%2Fw%C3%B6rd@h/0", "h:6379", false, Some("u"), Some("pa@ss/wörd"), 0);
        check("redis://u%3Av:p+q:r!@h", "h:6379", false, Some("u:v"), Some("p+q:r!"), 0);
        check("redis://u@h", "h:6379", false, Some("u"), None, 0);
        check("rediss://u:@[2001:db8::1]:6380/2", "[2001:db8::1]:6380", true, Some("u"), None, 2);
        check("redis+unix:///run/a%20b%3F.sock", "unix:/run/a b?.sock", false, None, None, 0);
        check("unix:///r.sock?db=3&user=u&pass=p%26+q", "unix:/r.sock", false, Some("u"), Some("p&+q"), 3);
    }

    #[test]
    fn what_is_no_redis_url_is_refused_without_printing_it() {
        let long = format!("redis+unix:///hunter2/{}", "x".repeat(SOCKET_PATH_BYTES_MAX));
        for text in [
            "",
            "hunter2:6379",
            "hunter2",
            "http://u:hunter2@h",
            "redis://",
            "redis://u:hunter2@",
            "redis:///0",
            "redis:hunter2",
            "redis://u:hunter2@h:0",
            "redis://u:hunter2@h:99999",
            "redis://u:hunter2@h/one",
            "redis://u:hunter2@h/+1",
            "redis://u:hunter2@h/0/1",
            "redis://u:hunter2@h/5000000000",
            "redis://u:hunter2@h?protocol=resp3",
            "redis://u:hunter2%FF@h",
            "redis://u:hunter2#x@h",
            "redis://u:hunter2/x@h",
            "redis://u:6379/hunter2@h",
            "redis://u:6379#hunter2@h",
            "redis://u:hunter2@h o",
            "redis://u:hunter2@h%20o",
            "redis://u:hunter2@.h",
            "redis://u:hunter2@[::1",
            "rediss://u:hunter2@h#insecure",
            "rediss://u:hunter2@h/0#insecure",
            "redis+unix://hunter2/r.sock",
            "redis+unix:///",
            "unix:hunter2",
            "redis+unix:///r.sock?hunter2",
            "redis+unix:///r.sock?db=hunter2",
            "redis+unix:///r.sock?password=hunter2",
            &long,
        ] {
            let error = parse_url(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn prefixes_and_server_names_have_a_form() {
        assert_eq!(parse_prefix("team-a:refrain.v1_"), Ok("team-a:refrain.v1_".to_owned()));
        for text in ["", "{a}", "a b", "ä", &"a".repeat(65)] {
            assert!(parse_prefix(text).is_err(), "{text}");
        }
        for text in ["redis.example.com", "::1", "10.0.0.1", "redis_1"] {
            assert!(parse_server_name(text).is_ok(), "{text}");
        }
        for text in ["", "*.example.com", "[::1]", "a b", "redis://h"] {
            assert!(parse_server_name(text).is_err(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_percent_encoded_comes_back(user in "\\PC{1,12}", password in "\\PC{1,24}", path in "/[^\0/.]{1,12}") {
            let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let expected = credentials(user.clone(), password.clone());
            let tcp = format!("redis://{}:{}@h", encode(&user), encode(&password));
            prop_assert_eq!(&parse_url(&tcp).unwrap().credentials, &expected);
            let socket =
                format!("unix://{}?user={}&pass={}", escaped(Path::new(&path)), encode(&user), encode(&password));
            let server = parse_url(&socket).unwrap();
            prop_assert_eq!(&server.credentials, &expected);
            prop_assert_eq!(server.node, RedisNode::Unix(path.into()));
        }
    }
}
