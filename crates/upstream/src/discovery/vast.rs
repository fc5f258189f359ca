//! Running instances at vast.ai: `GET /api/v1/instances/`, page by page.
//!
//! Source: docs.vast.ai (show instances v1): `limit` is at most 25, `next_token` of a page is `after_token` of the next;
//! `actual_status` is null, loading, running, stopped, frozen, exited, rebooting, unknown or offline. Ports of the container
//! are mapped to others of the host: `"ports": {"8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "33526"}]}`.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use refrain_core::settings::{Discovery, VastSource};
use serde_json::Value;

use super::DiscoveryError;
use super::api::{Api, query};
use super::listing::{Item, Listed, Listing, host};
use super::value::{identity, number, port};

/// Instances a page: the most that the API gives.
const PAGE: usize = 25;

/// Pages read for one list.
const PAGES_MAX: usize = 64;

/// Instances of one account.
#[derive(Debug)]
pub(super) struct Instances {
    pub(super) discovery: Arc<Discovery>,
    pub(super) source: VastSource,
    pub(super) api: Api,
}

impl Instances {
    /// The running ones.
    ///
    /// # Cancel safety
    /// Safe: nothing is kept between looks.
    pub(super) async fn look(&self) -> Result<Listing, DiscoveryError> {
        let mut items = Vec::new();
        let mut token = None;
        for _ in 0..PAGES_MAX {
            let page = self.api.json(&path(token.as_deref()), None).await?;
            let instances = page["instances"].as_array();
            let instances = instances.ok_or(DiscoveryError::Malformed("it holds no list of instances"))?;
            items.extend(instances.iter().map(|instance| item(instance, &self.source, &self.discovery)));
            match page["next_token"].as_str().filter(|token| !token.is_empty()) {
                Some(next) => token = Some(next.to_owned()),
                None => return Listing::of(items),
            }
        }
        Err(DiscoveryError::Malformed("it has more than 64 pages"))
    }
}

fn path(token: Option<&str>) -> String {
    let token = token.map(|token| format!("&after_token={}", query(token))).unwrap_or_default();
    format!("/api/v1/instances/?limit={PAGE}{token}")
}

fn item(instance: &Value, source: &VastSource, discovery: &Discovery) -> Item {
    let is_running = instance["actual_status"] == "running";
    let has_label = source.label.as_deref().is_none_or(|label| instance["label"] == label);
    // What is no object is no instance that is asked for, but it should be one.
    if instance.is_object() && !(is_running && has_label) {
        return Item::Away;
    }
    listed(instance, source, discovery).map_or(Item::Unusable, Item::Usable)
}

fn listed(instance: &Value, source: &VastSource, discovery: &Discovery) -> Option<Listed> {
    let id = identity(&instance["id"])?;
    // It may carry blanks, and other addresses behind them.
    let address = instance["public_ipaddr"].as_str()?.split_whitespace().next()?;
    let mapped = instance["ports"][format!("{}/tcp", source.port)].as_array()?;
    let port = mapped.iter().find_map(|mapping| port(&mapping["HostPort"]))?;
    Some(Listed {
        price_per_hour: number(&instance["dph_total"]).filter(|price| *price >= 0.0),
        started: number(&instance["start_date"])
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .and_then(|since| UNIX_EPOCH.checked_add(since)),
        ..Listed::new(discovery, &id, host(address)?, port)
    })
}

#[cfg(test)]
mod tests;
