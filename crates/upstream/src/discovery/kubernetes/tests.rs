//! EndpointSlices as Kubernetes writes them, and as nothing should.

use proptest::prelude::*;
use refrain_core::settings::{DiscoverySource, Endpoint};

use super::super::test_support::{any_json, discovery, json, place};
use super::*;

const SLICE: &str = r#"{
    "metadata": {"name": "vllm-x7z", "labels": {"kubernetes.io/service-name": "vllm"}},
    "addressType": "IPv4",
    "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}, {"name": "metrics", "port": 9000, "protocol": "TCP"}],
    "endpoints": [
        {"addresses": ["10.1.0.5"], "conditions": {"ready": true, "serving": true, "terminating": false},
         "targetRef": {"kind": "Pod", "name": "vllm-0", "namespace": "llm"}},
        {"addresses": ["10.1.0.6", "10.1.0.7"], "conditions": {}},
        {"addresses": ["10.1.0.8"], "conditions": {"ready": false, "serving": false, "terminating": false}},
        {"addresses": ["10.1.0.9"], "conditions": {"ready": false, "serving": true, "terminating": true}}
    ]
}"#;

fn source(port: Option<ServicePort>) -> KubernetesSource {
    KubernetesSource {
        namespace: "llm".into(),
        service: "vllm".into(),
        port,
        api: Endpoint::plain("api", "127.0.0.1", 1),
        token: Token::File("/nowhere/token".into()),
    }
}

fn look(slice: &Value, port: Option<ServicePort>) -> Listing {
    let source = source(port);
    let discovery = discovery(DiscoverySource::Kubernetes(source.clone()));
    Listing::of(ipv4_first(items(slice, &source, &discovery))).unwrap()
}

fn name(name: &str) -> Option<ServicePort> {
    Some(ServicePort::Name(name.into()))
}

fn changed(key: &str, value: &str) -> Value {
    let mut slice = json(SLICE);
    slice[key] = json(value);
    slice
}

#[test]
fn ready_addresses_are_endpoints_named_by_their_pods() {
    let found = look(&json(SLICE), name("http"));
    let places: Vec<_> = found.endpoints.iter().map(place).collect();
    assert_eq!(places, [("s:vllm-0", "10.1.0.5", 8000), ("s:10.1.0.6:8000", "10.1.0.6", 8000)]);
    assert_eq!(found.unusable, 0);
}

#[test]
fn an_address_that_is_not_ready_or_leaves_is_away() {
    for conditions in [
        r#"{"ready": false}"#,
        r#"{"ready": true, "serving": false}"#,
        r#"{"ready": true, "serving": true, "terminating": true}"#,
        r#"{"ready": null, "serving": null, "terminating": true}"#,
    ] {
        let endpoints = format!(r#"[{{"addresses": ["10.1.0.5"], "conditions": {conditions}}}]"#);
        let found = look(&changed("endpoints", &endpoints), name("http"));
        assert_eq!(found, Listing::default(), "{conditions}");
    }
    for conditions in ["{}", "null", r#"{"ready": null}"#, r#"{"ready": true, "terminating": null}"#] {
        let endpoints = format!(r#"[{{"addresses": ["10.1.0.5"], "conditions": {conditions}}}]"#);
        assert_eq!(look(&changed("endpoints", &endpoints), name("http")).endpoints.len(), 1, "{conditions}");
    }
}

#[test]
fn a_port_is_chosen_by_name_or_number_or_is_the_only_one() {
    let port = |ports: &str, wanted| {
        look(&changed("ports", ports), wanted).endpoints.first().map(|one| one.endpoint.port)
    };
    let number = |number| Some(ServicePort::Number(number));
    let two = r#"[{"name": "http", "port": 8000}, {"name": "metrics", "port": 9000}]"#;
    assert_eq!(port(two, name("metrics")), Some(9000));
    assert_eq!(port(two, number(8000)), Some(8000));
    assert_eq!(port(two, number(1)), None);
    assert_eq!(port(two, name("grpc")), None);
    assert_eq!(port(two, None), None);
    let one = r#"[{"name": "", "port": 8000}]"#;
    assert_eq!(port(one, None), Some(8000));
    for all in ["null", "[]", r#"[{"name": "", "port": null}]"#] {
        assert_eq!(port(all, number(8000)), Some(8000), "{all}");
        assert_eq!(port(all, None), None, "{all}");
    }
    assert_eq!(look(&changed("ports", "\"http\""), name("http")).unusable, 2);
}

#[test]
fn one_bad_endpoint_loses_no_other() {
    let endpoints = r#"[null, 1, {}, {"addresses": []}, {"addresses": [7]}, {"addresses": ["a b"]}, {"addresses": ["10.1.0.5"]}]"#;
    let found = look(&changed("endpoints", endpoints), name("http"));
    assert_eq!((found.endpoints.len(), found.unusable), (1, 6));
    assert_eq!(look(&changed("endpoints", "null"), name("http")), Listing::default());
    for slice in ["null", "1", r#"{"endpoints": "a"}"#] {
        assert_eq!(look(&json(slice), name("http")).unusable, 1, "{slice}");
    }
}

#[test]
fn a_pod_of_two_address_families_is_one_endpoint_by_its_ipv4_address() {
    let source = source(name("http"));
    let discovery = discovery(DiscoverySource::Kubernetes(source.clone()));
    let six = changed("endpoints", r#"[{"addresses": ["fd00::5"], "targetRef": {"name": "vllm-0"}}]"#);
    let four = changed("endpoints", r#"[{"addresses": ["10.1.0.5"], "targetRef": {"name": "vllm-0"}}]"#);
    let both = [six.clone(), four].iter().flat_map(|slice| items(slice, &source, &discovery)).collect();
    let found = Listing::of(ipv4_first(both)).unwrap();
    assert_eq!(found.endpoints.iter().map(place).collect::<Vec<_>>(), [("s:vllm-0", "10.1.0.5", 8000)]);
    assert_eq!(look(&six, name("http")).endpoints[0].endpoint.host, "fd00::5");
}

#[test]
fn lists_are_asked_for_by_the_label_of_the_service() {
    assert_eq!(
        path(&source(None), Some("a=")),
        "/apis/discovery.k8s.io/v1/namespaces/llm/endpointslices\
         ?labelSelector=kubernetes.io%2Fservice-name%3Dvllm&limit=50&continue=a%3D"
    );
}

const WORDS: &[&str] = &[
    "addressType",
    "ports",
    "name",
    "http",
    "port",
    "endpoints",
    "addresses",
    "10.1.0.5",
    "conditions",
    "ready",
    "serving",
    "terminating",
    "targetRef",
];

proptest! {
    #[test]
    fn no_slice_makes_the_parser_panic(slice in any_json(WORDS), number: u16) {
        for port in [None, name("http"), Some(ServicePort::Number(number))] {
            let _ = look(&slice, port);
        }
    }
}
