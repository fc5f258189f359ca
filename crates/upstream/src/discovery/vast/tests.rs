//! Instances in every state and of every wrong shape.

use std::time::UNIX_EPOCH;

use proptest::prelude::*;
use refrain_core::settings::{DiscoverySource, Endpoint};

use super::super::test_support::{any_json, discovery, json, place, usable};
use super::*;

const WHOLE: &str = r#"{
    "id": 7719, "label": "llm", "actual_status": "running", "intended_status": "running",
    "public_ipaddr": " 203.0.113.7\n", "dph_total": 0.4213, "start_date": 1767225600.5,
    "ports": {"22/tcp": [{"HostIp": "0.0.0.0", "HostPort": "33525"}],
              "8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "33526"}, {"HostIp": "::", "HostPort": "33526"}]}
}"#;

fn source(label: Option<&str>) -> VastSource {
    VastSource { label: label.map(Into::into), port: 8000, api: Endpoint::plain("api", "127.0.0.1", 1) }
}

fn look(instance: &Value, label: Option<&str>) -> Item {
    let source = source(label);
    item(instance, &source, &discovery(DiscoverySource::Vast(source.clone())))
}

/// The whole instance with one key changed; without it where the value is absent.
fn changed(key: &str, value: Option<&str>) -> Value {
    let mut instance = json(WHOLE);
    match value {
        Some(value) => instance[key] = json(value),
        None => drop(instance.as_object_mut().unwrap().remove(key)),
    }
    instance
}

#[test]
fn a_running_instance_is_an_endpoint_with_its_price_and_age() {
    let found = usable(look(&json(WHOLE), Some("llm")));
    assert_eq!(place(&found), ("s:7719", "203.0.113.7", 33526));
    assert_eq!(found.price_per_hour, Some(0.4213));
    assert_eq!(found.started, Some(UNIX_EPOCH + Duration::from_millis(1_767_225_600_500)));
    assert_eq!((found.endpoint.weight, found.endpoint.authorization.is_some()), (3, true));
}

#[test]
fn an_instance_in_any_other_state_is_away() {
    for status in
        ["loading", "stopped", "frozen", "exited", "rebooting", "unknown", "offline", "created", "RUNNING"]
    {
        assert_eq!(
            look(&changed("actual_status", Some(&format!("{status:?}"))), None),
            Item::Away,
            "{status}"
        );
    }
    for status in [None, Some("null"), Some("1"), Some("[\"running\"]")] {
        assert_eq!(look(&changed("actual_status", status), None), Item::Away, "{status:?}");
    }
}

#[test]
fn an_instance_of_another_label_is_away() {
    assert_eq!(look(&json(WHOLE), Some("other")), Item::Away);
    for label in [None, Some("null"), Some("\"LLM\"")] {
        assert_eq!(look(&changed("label", label), Some("llm")), Item::Away);
        assert!(matches!(look(&changed("label", label), None), Item::Usable(_)));
    }
}

#[test]
fn ports_are_text_or_numbers() {
    for port in ["33526", "\"33526\"", "\" 33526 \""] {
        let ports = format!("{{\"8000/tcp\": [{{\"HostPort\": {port}}}]}}");
        assert_eq!(usable(look(&changed("ports", Some(&ports)), None)).endpoint.port, 33526, "{port}");
    }
    for mapping in [
        "[{\"HostPort\": 0}]",
        "[{\"HostPort\": 70000}]",
        "[{\"HostPort\": -1}]",
        "[{}]",
        "[]",
        "[null]",
        "\"33526\"",
    ] {
        let ports = format!("{{\"8000/tcp\": {mapping}}}");
        assert_eq!(look(&changed("ports", Some(&ports)), None), Item::Unusable, "{mapping}");
    }
    let second = "{\"8000/tcp\": [{\"HostPort\": null}, {\"HostPort\": \"9\"}]}";
    assert_eq!(usable(look(&changed("ports", Some(second)), None)).endpoint.port, 9);
}

#[test]
fn what_a_running_instance_needs_and_lacks_makes_it_unusable() {
    for (key, value) in [
        ("id", None),
        ("id", Some("null")),
        ("id", Some("{}")),
        ("id", Some("\"\"")),
        ("id", Some("\"a b\"")),
        ("public_ipaddr", None),
        ("public_ipaddr", Some("null")),
        ("public_ipaddr", Some("\"  \"")),
        ("public_ipaddr", Some("\"a/b\"")),
        ("public_ipaddr", Some("\"a@b\"")),
        ("public_ipaddr", Some("[\"203.0.113.7\"]")),
        ("ports", None),
        ("ports", Some("null")),
        ("ports", Some("[]")),
        ("ports", Some("{\"22/tcp\": [{\"HostPort\": \"33525\"}]}")),
    ] {
        assert_eq!(look(&changed(key, value), None), Item::Unusable, "{key} = {value:?}");
    }
    for instance in ["null", "1", "\"a\"", "[]"] {
        assert_eq!(look(&json(instance), None), Item::Unusable, "{instance}");
    }
}

#[test]
fn price_and_age_may_be_missing_or_nonsense() {
    for value in [None, Some("null"), Some("-1e300"), Some("\"abc\""), Some("{}")] {
        assert_eq!(usable(look(&changed("dph_total", value), None)).price_per_hour, None, "{value:?}");
        assert_eq!(usable(look(&changed("start_date", value), None)).started, None, "{value:?}");
    }
    assert_eq!(usable(look(&changed("start_date", Some("1e300")), None)).started, None);
    assert_eq!(usable(look(&changed("dph_total", Some("\"0.5\"")), None)).price_per_hour, Some(0.5));
}

#[test]
fn pages_follow_by_their_token_whatever_is_in_it() {
    assert_eq!(path(None), "/api/v1/instances/?limit=25");
    assert_eq!(path(Some("a b&limit=0#")), "/api/v1/instances/?limit=25&after_token=a%20b%26limit%3D0%23");
}

const WORDS: &[&str] = &[
    "id",
    "actual_status",
    "running",
    "label",
    "public_ipaddr",
    "203.0.113.7",
    "ports",
    "8000/tcp",
    "HostPort",
    "33526",
    "dph_total",
    "start_date",
];

proptest! {
    #[test]
    fn no_instance_makes_the_parser_panic(instance in any_json(WORDS)) {
        let _ = look(&instance, Some("label"));
    }
}
