//! `config/refrain.schema.json` must be what the config crate generates: editors and documentation read the file.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Fails if the file in the repository is not the generated one.
pub(super) fn check() -> Result<()> {
    let found = fs::read_to_string(path()).unwrap_or_default();
    if found != refrain_config::schema_json() {
        bail!("{} is not up to date: run `cargo xtask schema`", path().display());
    }
    Ok(())
}

/// `cargo xtask schema`: writes the file anew.
pub(crate) fn regenerate() -> Result<()> {
    fs::write(path(), refrain_config::schema_json())
        .with_context(|| format!("can't write {}", path().display()))?;
    println!("written: {}", path().display());
    Ok(())
}

fn path() -> PathBuf {
    workspace::root().join("config/refrain.schema.json")
}
