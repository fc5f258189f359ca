//! Names, asked of a name server of our own over real sockets.

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA};
use hickory_resolver::proto::rr::{Name, Record};
use refrain_core::settings::{DiscoverySource, EndpointTls};
use tokio::net::UdpSocket;

use super::super::test_support::{discovery, place};
use super::*;

/// What a name has, by type.
type Zone = fn(RecordType) -> Result<Vec<(u32, RData)>, ResponseCode>;

/// A name server that knows one thing of every name.
struct NameServer {
    address: SocketAddr,
    _task: tokio::task::JoinSet<()>,
}

impl NameServer {
    async fn start(zone: Zone) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            let mut packet = [0; 1500];
            loop {
                let (length, client) = socket.recv_from(&mut packet).await.unwrap();
                let answer = answer(&Message::from_vec(&packet[..length]).unwrap(), zone);
                socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
            }
        });
        Self { address, _task: task }
    }
}

fn answer(question: &Message, zone: Zone) -> Message {
    let query = question.queries[0].clone();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    match zone(query.query_type()) {
        Ok(records) => {
            let record = |(ttl, data)| Record::from_rdata(query.name().clone(), ttl, data);
            answer.add_answers(records.into_iter().map(record));
        }
        Err(code) => answer.metadata.response_code = code,
    }
    answer.add_query(query);
    answer
}

fn v4(ttl: u32, last: u8) -> (u32, RData) {
    (ttl, RData::A(A::new(10, 0, 0, last)))
}

async fn addresses(zone: Zone) -> Result<Listing, DiscoveryError> {
    let server = NameServer::start(zone).await;
    let source = DnsSource { host: "llm.internal.".into(), port: 8000, name_server: Some(server.address) };
    let discovery = discovery(DiscoverySource::Dns(source.clone()));
    Addresses { discovery, resolver: resolver(source.name_server).unwrap(), source }.look().await
}

async fn services(zone: Zone) -> Result<Listing, DiscoveryError> {
    let server = NameServer::start(zone).await;
    let source = SrvSource { host: "_http._tcp.llm.internal.".into(), name_server: Some(server.address) };
    let discovery = discovery(DiscoverySource::Srv(source.clone()));
    Services { discovery, resolver: resolver(source.name_server).unwrap(), source }.look().await
}

fn target(priority: u16, weight: u16, port: u16, name: &str) -> (u32, RData) {
    (30, RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(name).unwrap())))
}

#[tokio::test]
async fn every_address_is_an_endpoint_and_the_shortest_ttl_holds() {
    let found = addresses(|kind| match kind {
        RecordType::A => Ok(vec![v4(300, 2), v4(17, 1), v4(300, 2)]),
        _ => Ok(vec![(60, RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)))]),
    });
    let found = found.await.unwrap();
    let places: Vec<_> = found.endpoints.iter().map(place).collect();
    assert_eq!(
        places,
        [
            ("s:10.0.0.1:8000", "10.0.0.1", 8000),
            ("s:10.0.0.2:8000", "10.0.0.2", 8000),
            ("s:[fd00::1]:8000", "fd00::1", 8000)
        ]
    );
    assert_eq!(found.fresh_for, Some(Duration::from_secs(17)));
}

#[tokio::test]
async fn a_name_without_records_is_an_empty_list_and_a_failure_an_error() {
    let found = addresses(|_| Ok(Vec::new())).await.unwrap();
    assert_eq!((found.endpoints.len(), found.fresh_for), (0, Some(EMPTY_FOR)));
    assert_eq!(addresses(|_| Err(ResponseCode::NXDomain)).await.unwrap().endpoints.len(), 0);
    let error = addresses(|_| Err(ResponseCode::ServFail)).await.unwrap_err();
    assert_eq!(error.as_str(), "dns");
}

#[tokio::test]
async fn a_family_that_fails_does_not_hide_the_other() {
    let found = addresses(|kind| match kind {
        RecordType::A => Ok(vec![v4(30, 1)]),
        _ => Err(ResponseCode::ServFail),
    });
    assert_eq!(found.await.unwrap().endpoints.len(), 1);
    let neither = addresses(|kind| match kind {
        RecordType::A => Ok(Vec::new()),
        _ => Err(ResponseCode::ServFail),
    });
    assert!(neither.await.is_err(), "an empty list would be believed where that is allowed");
}

#[tokio::test]
async fn over_tls_the_certificate_is_the_names() {
    let server = NameServer::start(|_| Ok(vec![])).await;
    let source = DnsSource { host: "llm.internal.".into(), port: 8000, name_server: Some(server.address) };
    let mut discovery = (*discovery(DiscoverySource::Dns(source.clone()))).clone();
    discovery.template.tls = Some(EndpointTls::default());
    let name = |discovery: Discovery| {
        let resolver = resolver(source.name_server).unwrap();
        let addresses = Addresses { discovery: Arc::new(discovery), source: source.clone(), resolver };
        let Item::Usable(listed) = addresses.item("10.0.0.1".parse().unwrap()) else { panic!("usable") };
        listed.endpoint.tls.unwrap().server_name
    };
    assert_eq!(name(discovery.clone()).as_deref(), Some("llm.internal"));
    discovery.template.tls = Some(EndpointTls { server_name: Some("gpu".into()), ..EndpointTls::default() });
    assert_eq!(name(discovery).as_deref(), Some("gpu"));
}

#[tokio::test]
async fn targets_of_the_first_priority_are_endpoints_with_their_weights() {
    let found = services(|_| {
        Ok(vec![
            target(10, 5, 8001, "gpu-a.llm.internal."),
            target(10, 0, 8002, "GPU-B.llm.internal."),
            target(20, 9, 8003, "spare.llm.internal."),
            target(10, 1, 0, "no-port.llm.internal."),
        ])
    });
    let found = found.await.unwrap();
    let places: Vec<_> = found.endpoints.iter().map(place).collect();
    assert_eq!(
        places,
        [
            ("s:gpu-a.llm.internal:8001", "gpu-a.llm.internal", 8001),
            ("s:gpu-b.llm.internal:8002", "gpu-b.llm.internal", 8002)
        ]
    );
    assert_eq!(found.endpoints.iter().map(|one| one.endpoint.weight).collect::<Vec<_>>(), [5, 1]);
    assert_eq!((found.unusable, found.fresh_for), (1, Some(Duration::from_secs(30))));
}

#[tokio::test]
async fn a_service_that_is_decidedly_not_there_is_an_empty_list() {
    let found = services(|_| Ok(vec![target(0, 0, 0, ".")])).await.unwrap();
    assert_eq!((found.endpoints.len(), found.unusable), (0, 0));
}

#[tokio::test]
async fn a_name_that_is_none_is_an_error() {
    let found = records(&resolver(None).unwrap(), "a..b", RecordType::A).await;
    assert!(matches!(found, Err(DiscoveryError::Dns(_))), "{found:?}");
}
