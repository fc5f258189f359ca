//! The clients that applications really use, for end-to-end tests: the openai, ollama and anthropic Python packages.

use std::path::PathBuf;

use anyhow::Result;

use super::python::Python;
use super::site::Site;
use crate::command;
use crate::manifest::Manifest;

/// The three clients and everything that they need.
const PACKAGES: &str = include_str!("../../python/clients.txt");
const DIR: &str = "python";
const CHECK: &str = "import openai, ollama, anthropic; print(openai.__version__, anthropic.__version__)";

/// The Python version counts, since some packages hold native code for one.
pub(super) fn inputs(python: &Python) -> String {
    format!("{PACKAGES}{:?}{}", python.version, python.executable.display())
}

pub(super) fn prepare(site: &Site) -> Result<Vec<PathBuf>> {
    let staged = site.staging(DIR)?;
    site.pip_install(PACKAGES, &staged)?;
    command::logged(site.python.command(&staged).args(["-c", CHECK]), &site.log())?;
    let dir = site.install(&staged, DIR)?;
    Ok(["openai", "ollama", "anthropic"].map(|name| dir.join(name).join("__init__.py")).into())
}

pub(super) fn describe(site: &Site, manifest: &mut Manifest) {
    manifest.python = Some(site.python.executable.clone());
    manifest.python_path = Some(site.dir.join(DIR));
}
