//! Where things are: the repository and the set-up folder.

use std::path::{Path, PathBuf};

/// Names another set-up folder, so that several clones can share one.
pub(crate) const SETUP_DIR_ENV: &str = "REFRAIN_SETUP_DIR";

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own)
}

/// The folder for everything that set-up makes: `$REFRAIN_SETUP_DIR`, else `.refrain/` in the repository. Absolute.
pub(crate) fn setup_dir() -> PathBuf {
    match std::env::var_os(SETUP_DIR_ENV) {
        Some(dir) if !dir.is_empty() => root().join(dir),
        _ => root().join(".refrain"),
    }
}
