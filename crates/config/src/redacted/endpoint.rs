//! Upstream servers. Of headers only the names are shown.

use refrain_core::settings::{Certificate, Endpoint, EndpointTls, HttpVersion};
use serde_json::{Map, Value, json};

use super::REDACTED;

pub(super) fn endpoint(endpoint: &Endpoint) -> Value {
    let mut table = access(endpoint);
    table["name"] = json!(endpoint.id.as_str());
    table["url"] = json!(url(endpoint));
    table
}

/// Its URL, which its credentials are no part of.
pub(super) fn url(endpoint: &Endpoint) -> String {
    let Endpoint { tls, host, port, base_path, .. } = endpoint;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    format!("{scheme}://{host}:{port}{base_path}")
}

/// What a server's table says beside name and URL.
pub(super) fn access(endpoint: &Endpoint) -> Value {
    let Endpoint { id: _, tls, http, host: _, port: _, base_path: _, weight, authorization, headers } =
        endpoint;
    let mut table = json!({
        "weight": weight,
        "http_version": match http {
            HttpVersion::Auto => "auto",
            HttpVersion::Http1 => "http1",
            HttpVersion::Http2 => "http2",
        },
    });
    if let Some(tls) = tls {
        table["tls"] = self::tls(tls);
    }
    if authorization.is_some() {
        table["authorization"] = json!({ "value": REDACTED });
    }
    if !headers.is_empty() {
        let hidden = headers.keys().map(|name| (name.clone(), json!({ "value": REDACTED })));
        table["headers"] = Value::Object(hidden.collect::<Map<_, _>>());
    }
    table
}

fn tls(tls: &EndpointTls) -> Value {
    let EndpointTls { ca_file, client, server_name, verify } = tls;
    let mut table = json!({ "verify": verify });
    if let Some(ca_file) = ca_file {
        table["ca_file"] = json!(ca_file);
    }
    if let Some(Certificate { chain, key }) = client {
        table["client_certificate"] = json!({ "chain": chain, "key": key });
    }
    if let Some(server_name) = server_name {
        table["server_name"] = json!(server_name);
    }
    table
}
