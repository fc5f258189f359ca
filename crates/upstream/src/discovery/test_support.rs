//! Sources for the tests of parsers.

use std::sync::Arc;

use refrain_core::settings::{Discovery, DiscoverySource, Endpoint, Secret, Shrinking};
use serde_json::Value;

use super::listing::{Item, Listed};

/// A source named `s` whose servers are given an `Authorization` and weight 3.
pub(super) fn discovery(source: DiscoverySource) -> Arc<Discovery> {
    let template = Endpoint {
        weight: 3,
        authorization: Some(Secret("Bearer servers".into())),
        ..Endpoint::plain("", "", 0)
    };
    Arc::new(Discovery {
        name: "s".into(),
        source,
        template,
        interval: None,
        shrinking: Shrinking::default(),
    })
}

pub(super) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The endpoint of an item that must be one.
#[track_caller]
pub(super) fn usable(item: Item) -> Listed {
    match item {
        Item::Usable(listed) => listed,
        other => panic!("{other:?}"),
    }
}

/// Id, host and port.
pub(super) fn place(listed: &Listed) -> (&str, &str, u16) {
    (listed.endpoint.id.as_str(), &listed.endpoint.host, listed.endpoint.port)
}

/// Any JSON, with the words that parsers look for.
pub(super) fn any_json(words: &'static [&'static str]) -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let word = proptest::sample::select(words);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| serde_json::json!(number)),
        word.clone().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(word.clone().prop_map(str::to_owned), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
