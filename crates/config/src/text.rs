//! Strings with a form of their own: durations, sizes, addresses, URLs, header names.
//!
//! Each is a newtype whose JSON schema carries a `format`; the walk over the document checks formats by the same
//! function that the newtype parses with, so that the two can't differ.

mod http;
mod identity;
mod quantity;
mod redis;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use refrain_core::settings::{Endpoint, KeyHash, Network as CoreNetwork};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _};

use crate::settle::{endpoint_of_url, parse_key_hash, parse_sha256};

pub(crate) use quantity::{format_bytes, format_span};
pub(crate) use redis::{RedisServer, format_redis_url};

macro_rules! textual {
    ($($(#[$doc:meta])* $name:ident($inner:ty) = $format:literal by $parse:path, like $example:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug)]
            pub(crate) struct $name(pub(crate) $inner);

            impl $name {
                /// Reads it, or says what was expected.
                pub(crate) fn parse(text: &str) -> Result<Self, String> {
                    $parse(text).map(Self)
                }
            }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let text = String::deserialize(deserializer)?;
                    Self::parse(&text).map_err(D::Error::custom)
                }
            }

            impl JsonSchema for $name {
                fn inline_schema() -> bool {
                    true
                }

                fn schema_name() -> Cow<'static, str> {
                    stringify!($name).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!({ "type": "string", "format": $format, "examples": [$example] })
                }
            }
        )*

        /// Whether a text has the form that a schema's `format` names. Formats not from here take any text.
        pub(crate) fn check_format(format: &str, text: &str) -> Result<(), String> {
            match format {
                $($format => $parse(text).map(drop),)*
                _ => Ok(()),
            }
        }
    };
}

textual! {
    /// A time, longer than zero.
    TimeSpan(std::time::Duration) = "duration" by quantity::parse_span, like "1h30m";
    /// A number of bytes, more than zero.
    Bytes(u64) = "byte-size" by quantity::parse_bytes, like "8 MiB";
    /// An IP address and a port to listen on.
    Address(SocketAddr) = "socket-address" by parse_address, like "127.0.0.1:8080";
    /// An IP address, or all that begin with the same bits.
    Network(CoreNetwork) = "ip-network" by parse_network, like "10.0.0.0/8";
    /// An upstream server.
    UpstreamUrl(Endpoint) = "upstream-url" by endpoint_of_url, like "http://gpu-a:8000";
    /// A salted hash of an API key.
    Hash(KeyHash) = "key-hash" by parse_key_hash, like "blake3:SALT:DIGEST";
    /// A point in time.
    Moment(std::time::SystemTime) = "moment" by parse_moment, like "2027-01-31";
    /// A document on a web server.
    WebUrl(WebPlace) = "web-url" by identity::parse_web_url, like "https://sso.example.com/jwks.json";
    /// A kind of credential.
    AuthMethod(refrain_core::settings::AuthMethod) = "auth-method" by identity::parse_auth_method, like "key";
    /// A SHA-256 digest.
    Sha256([u8; 32]) = "sha256" by parse_sha256, like "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    /// A host name to match.
    HostPattern(String) = "host-pattern" by http::parse_host, like "*.example.com";
    /// A path that begins with a slash.
    UrlPath(String) = "url-path" by http::parse_path, like "/v1";
    /// A path that is compared as a whole.
    ExactPath(String) = "exact-path" by http::parse_exact_path, like "/v1/rerank";
    /// An HTTP method.
    Method(String) = "http-method" by http::parse_method, like "POST";
    /// An origin of web pages.
    CorsOrigin(String) = "cors-origin" by http::parse_origin, like "https://chat.example.com";
    /// An upstream response header that may be stored.
    ReplayHeader(String) = "replay-header" by http::parse_replay_header, like "openai-model";
    /// A Redis server.
    RedisUrl(RedisServer) = "redis-url" by redis::parse_url, like "redis://user:password@host:6379/0";
    /// The first part of key names.
    KeyPrefix(String) = "key-prefix" by redis::parse_prefix, like "refrain";
    /// A request header.
    HeaderName(String) = "header-name" by parse_header_name, like "x-session-id";
    /// A metric in Prometheus' text format.
    MetricName(String) = "metric-name" by parse_metric_name, like "DCGM_FI_DEV_GPU_UTIL";
    /// A JSON pointer.
    JsonPointer(String) = "json-pointer" by parse_json_pointer, like "/prompt_cache_key";
    /// A name in a certificate.
    ServerName(String) = "server-name" by redis::parse_server_name, like "redis.example.com";
    /// A file or folder.
    FilePath(PathBuf) = "file-path" by parse_file, like "certs/chain.pem";
    /// A text that isn't empty.
    NonEmpty(String) = "non-empty" by parse_non_empty, like "name";
}

pub(crate) use http::parse_header_name;
pub(crate) use identity::WebPlace;
pub use identity::parse_moment;

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected an IP address and a port, like 127.0.0.1:8080 or [::]:8080".to_owned())
}

fn parse_network(text: &str) -> Result<CoreNetwork, String> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address.parse::<IpAddr>(), prefix.parse().ok()),
        None => (text.parse::<IpAddr>(), None),
    };
    let network = address.ok().and_then(|address| {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        CoreNetwork::of(address, if text.contains('/') { prefix? } else { whole })
    });
    network.ok_or_else(|| "expected an IP address or a network, like 10.0.0.7 or 10.0.0.0/8".to_owned())
}

fn parse_file(text: &str) -> Result<PathBuf, String> {
    parse_non_empty(text).map(PathBuf::from)
}

/// What needs no quotes in Prometheus' text format.
fn parse_metric_name(text: &str) -> Result<String, String> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    let has_good_start = text.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    if has_good_start && text.bytes().all(is_inner) {
        Ok(text.to_owned())
    } else {
        Err("expected a metric's name without labels, like \"DCGM_FI_DEV_GPU_UTIL\"".to_owned())
    }
}

/// A pointer to a member (RFC 6901): the whole body is none.
fn parse_json_pointer(text: &str) -> Result<String, String> {
    let is_escaped = |segment: &str| {
        let mut tildes = segment.split('~').skip(1);
        tildes.all(|rest| rest.starts_with(['0', '1']))
    };
    match text.strip_prefix('/') {
        Some(segments) if !segments.is_empty() && segments.split('/').all(is_escaped) => Ok(text.to_owned()),
        _ => Err("expected a JSON pointer, like \"/metadata/session\"".to_owned()),
    }
}

fn parse_non_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}
