//! How the servers of a pool are spoken to: what the pool says of all, and what a server says of itself.

use std::collections::BTreeMap;

use refrain_core::EndpointId;
use refrain_core::settings::{Certificate, Endpoint, EndpointTls, HttpVersion, Secret};

use super::{Context, secrets};
use crate::raw;
use crate::text::parse_header_name;

/// Headers that frame a message or belong to one connection, and so are never set by config.
const NOT_SETTABLE: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a pool says of all its servers, or a server of itself.
pub(super) struct Access {
    http: Option<HttpVersion>,
    tls: Option<RawTls>,
    authorization: Option<Secret>,
    headers: BTreeMap<String, Secret>,
}

/// TLS as one table has it.
#[derive(Clone, Default)]
struct RawTls {
    ca_file: Option<std::path::PathBuf>,
    client: Option<Certificate>,
    server_name: Option<String>,
    verify: Option<bool>,
}

/// The keys of a pool, or of a server, that say how to speak to it.
pub(super) struct RawAccess {
    pub(super) http_version: Option<raw::HttpVersion>,
    pub(super) tls: Option<raw::UpstreamTls>,
    pub(super) authorization: Option<raw::SecretSource>,
    pub(super) headers: BTreeMap<String, raw::SecretSource>,
}

impl Access {
    /// Reads secrets, and watches what is named. `path` is the table that the keys are in.
    pub(super) fn of(context: &mut Context<'_>, path: &[&str], raw: RawAccess) -> Self {
        let at = |key| [path, &[key]].concat();
        Self {
            http: raw.http_version.map(HttpVersion::from),
            tls: raw.tls.map(|raw| tls(context, &at("tls"), raw)),
            authorization: raw.authorization.and_then(|raw| secret(context, &at("authorization"), raw)),
            headers: headers(context, &at("headers"), raw.headers),
        }
    }

    /// Whether it says anything of TLS.
    pub(super) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// A server that says nothing of itself beside its URL.
    pub(super) fn endpoint(&self, of_url: Endpoint) -> Endpoint {
        Endpoint {
            tls: of_url.tls.map(|_| settled(self.tls.clone().unwrap_or_default(), RawTls::default())),
            http: self.http.unwrap_or(of_url.http),
            authorization: self.authorization.clone(),
            headers: self.headers.clone(),
            ..of_url
        }
    }

    /// A server with keys of its own, which go before the pool's; none without a URL, which is known already.
    pub(super) fn endpoint_of(
        &self,
        context: &mut Context<'_>,
        path: &[&str],
        raw: raw::Endpoint,
    ) -> Option<Endpoint> {
        let raw::Endpoint { name, url, weight, price_per_hour: _, http_version, tls, authorization, headers } =
            raw;
        let own = Self::of(context, path, RawAccess { http_version, tls, authorization, headers });
        let of_url = url?.0;
        if own.has_tls() && of_url.tls.is_none() {
            let message = "has no effect: only a URL that begins with https:// means TLS";
            context.refuse(&[path, &["tls"]].concat(), message, None);
        }
        let pools = self.tls.clone().unwrap_or_default();
        let mut headers = self.headers.clone();
        headers.extend(own.headers);
        Some(Endpoint {
            id: name.map_or_else(|| of_url.id.clone(), |name| EndpointId::new(name.0)),
            tls: of_url.tls.is_some().then(|| settled(own.tls.unwrap_or_default(), pools)),
            http: own.http.or(self.http).unwrap_or(of_url.http),
            weight: weight.unwrap_or(of_url.weight),
            authorization: own.authorization.or_else(|| self.authorization.clone()),
            headers,
            ..of_url
        })
    }
}

impl From<raw::HttpVersion> for HttpVersion {
    fn from(raw: raw::HttpVersion) -> Self {
        match raw {
            raw::HttpVersion::Auto => Self::Auto,
            raw::HttpVersion::Http1 => Self::Http1,
            raw::HttpVersion::Http2 => Self::Http2,
        }
    }
}

/// Key by key, the first table's before the second's.
fn settled(own: RawTls, pools: RawTls) -> EndpointTls {
    EndpointTls {
        ca_file: own.ca_file.or(pools.ca_file),
        client: own.client.or(pools.client),
        server_name: own.server_name.or(pools.server_name),
        verify: own.verify.or(pools.verify).unwrap_or(true),
    }
}

fn tls(context: &mut Context<'_>, path: &[&str], raw: raw::UpstreamTls) -> RawTls {
    let verify = [path, &["verify"]].concat();
    if raw.verify == Some(false) {
        if raw.ca_file.is_some() {
            context.refuse(&verify, "beside ca_file: nobody is asked who vouches; keep one of the two", None);
        }
        context.warn(&verify, "anybody between here and the server can read requests and answer them");
    }
    RawTls {
        ca_file: raw.ca_file.map(|file| context.watched(&file.0)),
        // None if a part is missing, which is known already.
        client: raw.client_certificate.and_then(|raw| {
            let (chain, key) = (raw.chain?, raw.key?);
            Some(Certificate { chain: context.watched(&chain.0), key: context.watched(&key.0) })
        }),
        server_name: raw.server_name.map(|name| name.0),
        verify: raw.verify,
    }
}

fn headers(
    context: &mut Context<'_>,
    path: &[&str],
    raw: BTreeMap<String, raw::SecretSource>,
) -> BTreeMap<String, Secret> {
    let mut headers = BTreeMap::new();
    for (written, source) in raw {
        let path = [path, &[written.as_str()]].concat();
        let value = secret(context, &path, source);
        match settable(&written) {
            Err(message) => context.refuse(&path, message, None),
            Ok(name) if headers.contains_key(&name) => context.refuse(&path, "named twice", None),
            Ok(name) => headers.extend(value.map(|value| (name, value))),
        }
    }
    headers
}

/// The name of a header that config may set, in lower case.
fn settable(written: &str) -> Result<String, String> {
    let name = parse_header_name(written)?;
    if name == "authorization" {
        return Err("this header has a key of its own: authorization".to_owned());
    }
    if NOT_SETTABLE.contains(&name.as_str()) {
        return Err(format!("{name} is set for each connection anew; leave it out"));
    }
    Ok(name)
}

fn secret(context: &mut Context<'_>, path: &[&str], raw: raw::SecretSource) -> Option<Secret> {
    header_value(context, raw).map_err(|message| context.refuse(path, message, None)).ok()
}

/// Reads the value of a header; no message holds it.
pub(super) fn header_value(context: &mut Context<'_>, raw: raw::SecretSource) -> Result<Secret, String> {
    secrets::read(context, raw).and_then(|text| match text.trim() {
        text if text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) => {
            Ok(Secret(text.to_owned()))
        }
        _ => Err("holds characters that a header can't".to_owned()),
    })
}
