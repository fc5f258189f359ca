//! TLS towards upstreams: whom to trust, what to show, which HTTP to offer. Files are read when a configuration is loaded;
//! one that is loaded again uses what they hold then for new connections.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use refrain_core::settings::{Certificate, Endpoint, EndpointTls, HttpVersion};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tracing::warn;

use crate::UpstreamError;

/// HTTP/2 as ALPN names it.
pub(crate) const ALPN_HTTP2: &[u8] = b"h2";

const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Whom to trust where config names no authorities. Cheap to clone; make one for the process.
#[derive(Clone)]
pub struct ClientTls(Arc<RootCertStore>);

impl ClientTls {
    /// Trusts what the operating system trusts. Reads certificate files: call it before serving.
    pub fn native() -> Self {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            warn!(%error, "system certificates skipped");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(loaded.certs);
        Self::with_roots(roots)
    }

    /// Trusts these roots only.
    pub fn with_roots(roots: RootCertStore) -> Self {
        Self(Arc::new(roots))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls(..)")
    }
}

/// TLS towards one endpoint, by what its files held when they were read.
pub(crate) struct TlsAccess {
    pub(crate) server_name: ServerName<'static>,
    trust: Trust,
    client: Option<Arc<CertifiedKey>>,
    http: HttpVersion,
    /// Made by the first connection, which brings the system's roots. Keeps the TLS sessions.
    config: OnceLock<Arc<ClientConfig>>,
}

/// Who may vouch for a server.
enum Trust {
    /// Whom the process trusts.
    System,
    /// The authorities of `ca_file`.
    These(Arc<RootCertStore>),
    /// Nobody needs to.
    Anybody,
}

impl TlsAccess {
    /// Reads the files of an endpoint that has TLS.
    ///
    /// # Errors
    /// [`UpstreamError::TlsFile`] and [`UpstreamError::ServerName`].
    pub(crate) fn read(endpoint: &Endpoint) -> Result<Option<Arc<Self>>, UpstreamError> {
        let Some(EndpointTls { ca_file, client, server_name, verify }) = &endpoint.tls else {
            return Ok(None);
        };
        let name = server_name.as_ref().unwrap_or(&endpoint.host);
        let unusable = |Unusable { file, reason }: Unusable<'_>| UpstreamError::TlsFile {
            endpoint: endpoint.id.clone(),
            file: file.to_owned(),
            reason,
        };
        Ok(Some(Arc::new(Self {
            server_name: ServerName::try_from(name.clone()).map_err(|_| UpstreamError::ServerName {
                endpoint: endpoint.id.clone(),
                name: name.clone(),
            })?,
            trust: match ca_file {
                _ if !verify => Trust::Anybody,
                Some(file) => Trust::These(Arc::new(authorities(file).map_err(unusable)?)),
                None => Trust::System,
            },
            client: client.as_ref().map(certified_key).transpose().map_err(unusable)?.map(Arc::new),
            http: endpoint.http,
            config: OnceLock::new(),
        })))
    }

    /// What to connect with. `system` counts at the first call only: a process has one.
    pub(crate) fn config(&self, system: &ClientTls) -> Arc<ClientConfig> {
        self.config.get_or_init(|| Arc::new(self.build(system))).clone()
    }

    fn build(&self, system: &ClientTls) -> ClientConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = match ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
        {
            Ok(builder) => builder,
            Err(error) => unreachable!("aws-lc-rs supports the default protocol versions: {error}"),
        };
        let builder = match &self.trust {
            Trust::System => builder.with_root_certificates(system.0.clone()),
            Trust::These(roots) => builder.with_root_certificates(roots.clone()),
            Trust::Anybody => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Unproven(provider)))
            }
        };
        let mut config = match &self.client {
            Some(key) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::clone(key))))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = match self.http {
            HttpVersion::Auto => vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()],
            HttpVersion::Http1 => vec![ALPN_HTTP1.to_vec()],
            HttpVersion::Http2 => vec![ALPN_HTTP2.to_vec()],
        };
        config
    }
}

impl fmt::Debug for TlsAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAccess").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// What is wrong with which file.
struct Unusable<'a> {
    file: &'a Path,
    reason: String,
}

impl<'a> Unusable<'a> {
    fn new(file: &'a Path, reason: impl ToString) -> Self {
        Self { file, reason: reason.to_string() }
    }
}

fn authorities(file: &Path) -> Result<RootCertStore, Unusable<'_>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| Unusable::new(file, error))?;
    }
    Ok(roots)
}

/// At least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable<'_>> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read(file)?)
        .collect::<Result<_, _>>()
        .map_err(|error| Unusable::new(file, error))?;
    if certificates.is_empty() { Err(Unusable::new(file, "no certificate in it")) } else { Ok(certificates) }
}

fn certified_key(Certificate { chain, key }: &Certificate) -> Result<CertifiedKey, Unusable<'_>> {
    let certificates = certificates(chain)?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| Unusable::new(key, error))?;
    CertifiedKey::from_der(certificates, private, &aws_lc_rs::default_provider())
        .map_err(|error| Unusable::new(key, format!("it does not fit {}: {error}", chain.display())))
}

fn read(file: &Path) -> Result<Vec<u8>, Unusable<'_>> {
    std::fs::read(file).map_err(|error| Unusable::new(file, error))
}

/// Takes every certificate, for `verify = false`. That the server holds its key is still checked.
#[derive(Debug)]
struct Unproven(Arc<CryptoProvider>);

impl ServerCertVerifier for Unproven {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
