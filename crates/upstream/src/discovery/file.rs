//! A list in a file: `endpoints = [..]` in TOML, `{"endpoints": [..]}` or `[..]` in JSON (by the name's end). An item is a
//! URL, or a table with `url` and perhaps `name` and `weight`; `host:port` is a URL of the template's scheme.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Uri;
use refrain_core::EndpointId;
use refrain_core::settings::Discovery;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use super::DiscoveryError;
use super::listing::{Item, Listed, Listing, authority, host};
use super::value::identity;

/// Largest list, in bytes.
const LIST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Largest weight of an endpoint, as in the configuration.
const WEIGHT_MAX: u64 = 1000;

/// A list in a file.
#[derive(Debug)]
pub(super) struct ListFile {
    pub(super) discovery: Arc<Discovery>,
    pub(super) file: PathBuf,
}

impl ListFile {
    /// # Cancel safety
    /// Safe: nothing is kept between looks.
    pub(super) async fn look(&self) -> Result<Listing, DiscoveryError> {
        let text = read_bounded(&self.file, LIST_BYTES_MAX).await?;
        let is_json = self.file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let list = if is_json { json(&text) } else { toml(&text) }?;
        Listing::of(
            list.iter().map(|item| listed(item, &self.discovery).map_or(Item::Unusable, Item::Usable)),
        )
    }
}

/// Reads a text file off the reactor, refusing one that is larger than `bytes_max`.
pub(super) async fn read_bounded(file: &Path, bytes_max: u64) -> Result<String, DiscoveryError> {
    let failed = |source| DiscoveryError::File { file: file.to_owned(), source: Arc::new(source) };
    let mut bytes = Vec::new();
    let open = tokio::fs::File::open(file).await.map_err(failed)?;
    open.take(bytes_max + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(DiscoveryError::Malformed("the file is larger than it may be"));
    }
    String::from_utf8(bytes).map_err(|_| DiscoveryError::Malformed("the file is not UTF-8"))
}

fn json(text: &str) -> Result<Vec<Value>, DiscoveryError> {
    let not_json = |_| DiscoveryError::Malformed("the file is not JSON");
    match serde_json::from_str(text).map_err(not_json)? {
        Value::Array(list) => Ok(list),
        Value::Object(mut table) => list_of(table.remove("endpoints").unwrap_or_default()),
        other => list_of(other),
    }
}

fn toml(text: &str) -> Result<Vec<Value>, DiscoveryError> {
    let table: toml::Table = text.parse().map_err(|_| DiscoveryError::Malformed("the file is not TOML"))?;
    let list = table.get("endpoints").and_then(|list| serde_json::to_value(list).ok());
    list_of(list.unwrap_or_default())
}

fn list_of(value: Value) -> Result<Vec<Value>, DiscoveryError> {
    match value {
        Value::Array(list) => Ok(list),
        _ => Err(DiscoveryError::Malformed("the file holds no list named endpoints")),
    }
}

fn listed(item: &Value, discovery: &Discovery) -> Option<Listed> {
    let (url, name, weight) = match item {
        Value::String(url) => (url.as_str(), None, None),
        table => (table["url"].as_str()?, present(&table["name"]), present(&table["weight"])),
    };
    let mut listed = of_url(url.trim(), discovery)?;
    if let Some(name) = name {
        listed.endpoint.id = EndpointId::new(format!("{}:{}", discovery.name, identity(name)?));
    }
    if let Some(weight) = weight {
        let weight = weight.as_u64().filter(|weight| (1..=WEIGHT_MAX).contains(weight))?;
        listed.endpoint.weight = u32::try_from(weight).ok()?;
    }
    Some(listed)
}

fn present(value: &Value) -> Option<&Value> {
    (!value.is_null()).then_some(value)
}

fn of_url(url: &str, discovery: &Discovery) -> Option<Listed> {
    let uri: Uri = url.parse().ok()?;
    if uri.query().is_some() || uri.authority()?.as_str().contains('@') {
        return None;
    }
    let is_tls = match uri.scheme_str() {
        None => discovery.template.tls.is_some(),
        Some("http") => false,
        Some("https") => true,
        Some(_) => return None,
    };
    let host = host(uri.host()?.trim_start_matches('[').trim_end_matches(']'))?;
    // A port that is none looks like one that is not there.
    let port = match uri.authority()?.as_str().strip_prefix(uri.host()?)?.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None if is_tls => 443,
        None => 80,
    };
    let mut listed = Listed::new(discovery, &authority(host, port), host, port);
    let tls = listed.endpoint.tls.take().unwrap_or_default();
    listed.endpoint.tls = is_tls.then_some(tls);
    let path = uri.path().trim_end_matches('/');
    if !path.is_empty() {
        path.clone_into(&mut listed.endpoint.base_path);
    }
    Some(listed)
}

#[cfg(test)]
mod tests;
