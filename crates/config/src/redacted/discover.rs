//! `[[pool.NAME.discover]]`, without keys and tokens.

use std::net::SocketAddr;

use refrain_core::settings::{
    Discovery, DiscoverySource, DnsSource, Endpoint, KubernetesSource, RunPodSource, RunPodVia, ServicePort,
    Shrinking, SrvSource, Token, VastSource,
};
use serde_json::{Value, json};

use super::{REDACTED, endpoint};
use crate::text::format_span;

pub(super) fn discover(discovery: &Discovery) -> Value {
    let Discovery { name, source, template, interval, shrinking } = discovery;
    let Shrinking { permille_max, allow_empty } = shrinking;
    let mut table = json!({
        "name": name,
        "kind": source.kind(),
        "max_shrink": f64::from(*permille_max) / 1000.0,
        "allow_empty": allow_empty,
    });
    if let Some(interval) = interval {
        table["interval"] = json!(format_span(*interval));
    }
    self::template(template, source, &mut table);
    self::source(source, &mut table);
    table
}

fn template(template: &Endpoint, source: &DiscoverySource, table: &mut Value) {
    table["scheme"] = json!(if template.tls.is_some() { "https" } else { "http" });
    if !template.base_path.is_empty() {
        table["base_path"] = json!(template.base_path);
    }
    let Value::Object(access) = endpoint::access(template) else { return };
    // Records say the weight.
    let is_said = |key: &str| key == "weight" && matches!(source, DiscoverySource::Srv(_));
    for (key, value) in access.into_iter().filter(|(key, _)| !is_said(key)) {
        table[key] = value;
    }
}

fn source(source: &DiscoverySource, table: &mut Value) {
    match source {
        DiscoverySource::Dns(DnsSource { host, port, name_server }) => {
            table["host"] = json!(host);
            table["port"] = json!(port);
            self::name_server(*name_server, table);
        }
        DiscoverySource::Srv(SrvSource { host, name_server }) => {
            table["host"] = json!(host);
            self::name_server(*name_server, table);
        }
        DiscoverySource::File(file) => table["file"] = json!(file),
        DiscoverySource::Kubernetes(source) => kubernetes(source, table),
        DiscoverySource::Vast(VastSource { label, port, api }) => {
            table["port"] = json!(port);
            if let Some(label) = label {
                table["label"] = json!(label);
            }
            provider(api, table);
        }
        DiscoverySource::RunPod(RunPodSource { name_prefix, port, via, api }) => {
            table["port"] = json!(port);
            table["via"] = json!(match via {
                RunPodVia::Proxy => "proxy",
                RunPodVia::Tcp => "tcp",
            });
            if !name_prefix.is_empty() {
                table["name_prefix"] = json!(name_prefix);
            }
            provider(api, table);
        }
    }
}

fn name_server(name_server: Option<SocketAddr>, table: &mut Value) {
    if let Some(name_server) = name_server {
        table["name_server"] = json!(name_server.to_string());
    }
}

fn kubernetes(source: &KubernetesSource, table: &mut Value) {
    let KubernetesSource { namespace, service, port, api, token } = source;
    table["namespace"] = json!(namespace);
    table["service"] = json!(service);
    table["api_url"] = json!(endpoint::url(api));
    table["token"] = match token {
        Token::Fixed(_) => json!({ "value": REDACTED }),
        Token::File(file) => json!({ "file": file }),
    };
    if let Some(file) = api.tls.as_ref().and_then(|tls| tls.ca_file.as_ref()) {
        table["ca_file"] = json!(file);
    }
    match port {
        Some(ServicePort::Name(name)) => table["port"] = json!(name),
        Some(ServicePort::Number(number)) => table["port"] = json!(number),
        None => {}
    }
}

fn provider(api: &Endpoint, table: &mut Value) {
    table["api_url"] = json!(endpoint::url(api));
    table["api_key"] = json!({ "value": REDACTED });
}
