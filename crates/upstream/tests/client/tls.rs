//! TLS to the upstream: who is trusted, what is shown, which HTTP is chosen.

use std::collections::BTreeMap;
use std::sync::Arc;

use refrain_core::settings::{Certificate, EndpointTls, HttpVersion, Pool};
use refrain_upstream::{ClientTls, UpstreamError, Upstreams};
use rustls::RootCertStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::join;
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;
use crate::hyper_server::{self, Limits};
use crate::server::{Fleet, OK, Server, within};

/// What a server saw of a client.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    server_name: Option<String>,
    protocol: String,
    client_certificates: usize,
}

/// Serves one connection over TLS, if the client gets so far.
async fn serve(server: &Server, acceptor: TlsAcceptor) -> Option<Seen> {
    let tcp = server.accept().await.into_stream();
    let mut tls = within(acceptor.accept(tcp)).await.ok()?;
    let session = tls.get_ref().1;
    let protocol = String::from_utf8(session.alpn_protocol().unwrap_or_default().to_vec()).unwrap();
    let seen = Seen {
        server_name: session.server_name().map(str::to_owned),
        client_certificates: session.peer_certificates().map_or(0, <[_]>::len),
        protocol,
    };
    if seen.protocol == "h2" {
        let once = Limits { requests: 1, ..Limits::default() };
        within(hyper_server::connection(tls, once, async |_| "ok".to_owned())).await;
        return Some(seen);
    }
    let mut request = Vec::new();
    while !request.ends_with(b"{}") {
        let read = within(tls.read_buf(&mut request)).await;
        if !matches!(read, Ok(1..)) {
            return None;
        }
    }
    within(tls.write_all(OK.as_bytes())).await.unwrap();
    Some(seen)
}

/// Asks a server as `localhost`, with these settings.
async fn ask_with(
    acceptor: TlsAcceptor,
    system: RootCertStore,
    change: impl FnOnce(&mut Pool),
) -> (Result<String, UpstreamError>, Option<Seen>) {
    let server = Server::bind().await;
    let fleet = Fleet::at(&[server.port()], ClientTls::with_roots(system), |pool| {
        pool.endpoints[0].tls = Some(EndpointTls::default());
        pool.endpoints[0].host = "localhost".into();
        change(pool);
    });
    // HTTP/2 ends when nobody holds the connection.
    join!(Box::pin(async { fleet.text().await }), serve(&server, acceptor))
}

async fn ask(
    acceptor: TlsAcceptor,
    system: RootCertStore,
    tls: EndpointTls,
) -> (Result<String, UpstreamError>, Option<Seen>) {
    ask_with(acceptor, system, |pool| pool.endpoints[0].tls = Some(tls)).await
}

fn trusting(authority: &Authority) -> EndpointTls {
    EndpointTls { ca_file: Some(authority.ca_file()), ..EndpointTls::default() }
}

#[tokio::test]
async fn a_certificate_that_the_system_trusts_is_accepted() {
    let authority = Authority::new();
    let (text, seen) =
        ask(authority.server("localhost", &[], None), authority.roots(), EndpointTls::default()).await;
    assert_eq!(text.unwrap(), "ok");
    assert_eq!(seen.unwrap().server_name.as_deref(), Some("localhost"));
}

#[tokio::test]
async fn an_authority_of_config_is_trusted_and_no_other_then() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (text, _) = ask(ours.server("localhost", &[], None), RootCertStore::empty(), trusting(&ours)).await;
    assert_eq!(text.unwrap(), "ok");
    let (text, _) = ask(theirs.server("localhost", &[], None), theirs.roots(), trusting(&ours)).await;
    let error = text.unwrap_err();
    assert_eq!(error.as_str(), "tls");
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
}

#[tokio::test]
async fn a_certificate_of_another_name_is_refused_and_told() {
    let authority = Authority::new();
    let (text, _) =
        ask(authority.server("elsewhere.test", &[], None), RootCertStore::empty(), trusting(&authority))
            .await;
    let error = text.unwrap_err();
    assert_eq!(error.as_str(), "tls");
    assert!(error.to_string().contains("not valid for name \"localhost\""), "{error}");
}

#[tokio::test]
async fn a_server_name_of_config_is_asked_for_and_must_be_proven() {
    let authority = Authority::new();
    let named = EndpointTls { server_name: Some("llm.test".into()), ..trusting(&authority) };
    let server = |name| authority.server(name, &[], None);
    let (text, seen) = ask(server("llm.test"), RootCertStore::empty(), named.clone()).await;
    assert_eq!(text.unwrap(), "ok");
    assert_eq!(seen.unwrap().server_name.as_deref(), Some("llm.test"));
    let (text, _) = ask(server("localhost"), RootCertStore::empty(), named).await;
    assert_eq!(text.unwrap_err().as_str(), "tls");
}

#[tokio::test]
async fn without_verification_every_certificate_will_do() {
    let authority = Authority::new();
    let tls = EndpointTls { verify: false, ..EndpointTls::default() };
    let (text, _) = ask(authority.server("elsewhere.test", &[], None), RootCertStore::empty(), tls).await;
    assert_eq!(text.unwrap(), "ok");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_wants_one() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let server = || authority.server("localhost", &[], Some(&clients));
    let tls = EndpointTls { client: Some(clients.issue("refrain.test")), ..trusting(&authority) };
    let (text, seen) = ask(server(), RootCertStore::empty(), tls).await;
    assert_eq!(text.unwrap(), "ok");
    assert_eq!(seen.unwrap().client_certificates, 1);

    let (text, seen) = ask(server(), RootCertStore::empty(), trusting(&authority)).await;
    assert!(text.is_err(), "nothing is shown where nothing is configured");
    assert_eq!(seen, None);
}

