//! A source, whatever its kind: looked at, it gives a list.

use std::sync::Arc;
use std::time::Duration;

use refrain_core::settings::{Discovery, DiscoverySource};
use tokio::time::timeout;

use super::DiscoveryError;
use super::api::Api;
use super::dns::{Addresses, Services, resolver};
use super::file::ListFile;
use super::kubernetes::Slices;
use super::listing::Listing;
use super::runpod::Pods;
use super::vast::Instances;
use crate::Client;

/// Longest look, all pages of it.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Who is looked at.
#[derive(Debug)]
pub(super) enum Source {
    Addresses(Addresses),
    Services(Services),
    File(ListFile),
    Slices(Slices),
    Instances(Instances),
    Pods(Pods),
}

impl Source {
    /// Makes ready what looks need.
    pub(super) fn new(discovery: &Arc<Discovery>, client: Client) -> Result<Self, DiscoveryError> {
        let discovery = discovery.clone();
        Ok(match discovery.source.clone() {
            DiscoverySource::Dns(source) => {
                let resolver = resolver(source.name_server)?;
                Self::Addresses(Addresses { discovery, source, resolver })
            }
            DiscoverySource::Srv(source) => {
                let resolver = resolver(source.name_server)?;
                Self::Services(Services { discovery, source, resolver })
            }
            DiscoverySource::File(file) => Self::File(ListFile { discovery, file }),
            DiscoverySource::Kubernetes(source) => {
                let api = Api::new(client, &source.api)?;
                Self::Slices(Slices { discovery, source, api })
            }
            DiscoverySource::Vast(source) => {
                let api = Api::new(client, &source.api)?;
                Self::Instances(Instances { discovery, source, api })
            }
            DiscoverySource::RunPod(source) => {
                let api = Api::new(client, &source.api)?;
                Self::Pods(Pods { discovery, source, api })
            }
        })
    }

    /// What is there now.
    ///
    /// # Cancel safety
    /// Safe: nothing is kept between looks.
    pub(super) async fn look(&self) -> Result<Listing, DiscoveryError> {
        let look = async {
            match self {
                Self::Addresses(source) => source.look().await,
                Self::Services(source) => source.look().await,
                Self::File(source) => source.look().await,
                Self::Slices(source) => source.look().await,
                Self::Instances(source) => source.look().await,
                Self::Pods(source) => source.look().await,
            }
        };
        timeout(LOOK_TIMEOUT, Box::pin(look)).await.unwrap_or(Err(DiscoveryError::TimedOut))
    }
}
