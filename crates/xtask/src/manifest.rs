//! What set-up prepared, and where: `manifest.json` in the set-up folder.
//!
//! Tests and `cargo xtask run` read it; they fail, naming the command to run, where something is missing. They never skip.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Raised when a field changes its meaning.
const SCHEMA: u32 = 1;
const FILE: &str = "manifest.json";

/// Absolute paths of what is prepared; what is not is absent.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Version of this format.
    pub(crate) schema: u32,
    /// `model.onnx` (int8, needs VNNI), `model-fp32.onnx`, `tokenizer.json` and its companions.
    pub(crate) model_dir: Option<PathBuf>,
    /// ONNX Runtime's shared library.
    pub(crate) onnxruntime: Option<PathBuf>,
    /// llama.cpp's `llama-server`; its libraries lie beside it.
    pub(crate) llama_server: Option<PathBuf>,
    /// Weights for it.
    pub(crate) gguf: Option<PathBuf>,
    /// The Python that `python_path` was made for.
    pub(crate) python: Option<PathBuf>,
    /// `PYTHONPATH` with the openai, ollama and anthropic clients.
    pub(crate) python_path: Option<PathBuf>,
    /// `cargo-nextest`.
    pub(crate) nextest: Option<PathBuf>,
    /// What builds cache policies; `refrain plugin build` is told by `REFRAIN_WASM_TOOLS` and so on.
    pub(crate) wasm_tools: Option<PathBuf>,
    /// The same for Python.
    pub(crate) componentize_py: Option<PathBuf>,
    /// The same for JavaScript.
    pub(crate) componentize_qjs: Option<PathBuf>,
    /// The same for C.
    pub(crate) zig: Option<PathBuf>,
    /// Redis 8, with vector sets, without TLS.
    pub(crate) redis_server: Option<PathBuf>,
    /// The query engine, a module for it.
    pub(crate) redisearch: Option<PathBuf>,
    /// Redis 7, without vectors, with TLS.
    pub(crate) redis7_server: Option<PathBuf>,
    /// `redis-cli`, for developers.
    pub(crate) redis_cli: Option<PathBuf>,
    /// Prometheus, which tests have scrape Refrain.
    pub(crate) prometheus: Option<PathBuf>,
    /// What checks its rules.
    pub(crate) promtool: Option<PathBuf>,
    /// For `cargo xtask bench` only.
    pub(crate) nginx: Option<PathBuf>,
    /// For `cargo xtask bench` only.
    pub(crate) wrk: Option<PathBuf>,
}

impl Manifest {
    /// An empty one of this version.
    pub(crate) fn new() -> Self {
        Self { schema: SCHEMA, ..Self::default() }
    }

    /// Reads it from the set-up folder.
    pub(crate) fn load(setup_dir: &Path) -> Result<Self> {
        let path = setup_dir.join(FILE);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{} can't be read: run `cargo xtask setup`", path.display()))?;
        let manifest: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is of another version: run `cargo xtask setup`", path.display()))?;
        if manifest.schema != SCHEMA {
            bail!("{} has schema {}, not {SCHEMA}: run `cargo xtask setup`", path.display(), manifest.schema);
        }
        Ok(manifest)
    }

    /// Writes it into the set-up folder, all or nothing.
    pub(crate) fn save(&self, setup_dir: &Path) -> Result<()> {
        let path = setup_dir.join(FILE);
        let staged = path.with_extension("json.new");
        fs::write(&staged, serde_json::to_string_pretty(self)? + "\n")?;
        fs::rename(&staged, &path).with_context(|| format!("can't write {}", path.display()))
    }
}

/// The path of a prepared thing, or the command that prepares it.
pub(crate) fn require<'a>(what: &str, step: &str, path: Option<&'a PathBuf>) -> Result<&'a Path> {
    let path = path.with_context(|| format!("no {what}: run `cargo xtask setup --only {step}`"))?;
    if !path.exists() {
        bail!("{what} has gone from {}: run `cargo xtask setup --only {step}`", path.display());
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_manifest_loads_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = Manifest { gguf: Some("/x/y.gguf".into()), ..Manifest::new() };
        manifest.save(dir.path()).unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), manifest);
    }

    #[test]
    fn a_missing_or_foreign_manifest_names_the_command_to_run() {
        let dir = tempfile::tempdir().unwrap();
        for text in [None, Some("{}"), Some(r#"{"schema": 99}"#), Some(r#"{"schema": 1, "odd": 1}"#)] {
            if let Some(text) = text {
                fs::write(dir.path().join(FILE), text).unwrap();
            }
            let error = Manifest::load(dir.path()).unwrap_err().to_string();
            assert!(error.contains("run `cargo xtask setup`"), "{error}");
        }
    }

    #[test]
    fn an_absent_thing_names_the_step_that_prepares_it() {
        let gone = PathBuf::from("/nowhere/at/all");
        for path in [None, Some(&gone)] {
            let error = require("language model", "llm", path).unwrap_err().to_string();
            assert!(error.contains("run `cargo xtask setup --only llm`"), "{error}");
        }
    }
}
