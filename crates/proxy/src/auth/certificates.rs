//! Client certificates: what a handshake proved, and whose that is.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use refrain_core::settings::{CertificateName, CertificateRule, CertificateUser, Settings};
use refrain_core::{Identity, ListenerId, UserId};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::methods::Methods;
use super::refusal::Refusal;
use super::{Arrival, Caller, Entitlements, Known};

/// Who vouches for the clients of a listener.
#[derive(Clone)]
pub(crate) struct CertificateAuthority(pub(crate) Arc<dyn ClientCertVerifier>);

impl CertificateAuthority {
    /// Whether it vouches for a chain that another may have accepted at the handshake.
    fn vouches(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((leaf, rest)) = chain.split_first() else { return false };
        self.0.verify_client_cert(leaf, rest, UnixTime::now()).is_ok()
    }
}

/// The certificate of a connection's client, whose key the client has proved to have.
pub(crate) struct PeerCertificate {
    /// Leaf first.
    chain: Vec<CertificateDer<'static>>,
    names: Names,
    /// Seconds since 1970.
    expires: u64,
    /// Who it is by the configuration of this generation. A connection has one thread, so nobody waits.
    found: Mutex<Option<Found>>,
}

/// Who somebody is in one configuration.
struct Found {
    generation: u64,
    known: Result<Option<Known>, Refusal>,
}

/// What a certificate calls its owner.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    dns: Vec<String>,
    /// URIs and e-mail addresses.
    other: Vec<String>,
    common: Option<String>,
}

impl PeerCertificate {
    /// Of the chain of a handshake; none if its leaf can't be read.
    pub(crate) fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let leaf = chain.first()?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        Some(Self {
            names: Names::of(&parsed),
            expires: u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default(),
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            found: Mutex::default(),
        })
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerCertificate").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Names {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut names = Self::default();
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.dns.push(name.to_ascii_lowercase()),
                GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
                    names.other.push((*name).to_owned())
                }
                _ => {}
            }
        }
        let mut common = certificate.subject().iter_common_name();
        // Two common names are none: who reads the first and who reads the last would see two people.
        names.common = match (common.next(), common.next()) {
            (Some(name), None) => name.as_str().ok().map(str::to_owned),
            _ => None,
        };
        names
    }

    /// The name by which a rule takes it.
    fn matching(&self, subject: &CertificateName) -> Option<&str> {
        match subject {
            CertificateName::Alternative(wanted) => {
                let is_dns = |name: &&String| is_dns_name(wanted, name);
                self.dns.iter().find(is_dns).or_else(|| self.other.iter().find(|name| *name == wanted))
            }
            CertificateName::Common(wanted) => self.common.as_ref().filter(|name| *name == wanted),
            CertificateName::Any => self.other.first().or(self.dns.first()).or(self.common.as_ref()),
        }
        .map(String::as_str)
    }
}

/// `*.example.com` stands for exactly one label.
fn is_dns_name(wanted: &str, name: &str) -> bool {
    match wanted.strip_prefix("*.") {
        Some(parent) => name
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
        None => wanted.eq_ignore_ascii_case(name),
    }
}

/// Whose certificates are, in one configuration.
pub(super) struct Certificates {
    /// In the order in which they are tried.
    rules: Vec<Rule>,
}

struct Rule {
    rule: CertificateRule,
    entitlements: Arc<Entitlements>,
}

impl Certificates {
    pub(super) fn new(settings: &Settings) -> Self {
        let rules = settings.certificates.iter().map(|rule| {
            let tenant = settings.tenants.get(&rule.tenant);
            let entitlements = Arc::new(Entitlements::new(tenant, &rule.models, &rule.pools));
            Rule { rule: rule.clone(), entitlements }
        });
        Self { rules: rules.collect() }
    }

    /// Who has the connection's certificate; none without one, or where nobody asks for one.
    pub(super) fn find(
        &self,
        arrival: &Arrival<'_>,
        methods: Methods<'_>,
        generation: u64,
    ) -> Result<Option<Known>, Refusal> {
        let (Some(authority), Some(peer)) = (arrival.authority, arrival.certificate) else { return Ok(None) };
        if self.rules.is_empty() || !methods.take_certificates() {
            return Ok(None);
        }
        if now() > peer.expires {
            return Err(Refusal::CertificateExpired);
        }
        let mut found = peer.found.lock();
        if let Some(found) = found.as_ref().filter(|found| found.generation == generation) {
            return found.known.clone();
        }
        // Once a connection and configuration: its authorities may be others than those of the handshake.
        let known = match authority.vouches(&peer.chain) {
            true => self.owner(&arrival.listener.id, &peer.names).map(Some),
            false => Err(Refusal::CertificateUnknown),
        };
        *found = Some(Found { generation, known: known.clone() });
        known
    }

    fn owner(&self, listener: &ListenerId, names: &Names) -> Result<Known, Refusal> {
        let owner = self.rules.iter().find_map(|rule| {
            let takes = rule.rule.listeners.is_empty() || rule.rule.listeners.contains(listener);
            Some((rule, names.matching(&rule.rule.subject).filter(|_| takes)?))
        });
        owner.map(|(rule, name)| rule.known(name)).ok_or(Refusal::CertificateUnknown)
    }
}

impl Rule {
    /// The caller whose certificate it takes by this name.
    fn known(&self, name: &str) -> Known {
        let CertificateRule { id, tenant, user, role, claims, .. } = &self.rule;
        let (user, user_from) = match user {
            CertificateUser::Fixed(user) => (Some(user.clone()), None),
            CertificateUser::Named => (Some(UserId::new(name)), None),
            CertificateUser::Service(issuer) => (None, issuer.clone()),
        };
        let identity = Identity { tenant: tenant.clone(), user, claims: claims.clone(), role: *role };
        let entitlements = self.entitlements.clone();
        let name = format!("certificate {id}").into();
        Known { caller: Caller { identity: Arc::new(identity), key: None, entitlements }, name, user_from }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
}
