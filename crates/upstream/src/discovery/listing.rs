//! What a source says at one moment.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use refrain_core::EndpointId;
use refrain_core::settings::{Discovery, Endpoint};

use super::DiscoveryError;

/// Most endpoints that one source may list.
const ENDPOINTS_MAX: usize = 1024;

/// An endpoint that a source lists.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// How it is reached. Its id is the source's name and what the source calls it, so that it outlives a new address.
    pub endpoint: Endpoint,
    /// What it costs, in US dollars an hour, if the source says so.
    pub price_per_hour: Option<f64>,
    /// Since when it runs, if the source says so.
    pub started: Option<SystemTime>,
}

/// What an item of a list turned out to be.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "most are usable, and they live as long as one list")]
pub(super) enum Item {
    /// An endpoint.
    Usable(Listed),
    /// None that is asked for: it does not run, or has another label.
    Away,
    /// It should be one, and something that is needed is missing or wrong.
    Unusable,
}

/// A whole list.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Listing {
    /// By id, each once.
    pub(super) endpoints: Vec<Listed>,
    /// Items that should be endpoints and can't.
    pub(super) unusable: usize,
    /// How long it holds, if the source says so.
    pub(super) fresh_for: Option<Duration>,
}

impl Listing {
    /// Sorts items out. Of two endpoints of one id, the first stays.
    ///
    /// # Errors
    /// More endpoints than a pool can do with: nobody meant that.
    pub(super) fn of(items: impl IntoIterator<Item = Item>) -> Result<Self, DiscoveryError> {
        let mut listing = Self::default();
        let mut known: BTreeSet<EndpointId> = BTreeSet::new();
        for item in items {
            match item {
                Item::Usable(listed) if known.insert(listed.endpoint.id.clone()) => {
                    listing.endpoints.push(listed);
                }
                Item::Usable(_) | Item::Away => {}
                Item::Unusable => listing.unusable += 1,
            }
        }
        if listing.endpoints.len() > ENDPOINTS_MAX {
            return Err(DiscoveryError::Malformed("it lists more than 1024 endpoints"));
        }
        Ok(listing)
    }
}

impl Listed {
    /// An endpoint after the source's template; `instance` is what the source calls it.
    pub(super) fn new(discovery: &Discovery, instance: &str, host: impl Into<String>, port: u16) -> Self {
        let id = EndpointId::new(format!("{}:{instance}", discovery.name));
        let endpoint = Endpoint { id, host: host.into(), port, ..discovery.template.clone() };
        Self { endpoint, price_per_hour: None, started: None }
    }
}

/// Host and port as one word; addresses of IPv6 in brackets.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// An address or host name, without the blanks around it.
pub(super) fn host(text: &str) -> Option<&str> {
    let host = text.trim();
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    let is_name = (1..=253).contains(&host.len())
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && host.split('.').all(|label| !label.is_empty() && label.len() <= 63);
    (is_address || is_name).then_some(host)
}
