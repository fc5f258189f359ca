//! Sources of a pool's endpoints: which keys a kind takes, and what it is without the others.

use std::path::PathBuf;
use std::sync::Arc;

use refrain_core::settings::{
    Discovery, DiscoverySource, DnsSource, Endpoint, EndpointTls, KubernetesSource, RunPodSource, RunPodVia,
    Secret, ServicePort, Shrinking, SrvSource, Token, VastSource,
};

use super::super::endpoints::{Access, header_value};
use super::super::url::endpoint_of_url;
use super::super::{Context, is_name};
use crate::raw::{self, Discover, DiscoverKind, PortChoice, SecretSource};
use crate::source::read_bounded;
use crate::text::UpstreamUrl;

/// Where Kubernetes tells a pod who it is.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Longest name of a namespace, with some room.
const NAMESPACE_BYTES_MAX: u64 = 1024;

/// vast.ai's API.
const VAST_URL: &str = "https://console.vast.ai";

/// RunPod's API.
const RUNPOD_URL: &str = "https://api.runpod.io";

/// Sources of the pool of this name.
/// `access` is the pool's.
pub(super) fn settle(
    context: &mut Context<'_>,
    pool: &str,
    access: &Access,
    raw: Vec<Discover>,
) -> Vec<Arc<Discovery>> {
    let mut sources: Vec<Arc<Discovery>> = Vec::with_capacity(raw.len());
    for (index, raw) in raw.into_iter().enumerate() {
        let index = index.to_string();
        let mut table = Table { context, access, path: ["pool", pool, "discover", &index] };
        let Some(source) = table.discovery(raw) else { continue };
        if sources.iter().any(|other| other.name == source.name) {
            let message = format!("a second source named {:?}; give it a name of its own", source.name);
            table.refuse_table(message);
        }
        sources.push(Arc::new(source));
    }
    sources
}

/// One `[[pool.NAME.discover]]`.
struct Table<'t, 'c> {
    context: &'t mut Context<'c>,
    access: &'t Access,
    path: [&'t str; 4],
}

impl Table<'_, '_> {
    /// None if a key that nothing can stand in for is missing or wrong, which is reported by then.
    fn discovery(&mut self, mut raw: Discover) -> Option<Discovery> {
        let kind = raw.kind?;
        self.refuse_foreign(kind, &raw);
        let name = self.name(kind, raw.name.take().map(|name| name.0));
        let template = self.template(kind, &mut raw)?;
        let interval = raw.interval.as_ref().map(|span| span.0);
        let default = Shrinking::default();
        let shrinking = Shrinking {
            permille_max: raw
                .max_shrink
                .map_or(default.permille_max, |share| (share * 1000.0).round() as u32),
            allow_empty: raw.allow_empty.unwrap_or(default.allow_empty),
        };
        let source = self.source(kind, raw)?;
        Some(Discovery { name, interval: interval.or(source.interval()), source, template, shrinking })
    }

    fn source(&mut self, kind: DiscoverKind, raw: Discover) -> Option<DiscoverySource> {
        match kind {
            DiscoverKind::Dns => self.dns(raw).map(DiscoverySource::Dns),
            DiscoverKind::Srv => self.srv(raw).map(DiscoverySource::Srv),
            DiscoverKind::File => self.file(raw).map(DiscoverySource::File),
            DiscoverKind::Kubernetes => self.kubernetes(raw).map(DiscoverySource::Kubernetes),
            DiscoverKind::Vast => self.vast(raw).map(DiscoverySource::Vast),
            DiscoverKind::Runpod => self.runpod(raw).map(DiscoverySource::RunPod),
        }
    }

    fn dns(&mut self, raw: Discover) -> Option<DnsSource> {
        let (host, port) = (self.required("host", raw.host), self.port_number(raw.port));
        Some(DnsSource { host: host?.0, port: port?, name_server: raw.name_server.map(|server| server.0) })
    }

    fn srv(&mut self, raw: Discover) -> Option<SrvSource> {
        let host = self.required("host", raw.host)?.0;
        Some(SrvSource { host, name_server: raw.name_server.map(|server| server.0) })
    }

    /// Not among the files whose change reloads the configuration: its source looks at it.
    fn file(&mut self, raw: Discover) -> Option<PathBuf> {
        let file = self.required("file", raw.file)?.0;
        Some(self.context.source.resolve(&file))
    }

