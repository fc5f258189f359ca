//! The embedder as `cargo xtask setup` prepared it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use refrain_cache::Embedder;
use refrain_core::settings;

/// What to do where something is missing.
pub(crate) const SET_UP: &str = "run `cargo xtask setup`";

/// One thread on the model that the manifest names, and time enough.
pub(crate) fn settings() -> settings::Embedder {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.refrain");
    let dir = std::env::var_os("REFRAIN_SETUP_DIR").filter(|dir| !dir.is_empty()).map_or(root, PathBuf::from);
    let manifest = std::fs::read_to_string(dir.join("manifest.json")).expect(SET_UP);
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect(SET_UP);
    let path = |name: &str| PathBuf::from(manifest[name].as_str().expect(SET_UP));
    settings::Embedder {
        model_dir: path("model_dir"),
        runtime_library: path("onnxruntime"),
        threads: 1,
        queue_max: 64,
        budget: Duration::from_secs(30),
        window_tokens: 256,
    }
}

/// The embedder with these settings.
pub(crate) fn open() -> Embedder {
    Embedder::open(&settings()).expect(SET_UP)
}
