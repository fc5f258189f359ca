//! Ready addresses of a Kubernetes service: its EndpointSlices, listed by label, page by page.
//!
//! Source: kubernetes.io, API reference of EndpointSlice (discovery.k8s.io/v1): `ready` null means ready, `serving` null
//! means as `ready`, `terminating` null means not; of several addresses the first is used; without ports, all.

use std::sync::Arc;

use http::HeaderValue;
use refrain_core::settings::{Discovery, KubernetesSource, ServicePort, Token};
use serde_json::Value;

use super::DiscoveryError;
use super::api::{Api, bearer, query};
use super::file::read_bounded;
use super::listing::{Item, Listed, Listing, authority, host};
use super::value::{identity, port};

/// Slices a page; a slice has at most 1000 endpoints, by default 100.
const PAGE: usize = 50;

/// Pages read for one list.
const PAGES_MAX: usize = 64;

/// Largest token, in bytes.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// EndpointSlices of one service.
#[derive(Debug)]
pub(super) struct Slices {
    pub(super) discovery: Arc<Discovery>,
    pub(super) source: KubernetesSource,
    pub(super) api: Api,
}

impl Slices {
    /// What is ready.
    ///
    /// # Cancel safety
    /// Safe: nothing is kept between looks.
    pub(super) async fn look(&self) -> Result<Listing, DiscoveryError> {
        let token = self.token().await?;
        let mut items = Vec::new();
        let mut rest = None;
        for _ in 0..PAGES_MAX {
            let page = self.api.json(&path(&self.source, rest.as_deref()), Some(&token)).await?;
            let slices = page["items"].as_array();
            let slices = slices.ok_or(DiscoveryError::Malformed("it holds no list of EndpointSlices"))?;
            items.extend(slices.iter().flat_map(|slice| self::items(slice, &self.source, &self.discovery)));
            match page["metadata"]["continue"].as_str().filter(|rest| !rest.is_empty()) {
                Some(next) => rest = Some(next.to_owned()),
                None => return Listing::of(ipv4_first(items)),
            }
        }
        Err(DiscoveryError::Malformed("it has more than 64 pages"))
    }

    /// Tokens of service accounts change each hour.
    async fn token(&self) -> Result<HeaderValue, DiscoveryError> {
        match &self.source.token {
            Token::Fixed(secret) => bearer(&secret.0),
            Token::File(file) => bearer(&read_bounded(file, TOKEN_BYTES_MAX).await?),
        }
    }
}

fn path(source: &KubernetesSource, rest: Option<&str>) -> String {
    let (namespace, service) = (query(&source.namespace), query(&source.service));
    let rest = rest.map(|rest| format!("&continue={}", query(rest))).unwrap_or_default();
    format!(
        "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices\
         ?labelSelector=kubernetes.io%2Fservice-name%3D{service}&limit={PAGE}{rest}"
    )
}

/// A service of two address families lists each pod twice; which comes first must not depend on names of slices.
fn ipv4_first(mut items: Vec<Item>) -> Vec<Item> {
    items.sort_by_key(|item| matches!(item, Item::Usable(listed) if listed.endpoint.host.contains(':')));
    items
}

fn items(slice: &Value, source: &KubernetesSource, discovery: &Discovery) -> Vec<Item> {
    let port = slice_port(&slice["ports"], source.port.as_ref());
    let Some(endpoints) = slice["endpoints"].as_array() else {
        // A service without pods has null here.
        let is_empty = slice.is_object() && slice["endpoints"].is_null();
        return vec![if is_empty { Item::Away } else { Item::Unusable }];
    };
    endpoints.iter().map(|endpoint| item(endpoint, port, discovery)).collect()
}

fn item(endpoint: &Value, port: Option<u16>, discovery: &Discovery) -> Item {
    let conditions = &endpoint["conditions"];
    let is_ready = conditions["ready"] != false && conditions["serving"] != false;
    if endpoint.is_object() && (!is_ready || conditions["terminating"] == true) {
        return Item::Away;
    }
    listed(endpoint, port, discovery).map_or(Item::Unusable, Item::Usable)
}

fn listed(endpoint: &Value, port: Option<u16>, discovery: &Discovery) -> Option<Listed> {
    let (address, port) = (host(endpoint["addresses"][0].as_str()?)?, port?);
    let pod = identity(&endpoint["targetRef"]["name"]);
    Some(Listed::new(discovery, &pod.unwrap_or_else(|| authority(address, port)), address, port))
}

/// The port of a slice's endpoints; none if it isn't clear which.
fn slice_port(ports: &Value, wanted: Option<&ServicePort>) -> Option<u16> {
    let ports = ports.as_array().map(Vec::as_slice).unwrap_or_default();
    match wanted {
        Some(ServicePort::Name(name)) => port(&ports.iter().find(|port| port["name"] == **name)?["port"]),
        // A slice without ports, or with one that has no number, stands for all ports.
        Some(ServicePort::Number(number)) => {
            let is_it = |one: &Value| one["port"].is_null() || port(&one["port"]) == Some(*number);
            (ports.is_empty() || ports.iter().any(is_it)).then_some(*number)
        }
        None => match ports {
            [only] => port(&only["port"]),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests;