    fn kubernetes(&mut self, raw: Discover) -> Option<KubernetesSource> {
        let service = self.required("service", raw.service);
        let ca_file = raw.ca_file.map(|file| self.context.watched(&file.0));
        let api = match raw.api_url {
            Some(url) => Some(url.0),
            None => self.cluster_api(),
        };
        let api = api.map(|api| self.vouched(api, ca_file));
        let token = match raw.token {
            Some(SecretSource::File(file)) => Some(Token::File(self.context.source.resolve(&file.0))),
            Some(source) => self.secret("token", source).map(Token::Fixed),
            None => Some(Token::File(PathBuf::from(SERVICE_ACCOUNT).join("token"))),
        };
        let port = raw.port.map(|port| match port {
            PortChoice::Number(number) => ServicePort::Number(number),
            PortChoice::Name(name) => ServicePort::Name(name),
        });
        let namespace = raw.namespace.map_or_else(own_namespace, |namespace| namespace.0);
        Some(KubernetesSource { namespace, service: service?.0, port, api: api?, token: token? })
    }

    /// Where Kubernetes says that its API is.
    fn cluster_api(&mut self) -> Option<Endpoint> {
        let variable = |name| self.context.source.environment.get(name).map(String::as_str);
        let Some(host) = variable("KUBERNETES_SERVICE_HOST") else {
            self.refuse_missing(
                "api_url",
                "KUBERNETES_SERVICE_HOST is not set: outside of a cluster, give the API's URL",
            );
            return None;
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or("443");
        let url = format!("https://{host}:{port}");
        let tls = EndpointTls {
            ca_file: Some(PathBuf::from(SERVICE_ACCOUNT).join("ca.crt")),
            ..EndpointTls::default()
        };
        endpoint_of_url(&url)
            .map(|api| Endpoint { tls: Some(tls), ..api })
            .map_err(|message| {
                self.refuse("api_url", format!("KUBERNETES_SERVICE_HOST and _PORT: {message}"))
            })
            .ok()
    }

    /// An API for whose certificate these authorities vouch.
    fn vouched(&mut self, api: Endpoint, ca_file: Option<PathBuf>) -> Endpoint {
        let Some(ca_file) = ca_file else { return api };
        let Some(tls) = api.tls else {
            self.refuse("ca_file", "has no effect: only a URL that begins with https:// means TLS");
            return api;
        };
        Endpoint { tls: Some(EndpointTls { ca_file: Some(ca_file), ..tls }), ..api }
    }

    fn vast(&mut self, raw: Discover) -> Option<VastSource> {
        let port = self.port_number(raw.port);
        let api = self.provider(raw.api_url.map(|url| url.0), VAST_URL, raw.api_key);
        Some(VastSource { label: raw.label.map(|label| label.0), port: port?, api: api? })
    }

    fn runpod(&mut self, raw: Discover) -> Option<RunPodSource> {
        let port = self.port_number(raw.port);
        let api = self.provider(raw.api_url.map(|url| url.0), RUNPOD_URL, raw.api_key);
        Some(RunPodSource {
            name_prefix: raw.name_prefix.map(|prefix| prefix.0).unwrap_or_default(),
            port: port?,
            via: match raw.via {
                Some(raw::RunPodVia::Proxy) => RunPodVia::Proxy,
                Some(raw::RunPodVia::Tcp) => RunPodVia::Tcp,
                None => RunPodVia::default(),
            },
            api: api?,
        })
    }

    /// An API that wants the account's key.
    fn provider(
        &mut self,
        url: Option<Endpoint>,
        default: &str,
        key: Option<SecretSource>,
    ) -> Option<Endpoint> {
        let key = self.required("api_key", key).and_then(|key| self.secret("api_key", key));
        let api = url.or_else(|| endpoint_of_url(default).ok())?;
        Some(Endpoint { authorization: Some(Secret(format!("Bearer {}", key?.0))), ..api })
    }

    /// A secret that a header can hold.
    fn secret(&mut self, key: &str, source: SecretSource) -> Option<Secret> {
        header_value(self.context, source).map_err(|message| self.refuse(key, message)).ok()
    }

    fn template(&mut self, kind: DiscoverKind, raw: &mut Discover) -> Option<Endpoint> {
        // RunPod's proxy speaks TLS alone.
        let is_proxied = kind == DiscoverKind::Runpod && !matches!(raw.via, Some(raw::RunPodVia::Tcp));
        if is_proxied && raw.scheme == Some(raw::Scheme::Http) {
            self.refuse("scheme", "RunPod's proxy speaks https alone; leave it out, or say via = \"tcp\"");
        }
        let is_tls = is_proxied || raw.scheme == Some(raw::Scheme::Https);
        if raw.tls.is_some() && !is_tls {
            self.refuse("tls", "has no effect: only scheme = \"https\" means TLS");
            raw.tls = None;
        }
        let base_path = raw.base_path.take().map(|path| path.0.trim_end_matches('/').to_owned());
        let plain = Endpoint {
            tls: is_tls.then(EndpointTls::default),
            base_path: base_path.unwrap_or_default(),
            ..Endpoint::plain("", "", 0)
        };
        let raw = raw::Endpoint {
            name: None,
            url: Some(UpstreamUrl(plain)),
            price_per_hour: None,
            weight: raw.weight,
            http_version: raw.http_version.take(),
            tls: raw.tls.take(),
            authorization: raw.authorization.take(),
            headers: std::mem::take(&mut raw.headers),
        };
        self.access.endpoint_of(self.context, &self.path, raw)
    }

    fn name(&mut self, kind: DiscoverKind, name: Option<String>) -> String {
        let name = name.unwrap_or_else(|| kind.as_str().to_owned());
        if !is_name(&name) {
            self.refuse("name", "a name has 1 to 64 letters, digits, \"-\", \"_\" or \".\"");
        }
        name
    }

    fn port_number(&mut self, port: Option<PortChoice>) -> Option<u16> {
        match self.required("port", port)? {
            PortChoice::Number(number) => Some(number),
            PortChoice::Name(_) => {
                self.refuse("port", "only services of Kubernetes have ports with names; give its number");
                None
            }
        }
    }

    fn required<T>(&mut self, key: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.refuse_missing(key, "missing, and has no default with this kind");
        }
        value
    }

