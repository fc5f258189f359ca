//! The configuration from outside: text and environment in; settings, or problems with their lines, out.

#[cfg(test)]
mod discover;
#[cfg(test)]
mod environment;
#[cfg(test)]
mod files;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod plugins;
#[cfg(test)]
mod redis;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod upstreams;

/// A file with a pool and a route, to which a test adds what it is about.
#[cfg(test)]
pub(crate) const BASE: &str = r#"
[pool.gpu-a]
endpoints = ["http://127.0.0.1:8000"]
[route.chat]
pool = "gpu-a"
"#;

/// A key's hash, different for each digit.
#[cfg(test)]
pub(crate) fn hash(digit: u8) -> String {
    format!("blake3:{}:{}", "0".repeat(32), digit.to_string().repeat(64))
}

#[cfg(test)]
pub(crate) fn source(text: &str) -> refrain_config::Source {
    refrain_config::Source::from_text("config/refrain.toml", text, [])
}

/// The settings of a text that must hold.
#[cfg(test)]
pub(crate) fn settings_of(text: &str) -> refrain_core::Settings {
    refrain_config::load(&source(text)).unwrap_or_else(|errors| panic!("{errors}")).settings
}
