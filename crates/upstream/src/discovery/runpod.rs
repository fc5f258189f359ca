//! Running pods of RunPod: `GET /v2/pods`.
//!
//! Source: docs.runpod.io (API v2, list pods; expose ports): `status` is PROVISIONING, STARTING, RUNNING, EXITED, ERROR
//! or TERMINATED. An HTTP port is reached at `https://{id}-{port}.proxy.runpod.net`; a TCP port at the public address and
//! mapped port in `runtime.ports`.

use std::sync::Arc;

use refrain_core::settings::{Discovery, RunPodSource, RunPodVia};
use serde_json::Value;

use super::DiscoveryError;
use super::api::Api;
use super::listing::{Item, Listed, Listing, host};
use super::value::{identity, number, port};

/// Where RunPod's proxy is reached.
const PROXY_PORT: u16 = 443;

/// Pods of one account.
#[derive(Debug)]
pub(super) struct Pods {
    pub(super) discovery: Arc<Discovery>,
    pub(super) source: RunPodSource,
    pub(super) api: Api,
}

impl Pods {
    /// The running ones.
    ///
    /// # Cancel safety
    /// Safe: nothing is kept between looks.
    pub(super) async fn look(&self) -> Result<Listing, DiscoveryError> {
        let answer = self.api.json("/v2/pods", None).await?;
        let pods = answer["pods"].as_array().ok_or(DiscoveryError::Malformed("it holds no list of pods"))?;
        Listing::of(pods.iter().map(|pod| item(pod, &self.source, &self.discovery)))
    }
}

fn item(pod: &Value, source: &RunPodSource, discovery: &Discovery) -> Item {
    let is_running = pod["status"] == "RUNNING";
    let name = pod["name"].as_str().unwrap_or_default();
    // What is no object is no pod that is asked for, but it should be one.
    if pod.is_object() && !(is_running && name.starts_with(&source.name_prefix)) {
        return Item::Away;
    }
    listed(pod, source, discovery).map_or(Item::Unusable, Item::Usable)
}

fn listed(pod: &Value, source: &RunPodSource, discovery: &Discovery) -> Option<Listed> {
    let id = identity(&pod["id"])?;
    let listed = match source.via {
        RunPodVia::Proxy => {
            let exposed = format!("{}/http", source.port);
            pod["ports"].as_array()?.iter().find(|port| **port == exposed)?;
            let name = format!("{id}-{}.proxy.runpod.net", source.port);
            Listed::new(discovery, &id, host(&name)?, PROXY_PORT)
        }
        RunPodVia::Tcp => {
            let (address, port) = tcp(&pod["runtime"]["ports"], source.port)?;
            Listed::new(discovery, &id, address, port)
        }
    };
    Some(Listed { price_per_hour: number(&pod["cost"]).filter(|price| *price >= 0.0), ..listed })
}

/// Public address and port of a container's port.
fn tcp(ports: &Value, private: u16) -> Option<(&str, u16)> {
    let is_it = |mapping: &&Value| port(&mapping["private"]) == Some(private) && mapping["type"] == "tcp";
    let mapping = ports.as_array()?.iter().find(is_it)?;
    Some((host(mapping["ip"].as_str()?)?, port(&mapping["public"])?))
}

#[cfg(test)]
mod tests;