#[tokio::test]
async fn the_server_chooses_the_http_version() {
    for (offered, configured, chosen) in [
        (&["h2", "http/1.1"][..], HttpVersion::Auto, "h2"),
        (&["http/1.1"][..], HttpVersion::Auto, "http/1.1"),
        (&[][..], HttpVersion::Auto, ""),
        (&["h2", "http/1.1"][..], HttpVersion::Http1, "http/1.1"),
        (&["h2", "http/1.1"][..], HttpVersion::Http2, "h2"),
    ] {
        let authority = Authority::new();
        let server = authority.server("localhost", offered, None);
        let change = |pool: &mut Pool| pool.endpoints[0].http = configured;
        let (text, seen) = ask_with(server, authority.roots(), change).await;
        assert_eq!(text.unwrap(), "ok", "{offered:?} {configured:?}");
        assert_eq!(seen.unwrap().protocol, chosen, "{offered:?} {configured:?}");
    }
}

#[tokio::test]
async fn a_server_without_the_wanted_http_version_is_refused() {
    let authority = Authority::new();
    let server = authority.server("localhost", &["http/1.1"], None);
    let change = |pool: &mut Pool| pool.endpoints[0].http = HttpVersion::Http2;
    let (text, _) = ask_with(server, authority.roots(), change).await;
    assert_eq!(text.unwrap_err().as_str(), "tls");
}

/// A pool with one endpoint that has such TLS.
fn pools(tls: EndpointTls) -> BTreeMap<refrain_core::PoolId, Arc<Pool>> {
    let mut endpoint = refrain_core::settings::Endpoint::plain("a", "localhost", 1);
    endpoint.tls = Some(tls);
    let pool = Pool::new("gpu".into(), vec![endpoint]);
    BTreeMap::from([(pool.id.clone(), Arc::new(pool))])
}

#[test]
fn files_that_cannot_be_used_are_told_with_their_path() {
    let authority = Authority::new();
    let check = |tls: EndpointTls, expected: &str| {
        let error = Upstreams::new(&pools(tls)).unwrap_err();
        assert_eq!(error.as_str(), "tls_file");
        let error = error.to_string();
        assert!(error.starts_with("endpoint \"a\": ") && error.contains(expected), "{error}");
    };
    let missing = EndpointTls { ca_file: Some("/nowhere/ca.pem".into()), ..EndpointTls::default() };
    check(missing, "/nowhere/ca.pem: No such file");
    let Certificate { chain, key } = authority.issue("one.test");
    let swapped = EndpointTls { ca_file: Some(key.clone()), ..EndpointTls::default() };
    check(swapped, "one.test.key: no certificate in it");
    let other = authority.issue("two.test").key;
    let client = Some(Certificate { chain, key: other });
    check(EndpointTls { client, ..EndpointTls::default() }, "two.test.key: it does not fit ");
}

#[tokio::test]
async fn a_reload_reads_certificates_anew_for_new_connections_and_keeps_the_endpoint() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = Server::bind().await;
    let mut fleet = Fleet::at(&[server.port()], ClientTls::with_roots(RootCertStore::empty()), |pool| {
        pool.endpoints[0].tls = Some(trusting(&old));
        pool.endpoints[0].host = "localhost".into();
    });
    let endpoint = fleet.pool().endpoints()[0].clone();
    let pools = BTreeMap::from([("gpu".into(), fleet.pool().config().clone())]);
    let acceptor = || new.server("localhost", &[], None);
    let (text, _) = join!(fleet.text(), serve(&server, acceptor()));
    assert_eq!(text.unwrap_err().as_str(), "tls");

    std::fs::write(old.ca_file(), "nothing").unwrap();
    assert_eq!(fleet.upstreams.reload(&pools).unwrap_err().as_str(), "tls_file");
    std::fs::copy(new.ca_file(), old.ca_file()).unwrap();
    let reloaded = Arc::new(fleet.upstreams.reload(&pools).unwrap());
    let (text, _) = join!(
        fleet.client.send_to(fleet.pool(), &endpoint, crate::server::post("{}")),
        serve(&server, acceptor())
    );
    assert_eq!(text.unwrap_err().as_str(), "tls", "what else is new may still be refused");
    reloaded.take_effect();
    fleet.upstreams = reloaded;
    assert!(Arc::ptr_eq(&endpoint, &fleet.pool().endpoints()[0]));
    let (response, _) = join!(
        fleet.client.send_to(fleet.pool(), &endpoint, crate::server::post("{}")),
        serve(&server, acceptor())
    );
    assert_eq!(response.unwrap().status, 200);
}

#[test]
fn neither_endpoint_nor_error_prints_a_header() {
    let mut endpoint = refrain_core::settings::Endpoint::plain("a", "localhost", 1);
    endpoint.headers.insert("x-api-key".into(), refrain_core::settings::Secret("hunter2".into()));
    endpoint.authorization = Some(refrain_core::settings::Secret("Bearer hunter2".into()));
    let pools = |endpoint| {
        let pool = Pool::new("gpu".into(), vec![endpoint]);
        BTreeMap::from([(pool.id.clone(), Arc::new(pool))])
    };
    let printed = format!("{:?}", Upstreams::new(&pools(endpoint.clone())).unwrap());
    assert!(printed.contains("x-api-key") && !printed.contains("hunter2"), "{printed}");
    endpoint.headers.insert("x-api-key".into(), refrain_core::settings::Secret("hunter2\n".into()));
    let error = Upstreams::new(&pools(endpoint)).unwrap_err();
    assert!(!format!("{error}{error:?}").contains("hunter2"), "{error}");
}
