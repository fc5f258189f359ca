//! What `cargo xtask setup` prepared. A test that lacks something fails and names the command; it never skips.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Absolute paths of what is prepared, as `manifest.json` in the set-up folder lists them.
#[derive(Deserialize)]
pub struct Manifest {
    model_dir: Option<PathBuf>,
    onnxruntime: Option<PathBuf>,
    llama_server: Option<PathBuf>,
    gguf: Option<PathBuf>,
    python: Option<PathBuf>,
    python_path: Option<PathBuf>,
    wasm_tools: Option<PathBuf>,
    componentize_qjs: Option<PathBuf>,
    redis_server: Option<PathBuf>,
    redisearch: Option<PathBuf>,
    redis7_server: Option<PathBuf>,
    prometheus: Option<PathBuf>,
    promtool: Option<PathBuf>,
    #[serde(skip)]
    dir: PathBuf,
}

impl Manifest {
    /// Reads it from `$REFRAIN_SETUP_DIR`, else from `.refrain/` in the repository.
    pub fn load() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let dir = std::env::var_os("REFRAIN_SETUP_DIR").filter(|dir| !dir.is_empty());
        let path = root.join(dir.map_or_else(|| ".refrain".into(), PathBuf::from)).join("manifest.json");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask setup`", path.display()));
        let read: Self = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask setup`", path.display()));
        Self { dir: path.parent().unwrap().to_owned(), ..read }
    }

    /// The embedding model's folder.
    pub fn model_dir(&self) -> &Path {
        prepared("embedding model", "model", self.model_dir.as_deref())
    }

    /// ONNX Runtime's shared library.
    pub fn onnxruntime(&self) -> &Path {
        prepared("ONNX Runtime", "model", self.onnxruntime.as_deref())
    }

    /// llama.cpp's `llama-server`.
    pub fn llama_server(&self) -> &Path {
        prepared("llama-server", "llm", self.llama_server.as_deref())
    }

    /// Weights for it.
    pub fn gguf(&self) -> &Path {
        prepared("language model", "llm", self.gguf.as_deref())
    }

    /// The Python that has the clients.
    pub fn python(&self) -> &Path {
        prepared("Python", "clients", self.python.as_deref())
    }

    /// What makes components of core modules.
    pub fn wasm_tools(&self) -> &Path {
        prepared("wasm-tools", "plugins", self.wasm_tools.as_deref())
    }

    /// What makes components of JavaScript.
    pub fn componentize_qjs(&self) -> &Path {
        prepared("componentize-qjs", "plugins", self.componentize_qjs.as_deref())
    }

    /// Redis 8's server: vector sets, no TLS.
    pub fn redis_server(&self) -> &Path {
        prepared("Redis 8", "redis", self.redis_server.as_deref())
    }

    /// The query engine, a module for Redis 8.
    pub fn redisearch(&self) -> &Path {
        prepared("redisearch.so", "redis", self.redisearch.as_deref())
    }

    /// Redis 7's server: TLS, no vectors.
    pub fn redis7_server(&self) -> &Path {
        prepared("Redis 7", "redis", self.redis7_server.as_deref())
    }

    /// Prometheus.
    pub fn prometheus(&self) -> &Path {
        prepared("Prometheus", "prometheus", self.prometheus.as_deref())
    }

    /// What checks and tests its rules.
    pub fn promtool(&self) -> &Path {
        prepared("promtool", "prometheus", self.promtool.as_deref())
    }

    /// Where policies in Rust are compiled.
    pub fn plugin_target_dir(&self) -> PathBuf {
        self.dir.join("plugins/cargo")
    }

    /// `PYTHONPATH` with the official clients.
    pub fn python_path(&self) -> &Path {
        prepared("Python clients", "clients", self.python_path.as_deref())
    }
}

fn prepared<'a>(what: &str, step: &str, path: Option<&'a Path>) -> &'a Path {
    match path {
        Some(path) if path.exists() => path,
        _ => panic!("no {what}: run `cargo xtask setup --only {step}`"),
    }
}
