//! Names: the addresses of one (A and AAAA), or the targets of a service (SRV, RFC 2782).
//!
//! The answer holds as long as its shortest TTL. Nothing is cached here: the keeper waits for the TTL.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{RData, RecordType};
use refrain_core::settings::{Discovery, DnsSource, SrvSource};

use super::DiscoveryError;
use super::listing::{Item, Listed, Listing, authority};

/// How long one name server is waited for.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a name server is asked the same if it does not answer.
const ATTEMPTS: usize = 2;

/// How long it holds that there are no records, whatever the zone says of it.
const EMPTY_FOR: Duration = Duration::from_secs(5);

/// Addresses of a name.
pub(super) struct Addresses {
    pub(super) discovery: Arc<Discovery>,
    pub(super) source: DnsSource,
    pub(super) resolver: TokioResolver,
}

/// Targets of a service name.
pub(super) struct Services {
    pub(super) discovery: Arc<Discovery>,
    pub(super) source: SrvSource,
    pub(super) resolver: TokioResolver,
}

impl Addresses {
    /// # Cancel safety
    /// Safe: nothing is kept between looks.
    pub(super) async fn look(&self) -> Result<Listing, DiscoveryError> {
        let (v4, v6) = tokio::join!(
            records(&self.resolver, &self.source.host, RecordType::A),
            records(&self.resolver, &self.source.host, RecordType::AAAA),
        );
        let (v4, v6) = match (v4, v6) {
            // Some name servers never answer for one of the families: the other's addresses will do, if there are any.
            (Ok(v4), Err(_)) if !v4.data.is_empty() => (v4, Records::default()),
            (Err(_), Ok(v6)) if !v6.data.is_empty() => (Records::default(), v6),
            (v4, v6) => (v4?, v6?),
        };
        let addresses: BTreeSet<IpAddr> = v4.data.iter().chain(&v6.data).filter_map(RData::ip_addr).collect();
        let items = addresses.into_iter().map(|address| self.item(address));
        let fresh_for = [v4.ttl, v6.ttl].into_iter().flatten().min();
        Ok(Listing { fresh_for: Some(fresh_for.unwrap_or(EMPTY_FOR)), ..Listing::of(items)? })
    }

    fn item(&self, address: IpAddr) -> Item {
        let (host, port) = (address.to_string(), self.source.port);
        let mut listed = Listed::new(&self.discovery, &authority(&host, port), host, port);
        if let Some(tls) = &mut listed.endpoint.tls {
            // The certificate is the name's.
            let name = self.source.host.trim_end_matches('.');
            tls.server_name.get_or_insert_with(|| name.to_owned());
        }
        Item::Usable(listed)
    }
}

impl Services {
    /// Of several priorities, the targets of the first.
    ///
    /// # Cancel safety
    /// Safe: nothing is kept between looks.
    pub(super) async fn look(&self) -> Result<Listing, DiscoveryError> {
        let records = records(&self.resolver, &self.source.host, RecordType::SRV).await?;
        let targets: Vec<&SRV> = records.data.iter().filter_map(srv).collect();
        let priority = targets.iter().map(|target| target.priority).min();
        let first = targets.into_iter().filter(|target| Some(target.priority) == priority);
        let listing = Listing::of(first.map(|target| self.item(target)))?;
        Ok(Listing { fresh_for: Some(records.ttl.unwrap_or(EMPTY_FOR)), ..listing })
    }

    fn item(&self, target: &SRV) -> Item {
        if target.target.is_root() {
            // RFC 2782: the service is decidedly not available.
            return Item::Away;
        }
        let host = target.target.to_utf8().trim_end_matches('.').to_ascii_lowercase();
        if target.port == 0 || super::listing::host(&host).is_none() {
            return Item::Unusable;
        }
        let mut listed = Listed::new(&self.discovery, &authority(&host, target.port), host, target.port);
        listed.endpoint.weight = u32::from(target.weight).max(1);
        Item::Usable(listed)
    }
}

fn srv(data: &RData) -> Option<&SRV> {
    match data {
        RData::SRV(target) => Some(target),
        _ => None,
    }
}

/// A resolver that asks this name server, or those of the system. Blocks on the system's files.
pub(super) fn resolver(name_server: Option<SocketAddr>) -> Result<TokioResolver, DiscoveryError> {
    let builder = match name_server {
        None => TokioResolver::builder_tokio(),
        Some(address) => {
            Ok(TokioResolver::builder_with_config(only(address), TokioRuntimeProvider::default()))
        }
    };
    let mut builder = builder.map_err(|error| unanswered(&error))?;
    let options = builder.options_mut();
    options.timeout = QUERY_TIMEOUT;
    options.attempts = ATTEMPTS;
    options.cache_size = 0;
    builder.build().map_err(|error| unanswered(&error))
}

fn only(address: SocketAddr) -> ResolverConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    let connections = connections.map(|mut connection| {
        connection.port = address.port();
        connection
    });
    let name_server = NameServerConfig::new(address.ip(), true, connections.to_vec());
    ResolverConfig::from_parts(None, Vec::new(), vec![name_server])
}

/// Records of one type.
#[derive(Debug, Default)]
struct Records {
    data: Vec<RData>,
    /// The shortest; none without records.
    ttl: Option<Duration>,
}

/// No records are an answer, too.
async fn records(resolver: &TokioResolver, name: &str, kind: RecordType) -> Result<Records, DiscoveryError> {
    match resolver.lookup(name, kind).await {
        Ok(lookup) => Ok(Records::of(&lookup, kind)),
        Err(error) if error.is_no_records_found() => Ok(Records::default()),
        Err(error) => Err(unanswered(&error)),
    }
}

impl Records {
    /// The chain of aliases bounds the TTL as well.
    fn of(lookup: &Lookup, kind: RecordType) -> Self {
        let answers = lookup.answers();
        let data: Vec<RData> = answers
            .iter()
            .filter(|record| record.record_type() == kind)
            .map(|record| record.data.clone())
            .collect();
        let ttl = answers.iter().map(|record| record.ttl).min().filter(|_| !data.is_empty());
        Self { data, ttl: ttl.map(|seconds| Duration::from_secs(seconds.into())) }
    }
}

/// In words of our own: the library's hold whole messages.
fn unanswered(error: &NetError) -> DiscoveryError {
    DiscoveryError::Dns(match error {
        NetError::Timeout => "they don't answer",
        NetError::NoConnections | NetError::Io(_) => "they can't be reached",
        NetError::Dns(DnsError::ResponseCode(_)) => "they refuse, or failed to find out",
        NetError::Proto(_) => "the name is none, or their answer is malformed",
        _ => "asking them failed",
    })
}

impl std::fmt::Debug for Addresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Addresses").field(&self.source).finish()
    }
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Services").field(&self.source).finish()
    }
}

#[cfg(test)]
mod tests;
