//! What an endpoint says that it has: names of models, what build stands behind them, which are in memory.
//!
//! Sources: OpenAI's `GET /v1/models`; Ollama's `api/types.go` (`ListResponse`, `ProcessResponse`). To Ollama a name without
//! a tag means `:latest`.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use serde::Deserialize;

/// Most models of one endpoint that are kept; hosted fronts list hundreds.
const MODELS_MAX: usize = 4096;

/// Models of one endpoint, as it listed them last.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Models {
    /// By name; what stands behind it, if it says so.
    named: HashMap<String, Option<Arc<str>>>,
    /// Of the names, in order, as in the other list.
    held: Vec<u64>,
    resident: Vec<u64>,
}

/// What an endpoint says of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// It never said which it has.
    Unknown,
    Not,
    /// It has it, and would load it first, as far as is known.
    OnDisk,
    InMemory,
}

#[derive(Deserialize)]
struct OpenAiList {
    data: Vec<OpenAiModel>,
}

#[derive(Deserialize)]
struct OpenAiModel {
    id: String,
}

#[derive(Deserialize)]
struct OllamaList {
    models: Vec<OllamaModel>,
}

#[derive(Deserialize)]
struct OllamaModel {
    name: String,
    #[serde(default)]
    digest: Option<String>,
}

impl Models {
    /// Reads the answer of `/v1/models`.
    pub(crate) fn of_openai(json: &[u8]) -> Option<Self> {
        let list: OpenAiList = serde_json::from_slice(json).ok()?;
        Some(Self::of(list.data.into_iter().map(|model| (model.id, None))))
    }

    /// Reads the answer of `/api/tags`.
    pub(crate) fn of_ollama(json: &[u8]) -> Option<Self> {
        let list: OllamaList = serde_json::from_slice(json).ok()?;
        let digest =
            |model: &OllamaModel| model.digest.as_deref().filter(|digest| !digest.is_empty()).map(Arc::from);
        Some(Self::of(list.models.into_iter().map(|model| (bare(&model.name).to_owned(), digest(&model)))))
    }

    /// The same models with what the answer of `/api/ps` says is in memory.
    pub(crate) fn with_resident(mut self, json: &[u8]) -> Self {
        let list: Option<OllamaList> = serde_json::from_slice(json).ok();
        let names = list.into_iter().flat_map(|list| list.models).take(MODELS_MAX);
        self.resident = ordered(names.map(|model| hash(&model.name)));
        self
    }

    fn of(models: impl Iterator<Item = (String, Option<Arc<str>>)>) -> Self {
        let named: HashMap<_, _> = models.take(MODELS_MAX).collect();
        let held = ordered(named.keys().map(|name| hash(name)));
        Self { named, held, resident: Vec::new() }
    }

    /// What stands behind a name.
    pub(crate) fn digest(&self, model: &str) -> Option<&Arc<str>> {
        self.named.get(bare(model))?.as_ref()
    }

    /// What is said of a model, by [`hash`].
    pub(crate) fn held(&self, model: u64) -> Held {
        let has = |list: &[u64]| list.binary_search(&model).is_ok();
        match has(&self.held) {
            false => Held::Not,
            true if has(&self.resident) => Held::InMemory,
            true => Held::OnDisk,
        }
    }

    /// Whether the names are the same, and so is what is in memory.
    pub(crate) fn are_those_of(&self, other: &Self) -> bool {
        self.held == other.held && self.resident == other.resident
    }

    /// Names, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.named.keys().cloned().collect();
        names.sort_unstable();
        names
    }
}

/// Each once, so that lists are compared and searched fast: some servers list thousands.
fn ordered(hashes: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut hashes: Vec<u64> = hashes.collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

/// Stands for a model's name within this process.
pub(crate) fn hash(model: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bare(model).as_bytes());
    hasher.finish()
}

/// The name by which `gemma` and `gemma:latest` are the same.
fn bare(model: &str) -> &str {
    model.strip_suffix(":latest").unwrap_or(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_both_kinds_are_read() {
        let models = Models::of_openai(br#"{"object":"list","data":[{"id":"b","x":1},{"id":"a"}]}"#).unwrap();
        assert_eq!(models.names(), ["a", "b"]);
        assert_eq!((models.held(hash("a")), models.held(hash("c"))), (Held::OnDisk, Held::Not));
        assert!(models.digest("a").is_none());

        let models =
            Models::of_ollama(br#"{"models":[{"name":"gemma:latest","digest":"d1"},{"name":"q:4b"}]}"#);
        let models = models.unwrap().with_resident(br#"{"models":[{"name":"q:4b","size_vram":1}]}"#);
        assert_eq!(models.digest("gemma").map(|digest| &**digest), Some("d1"));
        assert_eq!((models.held(hash("q:4b")), models.held(hash("gemma"))), (Held::InMemory, Held::OnDisk));
    }

    #[test]
    fn what_is_no_list_is_none() {
        for json in ["", "{}", "[]", "<html>", r#"{"data":3}"#] {
            assert_eq!(Models::of_openai(json.as_bytes()), None);
            assert_eq!(Models::of_ollama(json.as_bytes()), None);
        }
    }
}
