//! TLS to the upstream: trusted, untrusted, and under another name.

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use refrain_core::settings::EndpointTls;
use refrain_upstream::{ClientTls, UpstreamError};
use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::join;
use tokio_rustls::TlsAcceptor;

use crate::server::{Fleet, OK, Server, within};

/// A certificate for `name`, in the server's hands, and the roots that trust it.
fn certificate(name: &str) -> (TlsAcceptor, RootCertStore) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), roots)
}

/// Serves one request over TLS, if the client gets so far; says what ALPN gave.
async fn serve(server: &Server, acceptor: TlsAcceptor) -> Option<Vec<u8>> {
    let tcp = server.accept().await.into_stream();
    let mut tls = within(acceptor.accept(tcp)).await.ok()?;
    let mut request = Vec::new();
    while !request.ends_with(b"{}") {
        within(tls.read_buf(&mut request)).await.unwrap();
    }
    within(tls.write_all(OK.as_bytes())).await.unwrap();
    Some(tls.get_ref().1.alpn_protocol().unwrap_or_default().to_vec())
}

async fn ask(certified: &str, roots_too: Option<RootCertStore>) -> Result<String, UpstreamError> {
    let (acceptor, roots) = certificate(certified);
    let server = Server::bind().await;
    let tls = ClientTls::with_roots(roots_too.unwrap_or(roots));
    let fleet = Fleet::at(&[server.port()], tls, |pool| {
        pool.endpoints[0].tls = Some(EndpointTls::default());
        pool.endpoints[0].host = "localhost".into();
    });
    join!(fleet.text(), serve(&server, acceptor)).0
}

#[tokio::test]
async fn a_trusted_certificate_of_the_right_name_is_accepted() {
    assert_eq!(ask("localhost", None).await.unwrap(), "ok");
}

#[tokio::test]
async fn an_untrusted_certificate_is_refused() {
    let error = ask("localhost", Some(RootCertStore::empty())).await.unwrap_err();
    assert_eq!(error.as_str(), "tls");
}

#[tokio::test]
async fn a_certificate_of_another_name_is_refused() {
    let error = ask("elsewhere.test", None).await.unwrap_err();
    assert_eq!(error.as_str(), "tls");
}
