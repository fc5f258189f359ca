//! TLS of the data listeners: rustls with several certificates, chosen by SNI, and the certificates of clients.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use refrain_core::settings::{Certificate, ClientCertificateNeed, ClientCertificates, Tls};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use crate::auth::CertificateAuthority;

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read or holds nothing of use.
    #[error("{path}: {reason}; a PEM file with a certificate chain and one with its key are needed")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key doesn't fit the certificate, or rustls can't use them.
    #[error("{chain}: the certificate can't be used: {reason}")]
    Unusable {
        /// The certificate's file.
        chain: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// TLS of a listener, by what its files held when they were read.
pub(crate) struct ListenerTls {
    /// TLS 1.2 and 1.3, ALPN h2 and http/1.1.
    pub(crate) config: Arc<ServerConfig>,
    /// Who vouches for clients; none: they show no certificates.
    pub(crate) authority: Option<CertificateAuthority>,
}

impl ListenerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// A file can't be used.
    pub(crate) fn read(tls: &Tls) -> Result<Self, TlsError> {
        let keys = tls.certificates.iter().map(certified_key).collect::<Result<Vec<_>, _>>()?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = tls.clients.as_ref().map(|clients| verifier(clients, &provider)).transpose()?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&tls.certificates, &error))?;
        let builder = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(BySni::new(keys)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), authority: verifier.map(CertificateAuthority) })
    }
}

/// Verifies the certificates of clients by the authorities of a file.
fn verifier(
    clients: &ClientCertificates,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let ClientCertificates { ca_file, need } = clients;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&read(ca_file)?) {
        let certificate = certificate.map_err(|error| file(ca_file, &error))?;
        roots.add(certificate).map_err(|error| file(ca_file, &error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = match need {
        ClientCertificateNeed::Required => builder,
        ClientCertificateNeed::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| file(ca_file, &error))
}

/// Certificates by the names that they are for.
#[derive(Debug)]
struct BySni {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// Parent domain of `*.parent`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl BySni {
    fn new(keys: Vec<(Vec<String>, Arc<CertifiedKey>)>) -> Self {
        let mut by_sni = Self { exact: HashMap::new(), wildcard: HashMap::new(), default: None };
        for (names, key) in keys {
            by_sni.default.get_or_insert_with(|| key.clone());
            for name in names {
                // The certificate that comes first in config wins a name.
                match name.strip_prefix("*.") {
                    Some(parent) => by_sni.wildcard.entry(parent.to_owned()).or_insert_with(|| key.clone()),
                    None => by_sni.exact.entry(name).or_insert_with(|| key.clone()),
                };
            }
        }
        by_sni
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = hello.server_name() else { return self.default.clone() };
        let name = name.to_ascii_lowercase();
        let parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(&name).or_else(parent).or(self.default.as_ref()).cloned()
    }
}

fn certified_key(certificate: &Certificate) -> Result<(Vec<String>, Arc<CertifiedKey>), TlsError> {
    let Certificate { chain, key } = certificate;
    let certificates = CertificateDer::pem_slice_iter(&read(chain)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| file(chain, &error))?;
    let Some(leaf) = certificates.first() else { return Err(file(chain, &"no certificate in it")) };
    let names = dns_names(leaf).map_err(|error| file(chain, &error))?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| file(key, &error))?;
    let certified = CertifiedKey::from_der(certificates, private, &aws_lc_rs::default_provider())
        .map_err(|error| TlsError::Unusable { chain: chain.clone(), reason: error.to_string() })?;
    Ok((names, Arc::new(certified)))
}

/// The DNS names of a certificate, lower case.
fn dns_names(leaf: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let parsed = webpki::EndEntityCert::try_from(leaf).map_err(|error| error.to_string())?;
    Ok(parsed.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| file(path, &error))
}

fn file(path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: reason.to_string() }
}

fn unusable(certificates: &[Certificate], reason: &dyn std::fmt::Display) -> TlsError {
    let chain = certificates.first().map(|first| first.chain.clone()).unwrap_or_default();
    TlsError::Unusable { chain, reason: reason.to_string() }
}
