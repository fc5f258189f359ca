//! The parts of `cargo metadata` that the checks read.

use anyhow::Result;
use serde::Deserialize;

use crate::command;

#[derive(Deserialize)]
pub(super) struct Metadata {
    pub(super) packages: Vec<Package>,
}

#[derive(Deserialize)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// An SPDX expression, if the package states one.
    pub(super) license: Option<String>,
    /// Where it comes from; none: a folder.
    pub(super) source: Option<String>,
    /// Absolute.
    pub(super) manifest_path: std::path::PathBuf,
    pub(super) dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// None: the default one.
    pub(super) registry: Option<String>,
    #[serde(default)]
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Kind {
    #[default]
    Normal,
    Build,
    Dev,
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<String>::deserialize(deserializer)?.as_deref() {
            None => Ok(Self::Normal),
            Some("build") => Ok(Self::Build),
            Some("dev") => Ok(Self::Dev),
            Some(other) => Err(serde::de::Error::unknown_variant(other, &["build", "dev"])),
        }
    }
}

impl Metadata {
    /// Our own crates.
    pub(super) fn of_workspace() -> Result<Self> {
        Self::read(&["--no-deps"])
    }

    /// Our crates and all that they use, on every platform.
    pub(super) fn of_everything() -> Result<Self> {
        Self::read(&["--locked"])
    }

    fn read(arguments: &[&str]) -> Result<Self> {
        let json =
            command::stdout(command::cargo().args(["metadata", "--format-version", "1"]).args(arguments))?;
        Ok(serde_json::from_str(&json)?)
    }
}