    /// Keys that other kinds take.
    fn refuse_foreign(&mut self, kind: DiscoverKind, raw: &Discover) {
        use DiscoverKind::{Dns, File, Kubernetes, Runpod, Srv, Vast};
        let keys: [(&str, bool, &[DiscoverKind]); 14] = [
            ("host", raw.host.is_some(), &[Dns, Srv]),
            ("name_server", raw.name_server.is_some(), &[Dns, Srv]),
            ("file", raw.file.is_some(), &[File]),
            ("service", raw.service.is_some(), &[Kubernetes]),
            ("namespace", raw.namespace.is_some(), &[Kubernetes]),
            ("token", raw.token.is_some(), &[Kubernetes]),
            ("ca_file", raw.ca_file.is_some(), &[Kubernetes]),
            ("label", raw.label.is_some(), &[Vast]),
            ("name_prefix", raw.name_prefix.is_some(), &[Runpod]),
            ("via", raw.via.is_some(), &[Runpod]),
            ("api_key", raw.api_key.is_some(), &[Vast, Runpod]),
            ("api_url", raw.api_url.is_some(), &[Kubernetes, Vast, Runpod]),
            ("port", raw.port.is_some(), &[Dns, Kubernetes, Vast, Runpod]),
            ("weight", raw.weight.is_some(), &[Dns, File, Kubernetes, Vast, Runpod]),
        ];
        for (key, _, kinds) in
            keys.into_iter().filter(|(_, is_there, kinds)| *is_there && !kinds.contains(&kind))
        {
            let kinds: Vec<String> = kinds.iter().map(|kind| format!("{:?}", kind.as_str())).collect();
            let message = format!("kind {:?} does not take it; {} does", kind.as_str(), kinds.join(" or "));
            self.refuse(key, message);
        }
    }

    fn refuse(&mut self, key: &str, message: impl Into<String>) {
        let [pool, name, list, index] = self.path;
        self.context.refuse(&[pool, name, list, index, key], message, None);
    }

    /// Unless what was there was wrong in itself.
    fn refuse_missing(&mut self, key: &str, message: &str) {
        let [pool, name, list, index] = self.path;
        if !self.context.is_wrong(&[pool, name, list, index, key]) {
            self.refuse(key, message);
        }
    }

    fn refuse_table(&mut self, message: String) {
        self.context.refuse(&self.path, message, None);
    }
}

impl DiscoverKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Srv => "srv",
            Self::File => "file",
            Self::Kubernetes => "kubernetes",
            Self::Vast => "vast",
            Self::Runpod => "runpod",
        }
    }
}

/// The namespace of this pod; outside of a cluster, the one that others take too.
fn own_namespace() -> String {
    let file = PathBuf::from(SERVICE_ACCOUNT).join("namespace");
    match read_bounded(&file, NAMESPACE_BYTES_MAX) {
        Ok(namespace) if !namespace.trim().is_empty() => namespace.trim().to_owned(),
        _ => "default".to_owned(),
    }
}
