//! Named parts of a request as bytes, for cache keys and routing keys.

use std::borrow::Cow;

use refrain_core::{KeyPart, TenantId};
use refrain_plugin::RequestView;

use crate::ask::{Asked, Target};

/// Separates this digest from every other BLAKE3 of the same bytes.
const ROUTING_CONTEXT: &str = "refrain 2026 routing key v1";

/// A part of a key: what it is, and its bytes. Absent is not the same as empty.
pub(crate) struct Part {
    /// Kind and name: `header:x-project`.
    pub(crate) name: String,
    /// Its bytes, if it is there.
    pub(crate) value: Option<Vec<u8>>,
}

impl Part {
    /// Looks the part up in the request.
    pub(crate) fn resolve(part: &KeyPart, call: &dyn RequestView, asked: &Asked, target: &Target) -> Self {
        let text = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        let value = match part {
            KeyPart::Text(given) => text(Some(given)),
            KeyPart::Header(name) => text(call.header(name)),
            KeyPart::Claim(name) => text(call.claim(name)),
            KeyPart::Model
            | KeyPart::Message(_)
            | KeyPart::Json(_)
            | KeyPart::Sampling
            | KeyPart::SystemPrompt
            | KeyPart::Tools
            | KeyPart::Messages
            | KeyPart::History => asked.request.key_part(part, &target.model).map(Cow::into_owned),
        };
        Self { name: name(part), value }
    }
}

fn name(part: &KeyPart) -> String {
    match part {
        KeyPart::Text(_) => "text".to_owned(),
        KeyPart::Header(name) => format!("header:{name}"),
        KeyPart::Claim(name) => format!("claim:{name}"),
        KeyPart::Message(index) => format!("message:{index}"),
        KeyPart::Json(pointer) => format!("json:{pointer}"),
        KeyPart::Model => "model".to_owned(),
        KeyPart::Sampling => "sampling".to_owned(),
        KeyPart::SystemPrompt => "system-prompt".to_owned(),
        KeyPart::Tools => "tools".to_owned(),
        KeyPart::Messages => "messages".to_owned(),
        KeyPart::History => "history".to_owned(),
    }
}

/// Who has the same parts in the same tenant goes to the same endpoint.
pub(crate) fn routing_key(tenant: &TenantId, parts: &[Part]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(ROUTING_CONTEXT);
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    add(tenant.as_str().as_bytes());
    for part in parts {
        add(part.name.as_bytes());
        add(&[u8::from(part.value.is_some())]);
        add(part.value.as_deref().unwrap_or_default());
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(tenant: &str, parts: &[(&str, Option<&str>)]) -> [u8; 32] {
        let part = |(name, value): &(&str, Option<&str>)| Part {
            name: (*name).to_owned(),
            value: value.map(|value| value.as_bytes().to_vec()),
        };
        routing_key(&tenant.into(), &parts.iter().map(part).collect::<Vec<_>>())
    }

    #[test]
    fn an_absent_part_is_not_an_empty_one() {
        assert_ne!(key("acme", &[("header:a", None)]), key("acme", &[("header:a", Some(""))]));
        assert_ne!(key("acme", &[]), key("acme", &[("header:a", None)]));
    }

    proptest! {
        #[test]
        fn parts_never_run_into_each_other(
            a in prop::collection::vec(("[a-c:]{0,3}", prop::option::of("[a-c:]{0,3}")), 0..4),
            b in prop::collection::vec(("[a-c:]{0,3}", prop::option::of("[a-c:]{0,3}")), 0..4),
            tenants in ("[a-c]{0,3}", "[a-c]{0,3}"),
        ) {
            let borrow = |all: &[(String, Option<String>)], tenant: &str| {
                let all: Vec<(&str, Option<&str>)> =
                    all.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
                key(tenant, &all)
            };
            let same = a == b && tenants.0 == tenants.1;
            prop_assert_eq!(borrow(&a, &tenants.0) == borrow(&b, &tenants.1), same);
        }
    }
}
