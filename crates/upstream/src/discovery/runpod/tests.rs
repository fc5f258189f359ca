//! Pods in every state and of every wrong shape.

use proptest::prelude::*;
use refrain_core::settings::{DiscoverySource, Endpoint};

use super::super::test_support::{any_json, discovery, json, place, usable};
use super::*;

const WHOLE: &str = r#"{
    "id": "xedezhzb9la3ye", "name": "llm-1", "status": "RUNNING", "cost": 0.69,
    "image": "vllm/vllm-openai:latest", "ports": ["8000/http", "8001/tcp"], "gpu": null,
    "runtime": {"ports": [
        {"private": 8000, "public": 60181, "type": "http", "ip": "100.65.0.1"},
        {"private": 8001, "public": 10341, "type": "tcp", "ip": "203.0.113.9 "}
    ]}
}"#;

fn look(pod: &Value, port: u16, via: RunPodVia) -> Item {
    let source =
        RunPodSource { name_prefix: "llm-".into(), port, via, api: Endpoint::plain("api", "127.0.0.1", 1) };
    item(pod, &source, &discovery(DiscoverySource::RunPod(source.clone())))
}

fn changed(key: &str, value: &str) -> Value {
    let mut pod = json(WHOLE);
    pod[key] = json(value);
    pod
}

#[test]
fn a_running_pod_is_reached_by_the_proxy() {
    let found = usable(look(&json(WHOLE), 8000, RunPodVia::Proxy));
    assert_eq!(place(&found), ("s:xedezhzb9la3ye", "xedezhzb9la3ye-8000.proxy.runpod.net", 443));
    assert_eq!((found.price_per_hour, found.started), (Some(0.69), None));
}

#[test]
fn a_running_pod_is_reached_by_its_address_and_mapped_port() {
    let found = usable(look(&json(WHOLE), 8001, RunPodVia::Tcp));
    assert_eq!(place(&found), ("s:xedezhzb9la3ye", "203.0.113.9", 10341));
    let text = r#"{"ports": [{"private": "8001", "public": "10342", "type": "tcp", "ip": "203.0.113.9"}]}"#;
    assert_eq!(usable(look(&changed("runtime", text), 8001, RunPodVia::Tcp)).endpoint.port, 10342);
}

#[test]
fn a_pod_in_any_other_state_or_of_another_name_is_away() {
    for status in ["PROVISIONING", "STARTING", "EXITED", "ERROR", "TERMINATED", "running", ""] {
        let pod = changed("status", &format!("{status:?}"));
        assert_eq!(look(&pod, 8000, RunPodVia::Proxy), Item::Away, "{status}");
    }
    for (key, value) in [("status", "null"), ("status", "{}"), ("name", "\"other\""), ("name", "null")] {
        assert_eq!(look(&changed(key, value), 8000, RunPodVia::Proxy), Item::Away, "{key} = {value}");
    }
}

#[test]
fn a_running_pod_that_does_not_say_how_it_is_reached_is_unusable() {
    for (key, value) in [
        ("id", "null"),
        ("id", "7"),
        ("id", "\"a.b/c\""),
        ("id", "\"\""),
        ("ports", "null"),
        ("ports", "[]"),
        ("ports", "[8000, null]"),
        ("ports", "[\"8000/tcp\"]"),
        ("ports", "\"8000/http\""),
    ] {
        let found = look(&changed(key, value), 8000, RunPodVia::Proxy);
        // An id that is a number is odd, and still a name.
        assert_eq!(found == Item::Unusable, (key, value) != ("id", "7"), "{key} = {value}");
    }
    for runtime in [
        "null",
        "{}",
        r#"{"ports": null}"#,
        r#"{"ports": [null, 1]}"#,
        r#"{"ports": [{"private": 8001, "public": 0, "type": "tcp", "ip": "203.0.113.9"}]}"#,
        r#"{"ports": [{"private": 8001, "public": 10341, "type": "tcp", "ip": null}]}"#,
        r#"{"ports": [{"private": 8001, "public": 10341, "type": "http", "ip": "203.0.113.9"}]}"#,
        r#"{"ports": [{"private": 8002, "public": 10341, "type": "tcp", "ip": "203.0.113.9"}]}"#,
    ] {
        assert_eq!(look(&changed("runtime", runtime), 8001, RunPodVia::Tcp), Item::Unusable, "{runtime}");
    }
    assert_eq!(look(&json("[]"), 8000, RunPodVia::Proxy), Item::Unusable);
}

const WORDS: &[&str] = &[
    "id",
    "llm-1",
    "name",
    "status",
    "RUNNING",
    "ports",
    "8000/http",
    "runtime",
    "private",
    "public",
    "type",
    "tcp",
    "ip",
    "cost",
];

proptest! {
    #[test]
    fn no_pod_makes_the_parser_panic(pod in any_json(WORDS), is_tcp: bool) {
        let via = if is_tcp { RunPodVia::Tcp } else { RunPodVia::Proxy };
        let _ = look(&pod, 8000, via);
    }
}
