//! Certificates of the tests' own authority, and clients that trust it.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, SupportedProtocolVersion};

/// An authority that signs certificates for names.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    root_pem: String,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A certificate whose issuer has its own name passes for self-signed with OpenSSL.
        params.distinguished_name.push(DnType::CommonName, "tests of Refrain");
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        let (root, root_pem) = (root.der().clone(), root.pem());
        Self { issuer: Issuer::new(params, key), root, root_pem }
    }

    /// Writes its own certificate.
    pub fn write_root(&self, file: &Path) {
        std::fs::write(file, &self.root_pem).unwrap();
    }

    /// Writes `STEM.pem` and `STEM.key` for these names; returns the certificate.
    pub fn issue(&self, dir: &Path, stem: &str, names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        std::fs::write(dir.join(format!("{stem}.key")), key.serialize_pem()).unwrap();
        std::fs::write(dir.join(format!("{stem}.pem")), certificate.pem()).unwrap();
        certificate.der().clone()
    }

    /// Writes `STEM.pem` and `STEM.key` for a client: of this common name, and perhaps of a URI.
    pub fn issue_client(&self, dir: &Path, stem: &str, common_name: &str, uri: Option<&str>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(dir.join(format!("{stem}.key")), key.serialize_pem()).unwrap();
        std::fs::write(dir.join(format!("{stem}.pem")), certificate.pem()).unwrap();
    }

    /// A server that proves these names and asks for no certificate.
    pub fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        let dir = tempfile::tempdir().unwrap();
        let certificate = self.issue(dir.path(), "server", names);
        let key = PrivateKeyDer::from_pem_file(dir.path().join("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_no_client_auth();
        Arc::new(builder.with_single_cert(vec![certificate], key).unwrap())
    }

    /// A server that proves these names, offers these HTTP versions by ALPN, and wants a certificate that `clients` issued.
    pub fn server_for(&self, names: &[&str], alpn: &[&str], clients: &Self) -> Arc<ServerConfig> {
        let dir = tempfile::tempdir().unwrap();
        let certificate = self.issue(dir.path(), "server", names);
        let key = PrivateKeyDer::from_pem_file(dir.path().join("server.key")).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(clients.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_client_cert_verifier(verifier);
        let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A client that trusts it and shows `STEM.pem`, as [issued](Self::issue).
    pub fn client_as(&self, dir: &Path, stem: &str) -> Arc<ClientConfig> {
        self.client_offering(dir, stem, &[])
    }

    /// The same; it offers these HTTP versions by ALPN.
    pub fn client_offering(&self, dir: &Path, stem: &str, alpn: &[&str]) -> Arc<ClientConfig> {
        let certificate = CertificateDer::from_pem_file(dir.join(format!("{stem}.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(dir.join(format!("{stem}.key"))).unwrap();
        let builder = self.trusting(rustls::ALL_VERSIONS);
        let mut config = builder.with_client_auth_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A client that trusts it and offers these HTTP versions by ALPN.
    pub fn client(&self, alpn: &[&str], versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let mut config = self.trusting(versions).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    fn trusting(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        builder.with_root_certificates(roots)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
